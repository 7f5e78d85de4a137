"""Fault 40, five seeds: clocks that are wrong or jump, and records of long ago. `make chaos`."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.chaos import clocks

pytestmark = [pytest.mark.chaos, pytest.mark.timeout(300)]
SEEDS = range(5)


@pytest.mark.parametrize("seed", SEEDS)
@pytest.mark.parametrize("name", clocks.WRONG)
def test_wrong_clock(bundles: Path, tmp_path: Path, name: str, seed: int) -> None:
    clocks.wrong_clock(tmp_path, bundles, seed, name)


@pytest.mark.parametrize("seed", SEEDS)
def test_jumping_clocks(bundles: Path, tmp_path: Path, seed: int) -> None:
    clocks.jumping_clocks(tmp_path, bundles, seed)


@pytest.mark.parametrize("seed", SEEDS)
def test_old_records(bundles: Path, tmp_path: Path, seed: int) -> None:
    clocks.old_records(tmp_path, bundles, seed)
