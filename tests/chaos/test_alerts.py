"""Each alert fired by its fault, then ten quiet minutes in which none fires. `make chaos`."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import pytest

from tests.chaos import alerts

pytestmark = [pytest.mark.chaos, pytest.mark.timeout(600)]
CALM = float(os.environ.get("CALM_SECONDS") or 600)


@pytest.mark.parametrize("name", [name for name in alerts.SCENARIOS if name != "short"])
def test_alerts_fire(kafka: Any, bundles: Path, tmp_path: Path, name: str) -> None:
    alerts.play(name, kafka, bundles, tmp_path)


@pytest.mark.timeout(CALM + 300)
def test_calm(kafka: Any, bundles: Path, tmp_path: Path) -> None:
    alerts.calm(kafka, bundles, tmp_path, CALM)
