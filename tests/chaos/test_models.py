"""Faults 23, 25 and 26, five seeds each: damaged bundles, no GPU, slow models, bursts. `make chaos`."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from stream.inference import runtime
from stream.settings import Settings
from tests.chaos import gpu, models
from tests.settings import SETTINGS

pytestmark = [pytest.mark.chaos, pytest.mark.timeout(300)]
SEEDS = range(5)
SCENARIOS = (
    models.damaged_bundle,
    models.no_gpu,
    models.slow_models,
    models.burst,
    models.stuck_model,
    models.poison_events,
    gpu.killed,
    gpu.no_memory,
)


@pytest.mark.parametrize("seed", SEEDS)
@pytest.mark.parametrize("scenario", SCENARIOS, ids=lambda scenario: scenario.__name__)
def test_models(
    world: Callable[..., Settings],
    bundles: Path,
    tmp_path: Path,
    scenario: Callable[[Settings, Path, Path, int], None],
    seed: int,
) -> None:
    if scenario.__module__ == gpu.__name__ and runtime.resolve("auto") == "cpu":
        pytest.skip(runtime.why_no_cuda())
    scenario(world(**SETTINGS), bundles, tmp_path, seed)
