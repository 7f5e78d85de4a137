"""Faults 1 to 7, five seeds each: killed, stopped, held up, added and taken away. `make chaos`."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.chaos import processes
from tests.points import POINTS
from tests.settings import SETTINGS, World

pytestmark = [pytest.mark.chaos, pytest.mark.timeout(600)]
SEEDS = range(5)


@pytest.mark.parametrize("seed", SEEDS)
def test_kills(world: World, bundles: Path, tmp_path: Path, seed: int) -> None:
    processes.kills(world(**SETTINGS), bundles, tmp_path, seed, count=30)


@pytest.mark.parametrize("seed", SEEDS)
def test_kills_at_named_points(world: World, bundles: Path, tmp_path: Path, seed: int) -> None:
    processes.points(world(**SETTINGS), bundles, tmp_path, seed, count=len(POINTS))


@pytest.mark.parametrize("seed", SEEDS)
def test_lost_disks(world: World, bundles: Path, tmp_path: Path, seed: int) -> None:
    processes.wipes(world(**SETTINGS), bundles, tmp_path, seed, count=5)


@pytest.mark.parametrize("seed", SEEDS)
def test_clean_stops(world: World, bundles: Path, tmp_path: Path, seed: int) -> None:
    processes.clean_stops(world(**SETTINGS), bundles, tmp_path, seed, count=5)


@pytest.mark.parametrize("seed", SEEDS)
def test_a_worker_comes_and_goes(world: World, bundles: Path, tmp_path: Path, seed: int) -> None:
    processes.comes_and_goes(world(**SETTINGS), bundles, tmp_path, seed, rounds=20)


@pytest.mark.parametrize("seed", SEEDS)
def test_rebalance_before_the_first_commit(world: World, bundles: Path, tmp_path: Path, seed: int) -> None:
    processes.before_first_commit(world(**SETTINGS), bundles, tmp_path, seed)


@pytest.mark.parametrize("seed", SEEDS)
def test_zombie(world: World, bundles: Path, tmp_path: Path, seed: int) -> None:
    processes.zombie(world(**SETTINGS), bundles, tmp_path, seed)


@pytest.mark.parametrize("seed", SEEDS)
def test_late_writer(world: World, bundles: Path, tmp_path: Path, seed: int) -> None:
    processes.late_writer(world(**SETTINGS), bundles, tmp_path, seed)
