"""Faults 50 to 55, five seeds each: a cluster of three nodes. `make chaos`."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from tests.chaos import cluster
from tests.failing_cluster import FailingCluster

pytestmark = pytest.mark.chaos
SEEDS = range(5)
Cluster = Callable[..., FailingCluster]


@pytest.mark.parametrize("seed", SEEDS)
def test_a_leader_killed(failing_cluster: Cluster, bundles: Path, tmp_path: Path, seed: int) -> None:
    cluster.a_leader_killed(failing_cluster(), bundles, tmp_path, seed)


@pytest.mark.parametrize("seed", SEEDS)
def test_two_of_three_down(failing_cluster: Cluster, bundles: Path, tmp_path: Path, seed: int) -> None:
    cluster.two_of_three_down(failing_cluster(), bundles, tmp_path, seed)


@pytest.mark.parametrize("seed", SEEDS)
def test_the_controller_moved(failing_cluster: Cluster, bundles: Path, tmp_path: Path, seed: int) -> None:
    cluster.the_controller_moved(failing_cluster(), bundles, tmp_path, seed)


@pytest.mark.parametrize("seed", SEEDS)
def test_rolling_restart(failing_cluster: Cluster, bundles: Path, tmp_path: Path, seed: int) -> None:
    cluster.rolling_restart(failing_cluster(), bundles, tmp_path, seed)


@pytest.mark.parametrize("seed", SEEDS)
def test_one_bad_line(failing_cluster: Cluster, bundles: Path, tmp_path: Path, seed: int) -> None:
    cluster.one_bad_line(failing_cluster(behind=1 + seed % 3, seed=seed), bundles, tmp_path, seed)


@pytest.mark.parametrize("seed", SEEDS)
@pytest.mark.parametrize("running", [False, True])
@pytest.mark.parametrize("what", ["source", "changelog"])
def test_unclean_election(
    failing_cluster: Cluster, bundles: Path, tmp_path: Path, seed: int, running: bool, what: str
) -> None:
    cluster.unclean_election(failing_cluster(), bundles, tmp_path, seed, what=what, running=running)
