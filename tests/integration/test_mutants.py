"""The test of the tester: a real worker that breaks the promise in one way turns `freshet verify` red, for the right reason."""

from __future__ import annotations

import json
import re
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from hashlib import sha256
from pathlib import Path
from typing import Any

import pytest

from deploy.clients.log_reader import KafkaLog
from deploy.verify import Report, Scope, run
from stream.settings import Settings
from tests.settings import QUICK
from tests.worker_process import Events, WorkerProcess, all_committed, environment

pytestmark = [pytest.mark.integration, pytest.mark.faults]
SMALL_BATCHES = QUICK | {"micro_batch": 64}
EVENTS = 2500
USERS = 30
NEWCOMER = "newcomer"  # an item that the bundle does not know: its vector comes from its text
CONSEQUENCES = {
    "lost",
    "uncovered",
    "slate-state",
    "slate-chain",
    "slate-events",
    "slate-applied",
    "chain",
    "applied",
    "state",
}
"""What one break may bring about besides its own kind."""
BESIDES = {"misranks": {"slate"}}
"""What one mutant alone brings about besides: the order of a slate's items is seen without a bundle too."""


class Sending(Events):
    """Clicks and ratings, a few comments, with a ledger of what was acknowledged."""

    def write(self, count: int, producer_log: Path) -> None:
        sent = []
        for number in range(count):
            kind = "comment" if number % 250 == 0 else ("click", "rating")[number % 4 == 0]
            item = {"item": NEWCOMER} if number % 100 == 0 else {}
            topic, message = self.one(kind=kind, **item)
            sent.append((f"{self.sent}", topic, message, self.put(topic, message)))
        self.producer.flush()
        with producer_log.open("a") as out:
            for name, topic, message, future in sent:
                metadata = future.get(10)
                line = {
                    "id": name, "topic": topic, "partition": metadata.partition, "offset": metadata.offset,
                    "key": message["user"], "sha256": sha256(json.dumps(message).encode()).hexdigest(), "status": "acked",
                }  # fmt: skip
                out.write(json.dumps(line) + "\n")


def work(
    settings: Settings, bundles: Path, folder: Path, mutant: str, *, crashes: bool = False, loses_disk: bool = False
) -> Report:
    """Start the mutant on EVENTS events, judge what it has made of them. A ledger and the data folder are judged too."""
    worker = WorkerProcess(settings, folder, bundles=bundles, mutant=mutant)
    events = Sending(settings, seed=1, users=USERS)
    try:
        events.send_items()
        events.send_items([NEWCOMER])
        events.write(EVENTS, folder / "ledger.jsonl")
        worker.start()
        if crashes:
            assert worker.wait(60) == -signal.SIGKILL
            if loses_disk:  # what is on it is not in the changelog
                assert "store" in run(settings, scope=Scope(data_dirs=(worker.data_dir,))).kinds
            worker.start()
        if loses_disk:
            all_committed(settings, worker)
            worker.kill()
            shutil.rmtree(worker.data_dir)
            worker.data_dir.mkdir()
            (worker.data_dir / "crashed").touch()
            events.write(200, folder / "ledger.jsonl")
            worker.start()
        all_committed(settings, worker)
        assert worker.terminate() == 0
        numbers = bundles if mutant in ("unmutated", "drifts", "misranks", "misleads") else None
        return run(
            settings, scope=Scope(producer_log=folder / "ledger.jsonl", data_dirs=(worker.data_dir,), bundle=numbers)
        )
    finally:
        worker.close()
        events.close()


def test_the_unmutated_worker_is_green(world: Callable[..., Settings], bundles: Path, tmp_path: Path) -> None:
    settings = world(**SMALL_BATCHES)
    report = work(settings, bundles, tmp_path, "unmutated")
    assert report.violations == []
    assert report.exit_code == 0
    assert report.applied == report.input == report.acked == EVENTS
    assert report.stored == report.users == USERS
    assert report.stored_ahead == 0
    assert report.numbers > 0
    assert report.ranked > 0
    _parts_are_green(settings)


def _parts_are_green(settings: Settings) -> None:
    """Ranges by time and by offset, as the command is told them."""
    clicks = settings.sources[0]
    log = KafkaLog(settings)
    ends = [span.end for span in log.spans([clicks]).values()]
    log.close()
    starts = [f"--from-offset={clicks}/{partition}/{end // 2}" for partition, end in enumerate(ends)]
    left = EVENTS - sum(end // 2 for end in ends)
    for arguments, code, expected in (
        (["--since", "2020-01-01T00:00:00+00:00"], 0, EVENTS),
        (["--since", str(int(time.time() * 1000))], 0, 0),  # nothing has come since
        (["--until", "2020-01-01"], 3, 0),  # all that is there came later: nothing was checked
        (starts, 0, left),
    ):
        command = [sys.executable, "-m", "deploy.cli", "verify", "--json", *arguments]
        done = subprocess.run(command, env=environment(settings), capture_output=True, text=True, check=False)
        report = json.loads(done.stdout)
        assert (done.returncode, report["input"], report["applied"]) == (code, expected, expected), (arguments, report)


@pytest.mark.parametrize(
    ("mutant", "kind", "crashes"),
    [
        ("sets_aside", "valid-dead-letter", False),
        ("drops", "lost", False),
        ("doubles", "double", False),
        ("swaps", "order", False),
        ("skips_record", "gap", False),
        ("skips_republish", "uncovered", True),
        ("forks", "fork", False),
        ("commits_early", "lost", True),
        ("drifts", "numbers", False),
        ("misranks", "ranking", False),
        ("misleads", "ranking", False),
        ("erases", "slate", False),
        ("overclaims", "forged-claim", False),
    ],
)
def test_a_mutant_is_red(
    world: Callable[..., Settings], bundles: Path, tmp_path: Path, mutant: str, kind: str, crashes: bool
) -> None:
    report = work(world(**SMALL_BATCHES), bundles, tmp_path, mutant, crashes=crashes)
    assert report.exit_code == 1
    assert kind in report.kinds, report.violations
    assert set(report.kinds) <= CONSEQUENCES | {kind, "store"} | BESIDES.get(mutant, set()), report.violations


@pytest.mark.parametrize(
    ("mutant", "message"),
    [
        ("forgets_seen", r"the \d+ seen items are not those of its events, which are \d+"),
        ("muddles_recent", "the recent events are not those applied last"),
    ],
    ids=["forgets_seen", "muddles_recent"],
)
def test_a_memory_that_is_wrong_is_red(
    world: Callable[..., Settings], bundles: Path, tmp_path: Path, mutant: str, message: str
) -> None:
    """Everything else of such a state is right, and so is every slate: `state` says more than one thing, so its words count."""
    report = work(world(**SMALL_BATCHES), bundles, tmp_path, mutant)
    assert report.exit_code == 1
    assert set(report.kinds) == {"state"}, report.violations
    assert all(re.fullmatch(message, violation.message) for violation in report.violations), report.violations


def test_rocksdb_before_the_changelog_is_red(world: Callable[..., Settings], bundles: Path, tmp_path: Path) -> None:
    """Killed between, it goes on from a state that nobody else can ever read; when the disk is lost, that is lost with it."""
    report = work(world(**SMALL_BATCHES), bundles, tmp_path, "disk_first", crashes=True, loses_disk=True)
    assert report.exit_code == 1
    assert {"slate-state", "lost"} & set(report.kinds), report.violations


RULES: list[dict[str, Any]] = [
    {"rule": "few", "kind": "cap", "most": 3},
    {"rule": "more", "kind": "boost", "filter": {"category": "c1"}, "factor": 20},
    {"rule": "star", "kind": "pin", "item": "item-41", "place": 2},
]


@pytest.mark.parametrize(
    ("mutant", "kind", "message"),
    [
        ("unmutated", "", ""),
        ("ignores_caps", "ranking", "is beyond a cap"),
        ("mispins", "ranking", "a pinned item is not at its place"),
        ("unboosts", "ranking", "under the rules; expected"),
        ("ranks_by_score", "ranking", "another item is better there"),
        ("leaves_out", "uncovered", "it is in a state that no slate of the placement 'cart' shows"),
    ],
)
def test_a_mutant_of_rules_diversity_or_placements_is_red(
    world: Callable[..., Settings], bundles: Path, tmp_path: Path, mutant: str, kind: str, message: str
) -> None:
    """Rules and diversity in force at once, and two placements, each with slates of its own."""
    settings = world(
        **SMALL_BATCHES,
        diversity=0.5,
        placements={"cart": {"size": 5, "diversity": 0.2}},
        published=["default", "cart"],
    )
    worker = WorkerProcess(settings, tmp_path, bundles=bundles, mutant=mutant)
    events = Events(settings, seed=2, users=12)
    try:
        for number in range(1, 51):
            item: dict[str, Any] = {"item": f"item-{number}", "title": "A thing", "categories": [f"c{number % 6}"]}
            events.producer.send(settings.items_topic, key=item["item"].encode(), value=json.dumps(item).encode())
        for rule in RULES:
            events.producer.send(settings.rules_topic, key=rule["rule"].encode(), value=json.dumps(rule).encode())
        events.send(250)
        worker.start()
        all_committed(settings, worker)
        assert worker.terminate() == 0
        report = run(settings, scope=Scope(bundle=bundles, users=0))
    finally:
        worker.close()
        events.close()
    assert report.ranked > 20
    assert set(report.kinds) == ({kind} if kind else set()), report.violations
    assert report.exit_code == (1 if kind else 0)
    found = [one.message for one in report.violations]
    assert not kind or any(message in one for one in found), found
