"""Short forms of tests/chaos/test_input.py."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from pathlib import Path

import confluent_kafka as confluent
import pytest
from aiokafka.partitioner import murmur2 as kafka_hash
from kafka import KafkaAdminClient, KafkaConsumer, TopicPartition
from kafka.structs import OffsetAndMetadata

from deploy.clients.arguments import client_arguments
from deploy.verify import run
from stream.core.decoder import EventDecoder
from stream.settings import Settings
from tests.chaos import forgeries, identities
from tests.chaos import input as inputs
from tests.settings import QUICK
from tests.worker_process import Events, WorkerProcess, all_committed, slates, until

pytestmark = pytest.mark.integration


def test_only_poison(world: Callable[..., Settings], bundles: Path, tmp_path: Path) -> None:
    inputs.only_poison(world(**QUICK), bundles, tmp_path, seed=0, seconds=5, rate=300, workers=1, kill=False)


def test_oversize(world: Callable[..., Settings], bundles: Path, tmp_path: Path) -> None:
    inputs.oversize(world(**QUICK), bundles, tmp_path, seed=0, workers=1, rate=100)


def test_repeats(world: Callable[..., Settings], bundles: Path, tmp_path: Path) -> None:
    inputs.repeats(world(**QUICK), bundles, tmp_path, seed=0, users=4, workers=1, kill=False, rate=100)


def test_places(world: Callable[..., Settings], bundles: Path, tmp_path: Path) -> None:
    identities.places(world(**QUICK), bundles, tmp_path, seed=0, users=8, workers=1, kill=False, rate=50)


def test_forgeries(world: Callable[..., Settings], bundles: Path, tmp_path: Path) -> None:
    forgeries.forgeries(world(**QUICK), bundles, tmp_path, seed=0, rounds=1, workers=1, near=False, rate=100)


def test_misplaced(world: Callable[..., Settings], bundles: Path, tmp_path: Path) -> None:
    inputs.misplaced(world(**QUICK), bundles, tmp_path, seed=0, kills=1, workers=1, rate=50)


def placed_on(partition: int, key: bytes) -> int:
    """Wherever the key belongs."""
    return partition


def verified(settings: Settings, worker: WorkerProcess) -> bool:
    """All is committed, and `freshet verify` finds nothing wrong."""
    all_committed(settings, worker)
    return run(settings).exit_code == 0


@pytest.mark.parametrize("gone", [True, False])
def test_misplaced_records_that_are_read_again(
    world: Callable[..., Settings], bundles: Path, tmp_path: Path, gone: bool
) -> None:
    """The group's offsets are deleted, or set back to the log's start, and more than 64 events have come since."""
    settings = world(**QUICK)
    user = "ada"
    home = EventDecoder(kafka_hash, 2, settings.rating_scale, settings.sources).partition(user.encode())
    events = Events(settings, seed=1)
    events.send_items()
    worker = WorkerProcess(settings, tmp_path, bundles=bundles).start().wait_ready()
    try:
        for partition, count in ((1 - home, 3), (home, 100)):
            events.partition = partial(placed_on, partition)
            for _ in range(count):
                events.put(*events.one(user=user, kind="click"))
            events.producer.flush()
            all_committed(settings, worker)
        until(partial(verified, settings, worker), 60, worker.tail)
        assert max(slate["seq"] for slate in slates(settings, user)) == 103
        assert worker.terminate() == 0
        if gone:
            admin = KafkaAdminClient(**client_arguments(settings))
            admin.delete_groups([settings.app_id])
            admin.close()
        else:
            consumer = KafkaConsumer(group_id=settings.app_id, enable_auto_commit=False, **client_arguments(settings))
            tps = [TopicPartition(topic, partition) for topic in settings.sources for partition in range(2)]
            consumer.assign(tps)
            consumer.commit({tp: OffsetAndMetadata(0, "", -1) for tp in tps})
            consumer.close()
        worker.start().wait_ready()
        events.put(*events.one(user=user, kind="click"))
        events.producer.flush()
        all_committed(settings, worker)
        report = run(settings)
        assert report.exit_code == 0, report.violations
        assert (report.input, report.applied, report.forwarded) == (107, 104, 3)
        assert max(slate["seq"] for slate in slates(settings, user)) == 104
        assert worker.metric("freshet_events_total", behaviour="click", outcome="redelivered") >= 106
        assert worker.metric("freshet_events_total", behaviour="click", outcome="forwarded") == 0
        assert worker.terminate() == 0
    finally:
        events.close()
        worker.close()


def test_an_open_transaction_of_somebody_else_hides_slates(
    world: Callable[..., Settings], bundles: Path, tmp_path: Path
) -> None:
    """What lies behind it on `recommendations` is there: nothing is uncovered. Once it has ended, all is judged."""
    settings = world(**QUICK)
    events = Events(settings, seed=1)
    events.send_items()
    worker = WorkerProcess(settings, tmp_path, bundles=bundles).start().wait_ready()
    arguments = {"bootstrap.servers": settings.brokers, "transactional.id": f"{settings.app_id}-other"}
    other = confluent.Producer(arguments | {"transaction.timeout.ms": 120_000})
    try:
        other.init_transactions(30)
        other.begin_transaction()
        other.produce(settings.recommendations_topic, key=b"nobody", value=b"x", partition=0)
        other.flush(30)
        events.send(60)
        all_committed(settings, worker)
        report = run(settings)
        assert report.violations == []
        assert (report.exit_code, report.applied) == (3, 60)
        assert report.unshown > 0
        assert report.undecided > 1
        (note,) = report.notes
        assert (note.topic, note.partition) == (settings.recommendations_topic, 0)
        assert f"open transaction of another producer from offset {note.offset}" in note.message
        other.abort_transaction(30)
        until(lambda: run(settings).exit_code == 0, 30, worker.tail)
    finally:
        events.close()
        worker.close()
