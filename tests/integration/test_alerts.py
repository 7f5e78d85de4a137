"""Short form of tests/chaos/test_alerts.py: four alerts of workers and all of gateways fired by their faults, none by a silence
behind transactions."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from tests.chaos import alerts

pytestmark = [pytest.mark.integration, pytest.mark.faults]


def test_alerts_fire(kafka: Any, bundles: Path, tmp_path: Path) -> None:
    alerts.play("short", kafka, bundles, tmp_path)


def test_the_gateways_alerts_fire(kafka: Any, bundles: Path, tmp_path: Path) -> None:
    alerts.play("gateway", kafka, bundles, tmp_path)


def test_an_idle_topic_that_ends_in_a_transactions_marker(kafka: Any, bundles: Path, tmp_path: Path) -> None:
    alerts.play("idle behind a transaction", kafka, bundles, tmp_path)
