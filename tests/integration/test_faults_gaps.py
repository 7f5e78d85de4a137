"""Short forms of tests/chaos/test_gaps.py: one seed of records deleted under a running worker, one of transactions."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.chaos import gaps
from tests.settings import World

pytestmark = pytest.mark.integration


def test_unread_records_are_deleted_under_a_running_worker(world: World, bundles: Path, tmp_path: Path) -> None:
    gaps.deleted_unread(world(**gaps.SETTINGS), bundles, tmp_path, 0)


def test_a_transactional_producer(world: World, bundles: Path, tmp_path: Path) -> None:
    gaps.transactions(world(**gaps.SETTINGS), bundles, tmp_path, 0)
