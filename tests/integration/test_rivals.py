"""The verdict on rivals on a stock Faust agent: it sees what is there, and nothing wrong where nobody was killed.

Whether Faust commits the source's end again after a kill is its own affair (some seeds never do, docs/reliability.md), so what
the test asserts after kills holds either way.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from stream.settings import Settings
from tests.chaos import rivals
from tests.chaos.rivals import Plan
from tests.rivals import stock
from tests.settings import QUICK

pytestmark = [pytest.mark.integration, pytest.mark.faults]


def test_without_kills_nothing_is_lost_or_double(world: Callable[..., Settings], tmp_path: Path) -> None:
    settings = world(**QUICK)
    plan = Plan(seed=1, kills=0, wipes=0, gap=(3, 3), users=20)
    found = rivals.run(settings, rivals.faust(settings, tmp_path, "at-least-once", stock.DEFAULT_COMMIT_INTERVAL), plan)
    assert found.events > 500
    assert (found.kills, found.exits, found.lost, found.double, found.unshown, found.users_wrong) == (0, 0, 0, 0, 0, 0)


def test_kills_are_survived_and_judged(world: Callable[..., Settings], tmp_path: Path) -> None:
    settings = world(**QUICK)
    plan = Plan(seed=2, kills=2, wipes=1, gap=(3, 5), users=20, catch_up=25)
    found = rivals.run(settings, rivals.faust(settings, tmp_path, "at-least-once", stock.DEFAULT_COMMIT_INTERVAL), plan)
    assert (found.kills, found.wipes, found.users) == (2, 1, 20)
    assert found.lost <= found.events
    assert found.users_wrong <= found.users
    assert bool(found.lost or found.double) == bool(found.users_wrong)
