"""Short forms of tests/chaos/test_broker_faults.py: one seed of a stopped broker, a topic recreated, partitions added live."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from stream.settings import Settings
from tests.chaos import broker, source_topics
from tests.failing_kafka import FailingKafka
from tests.settings import SETTINGS

pytestmark = pytest.mark.integration


def test_the_broker_stands_still_for_longer_than_the_lease(
    failing: Callable[..., FailingKafka], bundles: Path, tmp_path: Path
) -> None:
    broker.stands_still(failing(), bundles, tmp_path, 1, 9.0)


def test_a_source_is_recreated_under_a_running_worker(
    world: Callable[..., Settings], bundles: Path, tmp_path: Path
) -> None:
    source_topics.recreated(world(**SETTINGS), bundles, tmp_path, 1, running=True)


def test_every_topic_gets_more_partitions(world: Callable[..., Settings], bundles: Path, tmp_path: Path) -> None:
    source_topics.partitions_added(world(**SETTINGS), bundles, tmp_path, 1, to_all=True)
