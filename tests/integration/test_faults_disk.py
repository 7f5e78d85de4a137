"""Short forms of tests/chaos/test_disk.py."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from stream.settings import Settings
from tests.chaos import disk
from tests.settings import QUICK, SETTINGS

pytestmark = pytest.mark.integration


def test_cut_and_missing_files(world: Callable[..., Settings], bundles: Path, tmp_path: Path) -> None:
    disk.lost_files(world(**SETTINGS), bundles, tmp_path, seed=0)


def test_changelog_cut_off(world: Callable[..., Settings], bundles: Path, tmp_path: Path) -> None:
    disk.cut_changelog(world(**QUICK), bundles, tmp_path, seed=0, count=600)
