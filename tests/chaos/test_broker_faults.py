"""Faults 8 to 11, 16 and 17, five seeds each: the broker, the lines to it, and its topics. `make chaos`."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from tests.chaos import broker, source_topics
from tests.failing_kafka import FailingKafka
from tests.settings import SETTINGS, World

pytestmark = pytest.mark.chaos
SEEDS = range(5)
Failing = Callable[..., FailingKafka]


@pytest.mark.parametrize("seed", SEEDS)
def test_stopped_within_the_lease(failing: Failing, bundles: Path, tmp_path: Path, seed: int) -> None:
    broker.stands_still_briefly(failing(), bundles, tmp_path, seed, 5.0)


@pytest.mark.parametrize("seed", SEEDS)
def test_stopped_for_30_seconds(failing: Failing, bundles: Path, tmp_path: Path, seed: int) -> None:
    broker.stands_still(failing(), bundles, tmp_path, seed, 30.0)


@pytest.mark.timeout(600)
def test_stopped_for_two_minutes(failing: Failing, bundles: Path, tmp_path: Path) -> None:
    """All seeds at a time, each with a broker of its own, since they do nothing most of the time."""

    def trial(seed: int, kafka: FailingKafka) -> None:
        folder = tmp_path / f"seed-{seed}"
        folder.mkdir()
        broker.stands_still(kafka, bundles, folder, seed, 120.0, workers=1, rate=100)

    brokers = [failing() for _ in SEEDS]
    with ThreadPoolExecutor(len(SEEDS)) as pool:
        for _ in pool.map(trial, SEEDS, brokers):
            pass


@pytest.mark.parametrize("seed", SEEDS)
def test_stopped_and_all_is_wiped(failing: Failing, bundles: Path, tmp_path: Path, seed: int) -> None:
    broker.stands_still_and_all_is_wiped(failing(), bundles, tmp_path, seed)


@pytest.mark.parametrize("seed", SEEDS)
def test_bounced(failing: Failing, bundles: Path, tmp_path: Path, seed: int) -> None:
    broker.bounces(failing(), bundles, tmp_path, seed)


@pytest.mark.parametrize("seed", SEEDS)
def test_not_there_at_the_start(failing: Failing, bundles: Path, tmp_path: Path, seed: int) -> None:
    broker.not_there_at_the_start(failing(), bundles, tmp_path, seed)


@pytest.mark.parametrize("seed", SEEDS)
def test_bad_lines(failing: Failing, bundles: Path, tmp_path: Path, seed: int) -> None:
    broker.bad_lines(failing(lines=2, seed=seed), bundles, tmp_path, seed)


@pytest.mark.parametrize("seed", SEEDS)
@pytest.mark.parametrize("running", [False, True])
def test_a_source_recreated(world: World, bundles: Path, tmp_path: Path, seed: int, running: bool) -> None:
    source_topics.recreated(world(**SETTINGS), bundles, tmp_path, seed, running=running)


@pytest.mark.parametrize("seed", SEEDS)
def test_source_records_expired(world: World, bundles: Path, tmp_path: Path, seed: int) -> None:
    source_topics.expired(world(**SETTINGS), bundles, tmp_path, seed)


@pytest.mark.parametrize("seed", SEEDS)
def test_a_topic_missing_or_unlike_the_others(world: World, bundles: Path, tmp_path: Path, seed: int) -> None:
    source_topics.missing_or_unlike(world(**SETTINGS), bundles, tmp_path, seed)


@pytest.mark.parametrize("seed", SEEDS)
@pytest.mark.parametrize("to_all", [False, True])
def test_partitions_added_live(world: World, bundles: Path, tmp_path: Path, seed: int, to_all: bool) -> None:
    source_topics.partitions_added(world(**SETTINGS), bundles, tmp_path, seed, to_all=to_all)
