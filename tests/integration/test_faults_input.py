"""Short forms of tests/chaos/test_input.py."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from stream.settings import Settings
from tests.chaos import forgeries, identities
from tests.chaos import input as inputs

pytestmark = pytest.mark.integration
QUICK = {"partitions": 2, "session_timeout": 6.0, "heartbeat_interval": 1.0, "inference_timeout": 3.0}


def test_only_poison(world: Callable[..., Settings], bundles: Path, tmp_path: Path) -> None:
    inputs.only_poison(world(**QUICK), bundles, tmp_path, seed=0, seconds=5, rate=300, workers=1, kill=False)


def test_oversize(world: Callable[..., Settings], bundles: Path, tmp_path: Path) -> None:
    inputs.oversize(world(**QUICK), bundles, tmp_path, seed=0, workers=1, rate=100)


def test_repeats(world: Callable[..., Settings], bundles: Path, tmp_path: Path) -> None:
    inputs.repeats(world(**QUICK), bundles, tmp_path, seed=0, users=4, workers=1, kill=False, rate=100)


def test_places(world: Callable[..., Settings], bundles: Path, tmp_path: Path) -> None:
    identities.places(world(**QUICK), bundles, tmp_path, seed=0, users=8, workers=1, kill=False, rate=50)


def test_forgeries(world: Callable[..., Settings], bundles: Path, tmp_path: Path) -> None:
    forgeries.forgeries(world(**QUICK), bundles, tmp_path, seed=0, rounds=1, workers=1, near=False, rate=100)


def test_misplaced(world: Callable[..., Settings], bundles: Path, tmp_path: Path) -> None:
    inputs.misplaced(world(**QUICK), bundles, tmp_path, seed=0, kills=1, workers=1, rate=50)
