"""Short forms of tests/chaos/test_topics.py: one seed of each."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.chaos import deployments, topic_changes
from tests.settings import LONG_SESSION, World

pytestmark = pytest.mark.integration


def test_another_prefix_with_the_app_id_of_a_running_deployment(world: World, bundles: Path, tmp_path: Path) -> None:
    deployments.same_app_id(world(**LONG_SESSION), bundles, tmp_path, 1, running=True)


def test_a_data_folder_of_another_app_id(world: World, bundles: Path, tmp_path: Path) -> None:
    settings, other = world(**LONG_SESSION), world(**LONG_SESSION)
    deployments.folder_of_another_cluster(settings, other, bundles, tmp_path, 1, killed=True)


def test_the_items_topic_is_recreated_under_a_running_worker(world: World, bundles: Path, tmp_path: Path) -> None:
    topic_changes.recreated(world(**LONG_SESSION), bundles, tmp_path, 1)


def test_settings_are_changed_under_a_running_worker(world: World, bundles: Path, tmp_path: Path) -> None:
    topic_changes.settings_changed(world(**LONG_SESSION), bundles, tmp_path, 0)
