"""Fault 43, five seeds: a GPU's TopK that pads. `make chaos`."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from stream.settings import Settings
from tests.chaos import topk

pytestmark = [pytest.mark.chaos, pytest.mark.timeout(300)]
SETTINGS = {"partitions": 4, "session_timeout": 6.0, "heartbeat_interval": 1.0, "inference_timeout": 3.0}


@pytest.mark.parametrize("seed", range(5))
def test_topk(world: Callable[..., Settings], bundles: Path, tmp_path: Path, seed: int) -> None:
    topk.few_left(world(**SETTINGS), bundles, tmp_path, seed)
