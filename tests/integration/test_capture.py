"""`freshet capture` beside a real Kafka: killed while events arrive, it still holds each of them once."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
from collections.abc import Callable
from functools import partial
from pathlib import Path

import pytest

from deploy.clients.forgetting import ask_to_forget
from deploy.clients.producer import Producer
from deploy.learning.capture import HALF
from models.data import read
from models.data.capture import table
from stream.core import bundle_log
from stream.core.messages import SOURCE_TOPICS
from stream.settings import Settings
from tests.capture_process import captured, command, held, ranges_in
from tests.chaos.trial import Traffic
from tests.worker_process import environment, until

pytestmark = pytest.mark.integration

KILLS = 5


def captured_enough(folder: Path, count: int) -> bool:
    return ranges_in(folder) >= count


def users_in(folder: Path) -> set[str]:
    return {
        user
        for kind in SOURCE_TOPICS
        for path in (folder / kind).rglob("day=*.parquet")
        for user in table(path)["user"]
    }


def test_killed_five_times_under_load_it_holds_each_record_once(world: Callable[..., Settings], tmp_path: Path) -> None:
    settings, folder = world(partitions=2), tmp_path / "kept"
    log = tmp_path / "ledger.jsonl"
    sending = Traffic(settings, log, 0, 400, users=60)
    sending.start()
    try:
        for number in range(KILLS):
            enough = ranges_in(folder) + 4 + number
            running = subprocess.Popen(
                command(folder, "--every", "0.05"), env=environment(settings), stdout=subprocess.DEVNULL
            )
            try:
                until(partial(captured_enough, folder, enough), 60, "it has captured more")
                running.send_signal(signal.SIGKILL)
            finally:
                running.kill()
                running.wait()
    finally:
        sending.stop()
    done = captured(settings, folder, "--json")
    assert done.returncode == 0, done.stderr
    kinds = dict(zip(settings.sources, SOURCE_TOPICS, strict=True))
    lines = map(json.loads, log.read_text().splitlines())
    sent = {(kinds[row["topic"]], row["partition"], row["offset"]) for row in lines if "offset" in row}
    found = held(settings, folder)
    assert set(found.values()) == {1}
    assert sent
    assert set(found) == sent
    assert not list(folder.rglob(f"{HALF}*"))
    again = json.loads(captured(settings, folder, "--json").stdout)
    assert again == {"records": {}, "refused": {}, "missing": 0, "forgotten": 0, "ranges": 0}
    assert read(folder).events.height > 0


def test_a_forgotten_user_leaves_the_files(world: Callable[..., Settings], tmp_path: Path) -> None:
    settings, folder = world(partitions=2), tmp_path / "kept"
    sending = Traffic(settings, tmp_path / "ledger.jsonl", 0, 200, users=5)
    sending.start()
    until(lambda: sending.sent > 200, 60, "events are sent")
    sending.stop()
    assert captured(settings, folder).returncode == 0
    users = users_in(folder)
    gone = min(users)
    ask_to_forget(settings, gone)
    done = captured(settings, folder)
    assert "events of forgotten users erased" in done.stdout
    assert users_in(folder) == users - {gone}


def test_without_a_broker_it_says_so(tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "deploy.cli", "--brokers", "127.0.0.1:1", "capture", str(tmp_path / "kept")],
        capture_output=True, text=True, timeout=120, check=False,
    )  # fmt: skip
    assert done.returncode == 69
    assert done.stderr.startswith("freshet: ")
    assert "Traceback" not in done.stderr


def test_learn_says_that_an_activation_decides_what_is_served(world: Callable[..., Settings], tmp_path: Path) -> None:
    """Without --activate it changes CURRENT, which nobody looks at any more."""
    settings = world(partitions=2)
    words = [
        "learn",
        str(tmp_path / "kept"),
        "--runs",
        str(tmp_path / "runs"),
        "--bundles",
        str(tmp_path / "bundles"),
        "--once",
    ]

    def says(*more: str) -> bool:
        done = subprocess.run(
            [sys.executable, "-m", "deploy.cli", *words, *more],
            env=environment(settings), capture_output=True, text=True, timeout=300, check=False,
        )  # fmt: skip
        assert done.returncode == 65, done.stderr  # there is nothing to learn from
        return "a bundle was activated" in done.stderr

    assert not says()
    record = bundle_log.Activate("a" * 64, 1)
    with Producer(settings) as producer:
        sent = producer.send(settings.bundles_topic, bundle_log.key_of(record), bundle_log.encode(record))
        producer.position(sent)
    assert says()
    assert not says("--activate")
