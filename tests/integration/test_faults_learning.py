"""Short form of tests/chaos/test_learning.py: bundles exchanged under load, a tally and a capture killed."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.activations import ThreeBundles
from tests.chaos import learning
from tests.settings import LONG_SESSION, QUICK, World

pytestmark = [pytest.mark.integration, pytest.mark.faults, pytest.mark.timeout(600)]


def test_hot_swaps(world: World, three_bundles: ThreeBundles, tmp_path: Path) -> None:
    folder, own, other, _ = three_bundles
    settings = world(**LONG_SESSION | {"partitions": 2})
    learning.hot_swaps(settings, folder, (own, other), tmp_path, seed=1, rounds=1, rate=200)


def test_tally_kills(world: World, bundles: Path, tmp_path: Path) -> None:
    learning.tally_kills(world(**QUICK), bundles, tmp_path, seed=1, rounds=1)


def test_capture_kills(world: World, bundles: Path, tmp_path: Path) -> None:
    learning.capture_kills(world(**QUICK), bundles, tmp_path, seed=1, rounds=2)
