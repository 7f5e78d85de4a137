"""Fault 43, five seeds: a GPU's TopK that pads. `make chaos`."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from stream.settings import Settings
from tests.chaos import topk
from tests.settings import SETTINGS

pytestmark = [pytest.mark.chaos, pytest.mark.timeout(300)]


@pytest.mark.parametrize("seed", range(5))
def test_topk(world: Callable[..., Settings], bundles: Path, tmp_path: Path, seed: int) -> None:
    topk.few_left(world(**SETTINGS), bundles, tmp_path, seed)
