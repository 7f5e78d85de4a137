"""Short forms of tests/chaos/test_clocks.py and tests/chaos/test_fairness.py."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from stream.settings import Settings
from tests.chaos import clocks, fairness

pytestmark = pytest.mark.integration


def test_a_clock_that_is_60_days_behind(bundles: Path, tmp_path: Path) -> None:
    clocks.wrong_clock(tmp_path, bundles, 0, "60 days behind")


def test_one_users_comments(world: Callable[..., Settings], bundles: Path, tmp_path: Path) -> None:
    fairness.comments(world(partitions=4), bundles, tmp_path, 0, count=150)
