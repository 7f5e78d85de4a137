"""Faults 24, 58 and 59, five seeds each: bundles exchanged under load, a tally and a capture killed. `make chaos`."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.activations import ThreeBundles
from tests.chaos import learning
from tests.settings import LONG_SESSION, SETTINGS, World

pytestmark = [pytest.mark.chaos, pytest.mark.timeout(900)]
SEEDS = range(5)


@pytest.mark.parametrize("seed", SEEDS)
def test_hot_swaps(world: World, three_bundles: ThreeBundles, tmp_path: Path, seed: int) -> None:
    folder, own, other, _ = three_bundles
    learning.hot_swaps(world(**LONG_SESSION), folder, (own, other), tmp_path, seed, rounds=4)


@pytest.mark.parametrize("seed", SEEDS)
def test_tally_kills(world: World, bundles: Path, tmp_path: Path, seed: int) -> None:
    learning.tally_kills(world(**SETTINGS), bundles, tmp_path, seed, rounds=5)


@pytest.mark.parametrize("seed", SEEDS)
def test_capture_kills(world: World, bundles: Path, tmp_path: Path, seed: int) -> None:
    learning.capture_kills(world(**SETTINGS), bundles, tmp_path, seed, rounds=8)
