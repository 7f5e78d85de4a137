"""Short form of tests/chaos/test_clocks.py."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.chaos import clocks

pytestmark = pytest.mark.integration


def test_a_clock_that_is_60_days_behind(bundles: Path, tmp_path: Path) -> None:
    clocks.wrong_clock(tmp_path, bundles, 0, "60 days behind")
