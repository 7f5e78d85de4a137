"""Short forms of tests/chaos/test_life.py."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.chaos import life
from tests.settings import QUICK, World

pytestmark = pytest.mark.integration


def test_nothing_stands(world: World, bundles: Path, tmp_path: Path) -> None:
    life.nothing_stands(world(**QUICK, **life.STALL), bundles, tmp_path, 0, ["agent", "fetch_stands"])


def test_codecs(world: World, bundles: Path, tmp_path: Path) -> None:
    life.codecs(world(**QUICK), bundles, tmp_path, 1, ["zstd", "lz4"])


def test_stops_during_start(world: World, bundles: Path, tmp_path: Path) -> None:
    life.stops_during_start(world(**QUICK), bundles, tmp_path, 2, rounds=2, new=300)


def test_last_words(world: World, bundles: Path, tmp_path: Path) -> None:
    life.last_words(world(**QUICK), bundles, tmp_path, 3)
