"""A bundle that reads actions on a real broker: what a worker serves is what `freshet verify` computes again, and a worker that
reads or remembers actions otherwise is red."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from deploy.verify import Report, Scope, run
from stream.core.state import Interest, decode
from stream.settings import Settings
from tests.bundles import tiny_bundle
from tests.worker_process import Events, WorkerProcess, all_committed, environment, read_all

pytestmark = [pytest.mark.integration, pytest.mark.faults]
READ = ("purchase", "skip")
ACTIONS = ("purchase", None, "skip", "share", None)
"""What clicks say in turn; the bundle does not know `share`."""
EVENTS = 300
USERS = 10


@pytest.fixture(scope="module")
def acting(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A bundles folder with CURRENT."""
    folder = tmp_path_factory.mktemp("acting")
    tiny_bundle(folder, actions=READ)
    return folder


def served(settings: Settings, bundles: Path, folder: Path, mutant: str = "") -> WorkerProcess:
    """Have a worker take in EVENTS clicks and ratings, and stop it."""
    worker = WorkerProcess(settings, folder, bundles=bundles, mutant=mutant)
    events = Events(settings, seed=1, users=USERS)
    try:
        events.send_items()
        for number in range(EVENTS):
            action = ACTIONS[number % len(ACTIONS)]
            rated = number % 7 == 0
            fields = {} if rated or action is None else {"action": action}
            events.put(*events.one(kind="rating" if rated else "click", **fields))
        events.producer.flush()
        worker.start()
        all_committed(settings, worker, 240)
        assert worker.terminate() == 0
    finally:
        worker.close()
        events.close()
    return worker


def judged(settings: Settings, bundles: Path) -> Report:
    return run(settings, scope=Scope(bundle=bundles))


def last_states(settings: Settings) -> list[Interest]:
    records = {record.key: record.value for record in read_all(settings, settings.changelog_topic)}
    return [decode(value) for key, value in records.items() if not key.startswith(b"\xff")]


def test_what_is_served_is_computed_again(world: Callable[..., Settings], acting: Path, tmp_path: Path) -> None:
    settings = world(partitions=2)
    served(settings, acting, tmp_path)
    command = [sys.executable, "-m", "deploy.cli", "verify", "--json", "--bundle", str(acting), "--numbers", "50"]
    done = subprocess.run(command, env=environment(settings), capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    report = json.loads(done.stdout)
    assert report["applied"] == EVENTS
    assert report["numbers"] > 0
    assert report["ranked"] > 0
    remembered = {recent.action for state in last_states(settings) for recent in state.recents()}
    assert remembered == {"purchase", "skip", "share", ""}


@pytest.mark.parametrize(("mutant", "kind"), [("feeds_no_action", "numbers"), ("muddles_action", "state")])
def test_a_worker_that_reads_or_remembers_otherwise_is_red(
    world: Callable[..., Settings], acting: Path, tmp_path: Path, mutant: str, kind: str
) -> None:
    settings = world(partitions=2)
    served(settings, acting, tmp_path, mutant)
    report = judged(settings, acting)
    assert report.exit_code == 1
    assert set(report.kinds) == {kind}, report.violations
