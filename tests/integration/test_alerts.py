"""Short form of tests/chaos/test_alerts.py: three alerts fired by their faults."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from stream.settings import Settings
from tests.chaos import alerts

pytestmark = pytest.mark.integration


def test_alerts_fire(kafka: Any, world: Callable[..., Settings], bundles: Path, tmp_path: Path) -> None:
    alerts.play("short", kafka, world, bundles, tmp_path)
