"""Short forms of tests/chaos/test_models.py."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from stream.settings import Settings
from tests.chaos import models
from tests.settings import QUICK

pytestmark = pytest.mark.integration


def test_damaged_bundle(world: Callable[..., Settings], bundles: Path, tmp_path: Path) -> None:
    models.damaged_bundle(world(**QUICK), bundles, tmp_path, seed=0, kinds=2)


def test_stuck_models(world: Callable[..., Settings], bundles: Path, tmp_path: Path) -> None:
    models.stuck_model(world(**QUICK), bundles, tmp_path, seed=0)
