"""Short form of tests/chaos/test_gateway.py: no answer contradicts min_offset, no acknowledged event is lost."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests.chaos import gateway

pytestmark = [pytest.mark.integration, pytest.mark.faults, pytest.mark.timeout(600)]


def test_kills_under_load(failing: Callable[..., Any], bundles: Path, tmp_path: Path) -> None:
    gateway.kills(failing(), bundles, tmp_path, seed=1, rounds=1)
