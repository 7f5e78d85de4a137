"""The long form of tests/integration/test_faults.py: more load, more faults, five seeds each. `make chaos`."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from stream.settings import Settings
from tests import faults
from tests.faults import Plan

pytestmark = pytest.mark.chaos
SEEDS = range(5)
SETTINGS = {"partitions": 4, "session_timeout": 6.0, "heartbeat_interval": 1.0, "inference_timeout": 3.0}


@pytest.mark.parametrize("seed", SEEDS)
def test_kills(world: Callable[..., Settings], bundles: Path, tmp_path: Path, seed: int) -> None:
    plan = Plan(seed=seed, rate=1000, gap=(2, 8), users=200)
    faults.kills(world(**SETTINGS), bundles, tmp_path, plan, count=5, wipes=2)


@pytest.mark.parametrize("seed", SEEDS)
def test_coming_and_going(world: Callable[..., Settings], bundles: Path, tmp_path: Path, seed: int) -> None:
    plan = Plan(seed=100 + seed, rate=1000, gap=(2, 6), users=200)
    faults.coming_and_going(world(**SETTINGS), bundles, tmp_path, plan, rounds=4)


@pytest.mark.parametrize("seed", SEEDS)
def test_zombies(world: Callable[..., Settings], bundles: Path, tmp_path: Path, seed: int) -> None:
    faults.zombie(world(**SETTINGS), bundles, tmp_path, Plan(seed=200 + seed, rate=1000, users=200))


@pytest.mark.parametrize("seed", SEEDS)
def test_late_writers(world: Callable[..., Settings], bundles: Path, tmp_path: Path, seed: int) -> None:
    faults.late_writer(world(**SETTINGS), bundles, tmp_path, Plan(seed=300 + seed, rate=400, users=200))
