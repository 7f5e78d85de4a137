"""Faults 32 and 44, five seeds each: offsets of a source topic at which nothing is to be read. `make chaos`."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.chaos import gaps
from tests.settings import World

pytestmark = pytest.mark.chaos
SEEDS = range(5)


@pytest.mark.parametrize("seed", SEEDS)
def test_unread_records_deleted(world: World, bundles: Path, tmp_path: Path, seed: int) -> None:
    gaps.deleted_unread(world(**gaps.SETTINGS), bundles, tmp_path, seed)


@pytest.mark.parametrize("seed", SEEDS)
def test_source_compacted_for_a_while(world: World, bundles: Path, tmp_path: Path, seed: int) -> None:
    gaps.compacted(world(**gaps.SETTINGS), bundles, tmp_path, seed)


@pytest.mark.parametrize("seed", SEEDS)
def test_a_transactional_producer(world: World, bundles: Path, tmp_path: Path, seed: int) -> None:
    gaps.transactions(world(**gaps.SETTINGS), bundles, tmp_path, seed)
