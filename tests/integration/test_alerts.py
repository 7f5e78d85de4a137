"""Short form of tests/chaos/test_alerts.py: three alerts fired by their faults."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from tests.chaos import alerts

pytestmark = [pytest.mark.integration, pytest.mark.faults]


def test_alerts_fire(kafka: Any, bundles: Path, tmp_path: Path) -> None:
    alerts.play("short", kafka, bundles, tmp_path)
