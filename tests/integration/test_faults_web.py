"""Short form of tests/chaos/test_web.py."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from stream.settings import Settings
from tests.chaos import web

pytestmark = pytest.mark.integration


def test_http_abuse(world: Callable[..., Settings], bundles: Path, tmp_path: Path) -> None:
    web.abuse(world(partitions=2), bundles, tmp_path, seed=0, connections=1000, megabytes=20)
