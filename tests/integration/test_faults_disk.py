"""Short forms of tests/chaos/test_disk.py."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from stream.settings import Settings
from tests.chaos import disk

pytestmark = pytest.mark.integration
QUICK = {"session_timeout": 6.0, "heartbeat_interval": 1.0, "inference_timeout": 3.0}


def test_cut_and_missing_files(world: Callable[..., Settings], bundles: Path, tmp_path: Path) -> None:
    disk.lost_files(world(partitions=4, **QUICK), bundles, tmp_path, seed=0)


def test_changelog_cut_off(world: Callable[..., Settings], bundles: Path, tmp_path: Path) -> None:
    disk.cut_changelog(world(partitions=2, **QUICK), bundles, tmp_path, seed=0, count=600)
