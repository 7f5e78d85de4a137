"""Fault 27, five seeds: slow clients, 100 MB bodies, odd verbs and paths, 10,000 connections. `make chaos`."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from stream.settings import Settings
from tests.chaos import web

pytestmark = pytest.mark.chaos


@pytest.mark.parametrize("seed", range(5))
def test_http_abuse(world: Callable[..., Settings], bundles: Path, tmp_path: Path, seed: int) -> None:
    web.abuse(world(partitions=2), bundles, tmp_path, seed, connections=10_000, megabytes=100)
