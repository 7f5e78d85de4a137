"""Short forms of tests/chaos/test_processes.py: nothing lost, nothing twice, everything shown."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from stream.settings import Settings
from tests.chaos import processes

pytestmark = pytest.mark.integration
QUICK = {"partitions": 2, "session_timeout": 3.0, "heartbeat_interval": 0.5, "inference_timeout": 1.5}
CALM = {"partitions": 2, "session_timeout": 6.0, "heartbeat_interval": 1.0, "inference_timeout": 3.0}
"""Where a worker may not end with 75: a busy machine stands still for longer than the lease of QUICK."""
World = Callable[..., Settings]


def test_killed_five_times(world: World, bundles: Path, tmp_path: Path) -> None:
    processes.kills(world(**QUICK), bundles, tmp_path, seed=1, count=5)


def test_clean_stops(world: World, bundles: Path, tmp_path: Path) -> None:
    processes.clean_stops(world(**CALM), bundles, tmp_path, seed=2, count=2)


def test_a_worker_that_was_stopped_too_long_exits(world: World, bundles: Path, tmp_path: Path) -> None:
    processes.zombie(world(**QUICK), bundles, tmp_path, seed=3)
