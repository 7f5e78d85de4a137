"""Faults 18 to 22, 39, 46 and 56, five seeds each: poison, nothing but poison, oversize, strangers, duplicates, ids that are
places, forgeries, records on wrong partitions. `make chaos`."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.chaos import forgeries, identities
from tests.chaos import input as inputs
from tests.settings import SETTINGS, World

pytestmark = pytest.mark.chaos
SEEDS = range(5)


@pytest.mark.parametrize("seed", SEEDS)
def test_poison(world: World, bundles: Path, tmp_path: Path, seed: int) -> None:
    inputs.poison(world(**SETTINGS), bundles, tmp_path, seed, rounds=4, workers=2, kill=True, rate=300)


@pytest.mark.parametrize("seed", SEEDS)
def test_only_poison(world: World, bundles: Path, tmp_path: Path, seed: int) -> None:
    inputs.only_poison(world(**SETTINGS), bundles, tmp_path, seed, seconds=60, rate=300, workers=2, kill=bool(seed % 2))


@pytest.mark.parametrize("seed", SEEDS)
def test_oversize(world: World, bundles: Path, tmp_path: Path, seed: int) -> None:
    inputs.oversize(world(**SETTINGS), bundles, tmp_path, seed, workers=2, rate=300)


@pytest.mark.parametrize("seed", SEEDS)
def test_strangers(world: World, bundles: Path, tmp_path: Path, seed: int) -> None:
    inputs.strangers(world(**SETTINGS), bundles, tmp_path, seed, seconds=25, workers=2, rate=200)


@pytest.mark.parametrize("seed", SEEDS)
def test_repeats(world: World, bundles: Path, tmp_path: Path, seed: int) -> None:
    inputs.repeats(world(**SETTINGS), bundles, tmp_path, seed, users=20, workers=2, kill=True, rate=300)


@pytest.mark.parametrize("seed", SEEDS)
def test_places(world: World, bundles: Path, tmp_path: Path, seed: int) -> None:
    identities.places(world(**SETTINGS), bundles, tmp_path, seed, users=40, workers=2, kill=True, rate=100)


@pytest.mark.parametrize("seed", SEEDS)
def test_forgeries(world: World, bundles: Path, tmp_path: Path, seed: int) -> None:
    forgeries.forgeries(world(**SETTINGS), bundles, tmp_path, seed, rounds=2, workers=2, near=True, rate=100)


@pytest.mark.parametrize("seed", SEEDS)
def test_misplaced(world: World, bundles: Path, tmp_path: Path, seed: int) -> None:
    inputs.misplaced(world(**SETTINGS), bundles, tmp_path, seed, kills=4, workers=2, rate=200)
