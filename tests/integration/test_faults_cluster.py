"""Short form of tests/chaos/test_cluster.py: one seed of a coordinator that is killed."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from tests.chaos import cluster
from tests.failing_cluster import FailingCluster

pytestmark = pytest.mark.integration
Cluster = Callable[..., FailingCluster]


def test_the_coordinator_of_the_group_is_killed(failing_cluster: Cluster, bundles: Path, tmp_path: Path) -> None:
    cluster.a_leader_killed(failing_cluster(), bundles, tmp_path, 1, victims=("group",))
