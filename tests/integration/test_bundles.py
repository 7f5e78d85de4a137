"""Bundles exchanged under real workers: `freshet bundles` says what became of it, `freshet verify` who has made which slate."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from deploy.verify import Scope, run
from stream.settings import Settings
from tests.activations import ThreeBundles, activate
from tests.settings import LONG_SESSION, World
from tests.worker_process import Events, WorkerProcess, all_committed, environment, slates, until

pytestmark = pytest.mark.integration

LIMIT = 5.0
"""Seconds within which a worker must have switched, where it never does."""


@pytest.fixture
def both(three_bundles: ThreeBundles) -> tuple[Path, str, str]:
    """A folder, the id of CURRENT, and another one's."""
    return three_bundles[:3]


@pytest.fixture
def settings(world: World) -> Settings:
    return world(**LONG_SESSION | {"partitions": 2})


@pytest.fixture
def workers(settings: Settings, both: tuple[Path, str, str], tmp_path: Path) -> Iterator[Callable[..., WorkerProcess]]:
    """Makes workers: workers(name, mutant)."""
    made: list[WorkerProcess] = []

    def make(name: str = "w1", mutant: str = "", bundles: Path | None = None) -> WorkerProcess:
        made.append(WorkerProcess(settings, tmp_path, name, mutant, bundles=bundles or both[0]))
        return made[-1].start()

    yield make
    for one in made:
        one.close()


@pytest.fixture
def events(settings: Settings) -> Iterator[Events]:
    made = Events(settings, seed=1)
    made.send_items()
    yield made
    made.close()


def freshet(settings: Settings, bundles: Path, *words: str, code: int = 0) -> Any:
    """What a command prints as JSON."""
    done = subprocess.run(
        [sys.executable, "-m", "deploy.cli", "bundles", *words, "--json"],
        env=environment(settings, bundles=bundles), capture_output=True, text=True, timeout=300, check=False,
    )  # fmt: skip
    assert done.returncode == code, done.stderr + done.stdout
    return json.loads(done.stdout)


def newest(settings: Settings) -> set[str]:
    """The bundles that the last 20 slates name."""
    return {slate["bundle"] for slate in sorted(slates(settings), key=lambda one: int(one["time"]))[-20:]}


def test_a_bundle_is_activated_and_rolled_back_by_command(
    settings: Settings, both: tuple[Path, str, str], workers: Any, events: Events
) -> None:
    folder, own, other = both
    running = [workers(name) for name in ("w1", "w2")]
    for worker in running:
        worker.wait_ready()
    events.send(200)
    done = freshet(settings, folder, "activate", other[:10], "--reason", "a test")
    assert (done["bundle"], done["switched"], done["refused"]) == (other, 2, [])
    assert done["seconds"] > 0
    assert len({one["worker"] for one in done["loaded"]}) == 2
    events.send(200)
    all_committed(settings)
    assert newest(settings) == {other}
    listed = freshet(settings, folder, "list")
    assert (listed["current"], listed["activated"]) == (own, other)
    assert freshet(settings, folder, "rollback")["bundle"] == own
    events.send(200)
    all_committed(settings)
    assert newest(settings) == {own}
    found = freshet(settings, folder, "history")["activations"]
    assert [(one["bundle"], one["switched"]) for one in found] == [(other, 2), (own, 2)]
    assert found[0]["reason"] == "a test"
    report = run(settings, wait=30, scope=Scope(bundle=folder, swap_limit=60))
    assert (report.violations, report.exit_code, report.numbers_unverifiable) == ([], 0, 0)


def test_a_rollback_of_the_first_activation_although_export_has_changed_current(
    settings: Settings, both: tuple[Path, str, str], workers: Any, events: Events, tmp_path: Path
) -> None:
    _, own, other = both
    folder = tmp_path / "mine"
    shutil.copytree(both[0], folder)
    workers(bundles=folder).wait_ready()
    events.send(100)
    (folder / "CURRENT").write_text(other + "\n")
    freshet(settings, folder, "activate", other)
    events.send(100)
    assert freshet(settings, folder, "rollback")["bundle"] == own
    events.send(100)
    all_committed(settings)
    assert newest(settings) == {own}
    assert freshet(settings, folder, "rollback")["bundle"] == other, "and forward again"
    report = run(settings, wait=30, scope=Scope(bundle=folder, swap_limit=60))
    assert (report.violations, report.exit_code) == ([], 0)


def test_a_worker_that_lacks_the_bundle_refuses_it_and_serves_on(
    settings: Settings, both: tuple[Path, str, str], workers: Any, events: Events, tmp_path: Path
) -> None:
    folder, own, other = both
    mine = tmp_path / "mine"
    shutil.copytree(folder, mine)
    shutil.rmtree(mine / other)
    workers(bundles=mine).wait_ready()
    events.send(100)
    done = freshet(settings, folder, "activate", other, code=1)
    assert (done["switched"], len(done["refused"])) == (0, 1)
    assert "not a bundle folder" in done["refused"][0]["reason"]
    events.send(100)
    all_committed(settings)
    time.sleep(LIMIT + 11)  # the limit, and what clocks may differ by
    events.send(100)
    all_committed(settings)
    assert newest(settings) == {own}
    report = run(settings, wait=30, scope=Scope(swap_limit=LIMIT))
    assert (report.violations, report.exit_code) == ([], 0)


@pytest.mark.faults
@pytest.mark.parametrize(
    ("mutant", "kind"),
    [
        ("unmutated", ""), ("names_another_bundle", "slate-bundle"), ("switches_silently", "slate-bundle"),
        ("switches_late", "slate-bundle"), ("never_switches", "bundle-stale"),
    ],
)  # fmt: skip
def test_what_is_wrong_about_a_swap_is_red_by_its_name(
    settings: Settings, both: tuple[Path, str, str], workers: Any, events: Events, mutant: str, kind: str
) -> None:
    worker = workers(mutant=mutant)
    worker.wait_ready()
    events.send(200)
    all_committed(settings)
    activate(settings, both[2])
    if mutant == "never_switches":
        time.sleep(LIMIT + 11)
        events.send(100)
    else:
        until(partial(_serves, settings, events, both[2]), 60, "slates of the other bundle")
        events.send(100)
    all_committed(settings)
    report = run(settings, wait=30, scope=Scope(swap_limit=LIMIT))
    assert set(report.kinds) == ({kind} if kind else set()), report.violations[:5]


def _serves(settings: Settings, events: Events, bundle: str) -> bool:
    events.send(20)
    return any(slate["bundle"] == bundle for slate in slates(settings))
