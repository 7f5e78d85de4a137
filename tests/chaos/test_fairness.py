"""Fault 42, five seeds: one user floods comments, or clicks behind comments. `make chaos`."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from stream.settings import Settings
from tests.chaos import fairness

pytestmark = [pytest.mark.chaos, pytest.mark.timeout(300)]
SEEDS = range(5)


@pytest.mark.parametrize("seed", SEEDS)
@pytest.mark.parametrize("scenario", [fairness.comments, fairness.clicks], ids=lambda scenario: scenario.__name__)
def test_fairness(
    world: Callable[..., Settings],
    bundles: Path,
    tmp_path: Path,
    scenario: Callable[[Settings, Path, Path, int], None],
    seed: int,
) -> None:
    scenario(world(partitions=4), bundles, tmp_path, seed)
