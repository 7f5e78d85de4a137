"""Workers that would be alive and do nothing, codecs, stops during the start, last words. `make chaos`."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests.chaos import life
from tests.settings import SETTINGS, World, with_topics

pytestmark = [pytest.mark.chaos, pytest.mark.timeout(900)]
SEEDS = range(5)


@pytest.mark.parametrize("seed", SEEDS)
def test_nothing_stands(world: World, bundles: Path, tmp_path: Path, seed: int) -> None:
    life.nothing_stands(world(**SETTINGS, **life.STALL), bundles, tmp_path, seed, list(life.ENDS)[seed::5] or [])


@pytest.mark.parametrize("seed", SEEDS)
def test_codecs(world: World, bundles: Path, tmp_path: Path, seed: int) -> None:
    life.codecs(world(**SETTINGS), bundles, tmp_path, seed, ("gzip", "snappy", "lz4", "zstd"))


@pytest.mark.parametrize("seed", SEEDS)
def test_stops_during_start(world: World, bundles: Path, tmp_path: Path, seed: int) -> None:
    life.stops_during_start(world(**SETTINGS), bundles, tmp_path, seed)


@pytest.mark.parametrize("seed", SEEDS)
def test_last_words(failing: Callable[..., Any], bundles: Path, tmp_path: Path, seed: int) -> None:
    kafka = failing()
    settings = with_topics(kafka.bootstrap, **SETTINGS)
    life.last_words(settings, bundles, tmp_path, seed, kafka)
