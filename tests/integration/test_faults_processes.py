"""Short forms of tests/chaos/test_processes.py: nothing lost, nothing twice, everything shown."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.chaos import processes
from tests.settings import QUICK, SHORT_SESSION, World

pytestmark = pytest.mark.integration
SHORT = QUICK | SHORT_SESSION


def test_killed_five_times(world: World, bundles: Path, tmp_path: Path) -> None:
    processes.kills(world(**SHORT), bundles, tmp_path, seed=1, count=5)


def test_clean_stops(world: World, bundles: Path, tmp_path: Path) -> None:
    processes.clean_stops(world(**QUICK), bundles, tmp_path, seed=2, count=2)


def test_a_worker_that_was_stopped_too_long_exits(world: World, bundles: Path, tmp_path: Path) -> None:
    processes.zombie(world(**SHORT), bundles, tmp_path, seed=3)
