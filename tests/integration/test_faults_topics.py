"""Short forms of tests/chaos/test_topics.py: one seed of each."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from stream.settings import Settings
from tests.chaos import broker, deployments, topic_changes

pytestmark = pytest.mark.integration
World = Callable[..., Settings]
SETTINGS = broker.SETTINGS | {"session_timeout": 20.0}  # no lease is to run out here, however crowded the machine


def test_another_prefix_with_the_app_id_of_a_running_deployment(world: World, bundles: Path, tmp_path: Path) -> None:
    deployments.same_app_id(world(**SETTINGS), bundles, tmp_path, 1, running=True)


def test_a_data_folder_of_another_app_id(world: World, bundles: Path, tmp_path: Path) -> None:
    settings, other = world(**SETTINGS), world(**SETTINGS)
    deployments.folder_of_another_cluster(settings, other, bundles, tmp_path, 1, killed=True)


def test_the_items_topic_is_recreated_under_a_running_worker(world: World, bundles: Path, tmp_path: Path) -> None:
    topic_changes.recreated(world(**SETTINGS), bundles, tmp_path, 1)


def test_settings_are_changed_under_a_running_worker(world: World, bundles: Path, tmp_path: Path) -> None:
    topic_changes.settings_changed(world(**SETTINGS), bundles, tmp_path, 0)
