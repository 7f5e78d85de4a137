"""Faults 33 to 35 and 41, five seeds each: deployments that meet, and topics that change under a worker. `make chaos`."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from tests.chaos import broker, deployments, topic_changes
from tests.failing_kafka import FailingKafka
from tests.settings import LONG_SESSION, World

pytestmark = pytest.mark.chaos
SEEDS = range(5)
Failing = Callable[..., FailingKafka]


@pytest.mark.parametrize("seed", SEEDS)
@pytest.mark.parametrize("running", [False, True])
def test_another_prefix_with_the_same_app_id(
    world: World, bundles: Path, tmp_path: Path, seed: int, running: bool
) -> None:
    deployments.same_app_id(world(**LONG_SESSION), bundles, tmp_path, seed, running=running)


@pytest.mark.parametrize("seed", SEEDS)
def test_a_data_folder_of_another_cluster(
    world: World, failing: Failing, bundles: Path, tmp_path: Path, seed: int
) -> None:
    settings = world(**LONG_SESSION)
    other = broker.settings_for(failing(), **LONG_SESSION, prefix=settings.prefix, app_id=settings.app_id)
    deployments.folder_of_another_cluster(settings, other, bundles, tmp_path, seed, killed=seed % 2 == 1)


@pytest.mark.parametrize("seed", SEEDS)
def test_a_data_folder_of_another_app_id(world: World, bundles: Path, tmp_path: Path, seed: int) -> None:
    settings, other = world(**LONG_SESSION), world(**LONG_SESSION)
    deployments.folder_of_another_cluster(settings, other, bundles, tmp_path, seed, killed=seed % 2 == 1)


@pytest.mark.parametrize("seed", SEEDS)
def test_a_topic_of_the_worker_recreated(world: World, bundles: Path, tmp_path: Path, seed: int) -> None:
    topic_changes.recreated(world(**LONG_SESSION), bundles, tmp_path, seed)


@pytest.mark.parametrize("seed", SEEDS)
def test_a_topic_of_the_worker_deleted(world: World, bundles: Path, tmp_path: Path, seed: int) -> None:
    topic_changes.deleted(world(**LONG_SESSION), bundles, tmp_path, seed)


@pytest.mark.parametrize("seed", SEEDS)
def test_settings_of_topics_changed(world: World, bundles: Path, tmp_path: Path, seed: int) -> None:
    topic_changes.settings_changed(world(**LONG_SESSION), bundles, tmp_path, seed)
