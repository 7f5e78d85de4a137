"""Short forms of tests/chaos/test_cardinality.py."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from stream.settings import Settings
from tests.chaos import cardinality
from tests.settings import QUICK, SHORT_SESSION

pytestmark = pytest.mark.integration


def test_distinct_values(world: Callable[..., Settings], bundles: Path, tmp_path: Path) -> None:
    cardinality.flood(world(partitions=2), bundles, tmp_path, seed=0, count=5000)


def test_hostile_text(world: Callable[..., Settings], bundles: Path, tmp_path: Path) -> None:
    cardinality.hostile(world(partitions=2), bundles, tmp_path, seed=0, rounds=3)


def test_last_words(world: Callable[..., Settings], bundles: Path, tmp_path: Path) -> None:
    settings = world(**QUICK | SHORT_SESSION)
    cardinality.endings(settings, bundles, tmp_path, seed=0)
