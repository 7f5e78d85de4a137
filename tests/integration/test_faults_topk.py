"""Short form of tests/chaos/test_topk.py."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from stream.settings import Settings
from tests.chaos import topk
from tests.settings import QUICK

pytestmark = pytest.mark.integration


def test_few_items_left(world: Callable[..., Settings], bundles: Path, tmp_path: Path) -> None:
    topk.few_left(world(**QUICK), bundles, tmp_path, seed=1)
