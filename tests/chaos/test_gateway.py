"""Fault 57, five seeds: replicas of the API, workers and the broker killed under load of the API. `make chaos`."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests.chaos import gateway

pytestmark = [pytest.mark.chaos, pytest.mark.timeout(900)]


@pytest.mark.parametrize("seed", range(5))
def test_kills_under_load(failing: Callable[..., Any], bundles: Path, tmp_path: Path, seed: int) -> None:
    gateway.kills(failing(), bundles, tmp_path, seed, rounds=5)
