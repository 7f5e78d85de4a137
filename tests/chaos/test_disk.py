"""Faults 12 to 15, five seeds each: a full disk, damaged and missing files, a changelog cut off. `make chaos`."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from stream.settings import Settings
from tests.chaos import disk
from tests.settings import SETTINGS

pytestmark = [pytest.mark.chaos, pytest.mark.timeout(300)]
SEEDS = range(5)


@pytest.mark.parametrize("seed", SEEDS)
def test_full_disk(world: Callable[..., Settings], bundles: Path, tmp_path: Path, seed: int) -> None:
    disk.full_disk(world(**SETTINGS), bundles, tmp_path, seed)


@pytest.mark.parametrize("seed", SEEDS)
def test_bit_flip(world: Callable[..., Settings], bundles: Path, tmp_path: Path, seed: int) -> None:
    disk.bit_flip(world(**SETTINGS), bundles, tmp_path, seed)


@pytest.mark.parametrize("seed", SEEDS)
def test_lost_files(world: Callable[..., Settings], bundles: Path, tmp_path: Path, seed: int) -> None:
    disk.lost_files(world(**SETTINGS), bundles, tmp_path, seed)


@pytest.mark.parametrize("seed", SEEDS)
def test_changelog_cut_off(world: Callable[..., Settings], bundles: Path, tmp_path: Path, seed: int) -> None:
    disk.cut_changelog(world(**SETTINGS), bundles, tmp_path, seed)
