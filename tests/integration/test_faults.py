"""Short seeded forms of the fault suite (the long ones: `make chaos`): nothing lost, nothing twice, everything shown."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from stream.settings import Settings
from tests import faults
from tests.faults import Plan

pytestmark = pytest.mark.integration
QUICK = {"partitions": 2, "session_timeout": 3.0, "heartbeat_interval": 0.5, "inference_timeout": 1.5}


def test_killed_five_times_twice_with_its_data_deleted(
    world: Callable[..., Settings], bundles: Path, tmp_path: Path
) -> None:
    report = faults.kills(world(**QUICK), bundles, tmp_path, Plan(seed=1), count=5, wipes=2)
    assert report.input > 500


def test_a_second_worker_comes_and_goes(world: Callable[..., Settings], bundles: Path, tmp_path: Path) -> None:
    faults.coming_and_going(world(**QUICK), bundles, tmp_path, Plan(seed=2), rounds=2)


def test_a_worker_that_was_stopped_too_long_exits(
    world: Callable[..., Settings], bundles: Path, tmp_path: Path
) -> None:
    faults.zombie(world(**QUICK), bundles, tmp_path, Plan(seed=3))


def test_a_late_write_of_a_worker_without_a_lease_is_fenced(
    world: Callable[..., Settings], bundles: Path, tmp_path: Path
) -> None:
    faults.late_writer(world(**QUICK), bundles, tmp_path, Plan(seed=4))
