"""Short form of tests/chaos/test_topk.py."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from stream.settings import Settings
from tests.chaos import topk

pytestmark = pytest.mark.integration
QUICK = {"partitions": 2, "session_timeout": 6.0, "heartbeat_interval": 1.0, "inference_timeout": 3.0}


def test_few_items_left(world: Callable[..., Settings], bundles: Path, tmp_path: Path) -> None:
    topk.few_left(world(**QUICK), bundles, tmp_path, seed=1)
