"""Faults 28 and 29, five seeds each: distinct values without end, hostile text in every field. `make chaos`."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from stream.settings import Settings
from tests.chaos import cardinality
from tests.settings import QUICK, SHORT_SESSION

pytestmark = [pytest.mark.chaos, pytest.mark.timeout(600)]
SEEDS = range(5)


@pytest.mark.parametrize("seed", SEEDS)
def test_distinct_values(world: Callable[..., Settings], bundles: Path, tmp_path: Path, seed: int) -> None:
    cardinality.flood(world(partitions=2), bundles, tmp_path, seed, count=100_000)


@pytest.mark.parametrize("seed", SEEDS)
def test_hostile_text(world: Callable[..., Settings], bundles: Path, tmp_path: Path, seed: int) -> None:
    cardinality.hostile(world(partitions=2), bundles, tmp_path, seed, rounds=50)


@pytest.mark.parametrize("seed", SEEDS)
def test_last_words(world: Callable[..., Settings], bundles: Path, tmp_path: Path, seed: int) -> None:
    settings = world(**QUICK | SHORT_SESSION)
    cardinality.endings(settings, bundles, tmp_path, seed)
