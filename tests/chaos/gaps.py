"""Faults 32 and 44: offsets of a source topic at which nothing is to be read. Deleted records are a loss, and named; markers of
transactions and what was aborted are none, and no lag either."""

from __future__ import annotations

import json
import random
import signal
import time
from collections import Counter
from pathlib import Path

from confluent_kafka import Producer
from kafka.admin import ConfigResource, ConfigResourceType
from kafka.structs import TopicPartition

from deploy.clients.admin import admin
from deploy.clients.log_reader import KafkaLog
from deploy.verify import run
from stream.settings import Settings
from tests.chaos.outcomes import record
from tests.chaos.source_topics import KINDS
from tests.chaos.steps import loses_only, outcome, says, send_kind
from tests.worker_process import Events, WorkerProcess, all_committed, read_all, until

SETTINGS = {"partitions": 2, "session_timeout": 40.0, "heartbeat_interval": 1.0}
"""The lease, 30 s, is longer than the worker stands still here."""
HELD = 0.2  # seconds after which the broker has answered whatever fetch a stopped worker had under way
SEGMENT = 0.3  # seconds after which the next record begins a segment of a log
COMPACTING = {"cleanup.policy": "compact", "segment.ms": "200", "min.cleanable.dirty.ratio": "0.001"}
QUIET = 2.0  # seconds in which lag stays 0: some of the worker's own looks
VERIFIED = 20.0  # seconds that `freshet verify --wait` may take where nothing is left to wait for


def deleted_unread(settings: Settings, bundles: Path, folder: Path, seed: int) -> None:
    """Fault 32: a worker stands still for less than its lease, and records that it has not read are deleted meanwhile. It ends
    with 76 and names them, at the next start too; with accept_loss it counts them and goes on, at the start and while it runs."""
    began, draw = time.monotonic(), random.Random(seed)
    number = draw.randrange(3)
    topic, kind = settings.sources[number], KINDS[number]
    partition = draw.randrange(settings.partitions)
    events = Events(settings, seed=seed)
    worker = WorkerProcess(settings, folder, bundles=bundles).start()
    accepting = WorkerProcess(settings, folder, bundles=bundles, accept_loss=True)
    try:
        events.send_items()
        worker.wait_ready()
        before = draw.randrange(40, 80)
        placed = send_kind(events, kind, before)
        worker.wait_applied(before)
        all_committed(settings)
        first = placed[partition]
        lost, left = _delete_unread(worker, events, kind, TopicPartition(topic, partition), first, draw)
        assert worker.wait(30) == 76, worker.tail()
        gone = f"{first} to {first + lost - 1}"
        says(worker, f"{topic} partition {partition}", gone, "--accept-loss")
        assert worker.start().wait(60) == 76, worker.tail()
        says(worker, f"{topic} partition {partition}", gone)
        accepting.start().wait_ready()
        all_committed(settings)  # the first worker may have applied what it had read of other partitions
        assert accepting.metric("freshet_accepted_loss_records_total") == lost
        begin = _end(settings, topic, partition)
        more, rest = _delete_unread(accepting, events, kind, TopicPartition(topic, partition), begin, draw)
        all_committed(settings)
        assert accepting.metric("freshet_accepted_loss_records_total") == lost + more
        until(lambda: accepting.metric("freshet_lag_records") == 0, 10, "lag 0")
        assert accepting.terminate() == 0
        report = loses_only(settings, TopicPartition(topic, partition), begin, more, folder)
    finally:
        events.close()
        worker.close()
        accepting.close()
    note = (
        f"{lost} unread {kind}s deleted under a worker that stood still for less than its lease: 76, {gone} named, at the next "
        f"start too; accept_loss: {lost} counted at the start, {more} more while it ran, the {left + rest} left "
        "applied; verify names the last range as lost"
    )
    record(outcome(32, "unread records deleted", seed, began, report, note))


def _delete_unread(
    worker: WorkerProcess, events: Events, kind: str, tp: TopicPartition, first: int, draw: random.Random
) -> tuple[int, int]:
    """While the worker stands still, send events and delete from `first` on -> how many were deleted, and how many were not."""
    worker.send_signal(signal.SIGSTOP)
    until(worker.stopped, 5, "the worker stands still")
    time.sleep(HELD)
    sent = send_kind(events, kind, draw.randrange(150, 250))
    lost = draw.randrange(1, sent[tp.partition])  # the last one stays: a state reaches to the end
    with admin(worker.settings) as client:
        client.delete_records({tp: first + lost})
    worker.send_signal(signal.SIGCONT)
    return lost, sum(sent.values()) - lost


def compacted(settings: Settings, bundles: Path, folder: Path, seed: int) -> None:
    """Fault 32: a source topic is compacted for a while, and records that the worker has not read go with it, none of them at the
    log's start. It ends with 76 and names the first hole; with accept_loss it counts every record that is missing and goes on."""
    began, draw = time.monotonic(), random.Random(seed)
    number = draw.randrange(3)
    topic, kind = settings.sources[number], KINDS[number]
    events = Events(settings, seed=seed)
    worker = WorkerProcess(settings, folder, bundles=bundles).start()
    accepting = WorkerProcess(settings, folder, bundles=bundles, accept_loss=True)
    try:
        events.send_items()
        worker.wait_ready()
        before = draw.randrange(40, 80)
        send_kind(events, kind, before)
        worker.wait_applied(before)
        assert worker.terminate() == 0
        read = _committed(settings)
        missed = send_kind(events, kind, draw.randrange(150, 250)).total()
        _configure(settings, topic, COMPACTING)
        for _ in range(3):  # each begins a segment, and what lies before the last one is compacted
            time.sleep(SEGMENT)
            missed += send_kind(events, kind, 40).total()
        until(lambda: _unread(settings, topic, read) < missed, 60, "records are compacted away")
        _configure(settings, topic, {"cleanup.policy": "delete"})
        assert worker.start().wait(60) == 76, worker.tail()
        says(worker, f"{topic} partition", "are gone, but others around them are not", "--accept-loss")
        left = _unread(settings, topic, read)
        accepting.start().wait_ready()
        all_committed(settings)  # the first worker may have applied what it had read of other partitions
        assert accepting.metric("freshet_accepted_loss_records_total") == missed - left
        assert accepting.terminate() == 0
        report = run(settings, wait=30)
        assert (report.lost, report.double, report.uncovered) == (0, 0, 0)
    finally:
        events.close()
        worker.close()
        accepting.close()
    note = (
        f"{kind}s topic compacted for a while: {missed - left} of {missed} unread records gone, none at the log's start: 76, "
        f"named; accept_loss: {missed - left} counted, {left} applied"
    )
    record(outcome(32, "source compacted for a while", seed, began, report, note))


def transactions(settings: Settings, bundles: Path, folder: Path, seed: int) -> None:
    """Fault 44: a producer writes in transactions, some of them aborted, and the worker is killed meanwhile. Every committed
    event is in a state, no aborted one is, and with a marker last in every partition nothing is behind: lag 0 while nothing
    comes, all committed, nothing left for `verify --wait` to wait for. Nor is an open transaction a lag of the worker's."""
    began, draw = time.monotonic(), random.Random(seed)
    events = Events(settings, seed=seed)
    worker = WorkerProcess(settings, folder, bundles=bundles).start()
    writer = Transactions(settings, events, draw)
    try:
        events.send_items()
        worker.wait_ready()
        for _ in range(draw.randrange(10, 20)):
            writer.write(draw.randrange(1, 40), commit=draw.random() < 0.6)
        worker.kill()
        for _ in range(draw.randrange(10, 20)):
            writer.write(draw.randrange(1, 40), commit=draw.random() < 0.6)
        worker.start().wait_ready()
        writer.everywhere(commit=True)
        _caught_up(settings, worker)
        writer.everywhere(commit=False)
        _caught_up(settings, worker)
        with writer.open(draw.randrange(20, 40)) as count:
            until(
                lambda: worker.metric("freshet_undecided_records") == count,
                10,
                f"{count} records of an open transaction",
            )
            _caught_up(settings, worker)
        _caught_up(settings, worker)
        assert worker.metric("freshet_undecided_records") == 0
        assert worker.metric("freshet_accepted_loss_records_total") == 0
        asked = time.monotonic()
        report = run(settings, wait=60)
        took = time.monotonic() - asked
        assert report.exit_code == 0, [str(violation) for violation in report.violations[:5]]
        assert took < VERIFIED, f"verify --wait took {took:.1f} s"
        assert (report.lost, report.double, report.uncovered) == (0, 0, 0)
        assert report.applied == report.input == writer.committed
        assert worker.terminate() == 0
    finally:
        events.close()
        worker.close()
    note = (
        f"{writer.transactions} transactions: {writer.committed} events committed and applied, {writer.aborted} aborted and in "
        f"no state; markers last in every partition: lag 0, all committed, verify --wait {took:.1f} s"
    )
    record(outcome(44, "transactional producer", seed, began, report, note))


class Transactions:
    """A transactional producer of the events of another. committed, aborted: events."""

    def __init__(self, settings: Settings, events: Events, draw: random.Random) -> None:
        self.committed = self.aborted = self.transactions = 0
        self._settings = settings
        self._events = events
        self._draw = draw
        self._producer = Producer(
            {
                "bootstrap.servers": settings.brokers, "transactional.id": f"{settings.app_id}-writer",
                "partitioner": "murmur2_random", "linger.ms": 1,
            }
        )  # fmt: skip
        self._producer.init_transactions(30)

    def write(self, count: int, *, commit: bool) -> None:
        """One transaction of so many events."""
        self._begin(count)
        self._end(count, commit)

    def everywhere(self, *, commit: bool) -> None:
        """One transaction of each partition of each source topic: its marker is the last that stands there."""
        left = {(topic, number) for topic in self._settings.sources for number in range(self._settings.partitions)}
        placed: Counter[tuple[str, int]] = Counter()
        count = 0
        self._producer.begin_transaction()
        while left - placed.keys():
            for _ in range(20):
                self._put(placed)
            self._producer.flush(30)
            count += 20
        self._end(count, commit)

    def open(self, count: int) -> _Open:
        """A transaction that is open in the block, and committed behind it."""
        return _Open(self, count)

    def _begin(self, count: int) -> None:
        self._producer.begin_transaction()
        for _ in range(count):
            self._put(Counter())
        self._producer.flush(30)

    def _put(self, placed: Counter[tuple[str, int]]) -> None:
        topic, message = self._events.one()
        self._producer.produce(
            topic, json.dumps(message).encode(), message["user"].encode(),
            on_delivery=lambda error, sent: placed.update([(sent.topic(), sent.partition())]),
        )  # fmt: skip

    def _end(self, count: int, commit: bool) -> None:
        if commit:
            self._producer.commit_transaction(30)
            self.committed += count
        else:
            self._producer.abort_transaction(30)
            self.aborted += count
        self.transactions += 1


class _Open:
    def __init__(self, writer: Transactions, count: int) -> None:
        self._writer = writer
        self._count = count

    def __enter__(self) -> int:
        self._writer._begin(self._count)
        return self._count

    def __exit__(self, kind: type[BaseException] | None, *rest: object) -> None:
        self._writer._end(self._count, commit=kind is None)


def _caught_up(settings: Settings, worker: WorkerProcess) -> None:
    """All that can be read is committed, markers too, and for some looks of the worker's own nothing is behind."""
    all_committed(settings)
    until(lambda: worker.metric("freshet_lag_records") == 0, 10, "lag 0")
    end = time.monotonic() + QUIET
    while time.monotonic() < end:
        assert worker.metric("freshet_lag_records") == worker.metric("freshet_lag_seconds") == 0
        time.sleep(0.2)  # what is held is that nothing changes meanwhile


def _configure(settings: Settings, topic: str, values: dict[str, str]) -> None:
    with admin(settings) as client:
        client.alter_configs([ConfigResource(ConfigResourceType.TOPIC, topic, values)])


def _committed(settings: Settings) -> dict[tuple[str, int], int]:
    log = KafkaLog(settings)
    try:
        return log.committed()
    finally:
        log.close()


def _unread(settings: Settings, topic: str, committed: dict[tuple[str, int], int]) -> int:
    """Records of a topic from the committed offsets on."""
    return sum(one.offset >= committed.get((topic, one.partition), 0) for one in read_all(settings, topic))


def _end(settings: Settings, topic: str, partition: int) -> int:
    log = KafkaLog(settings)
    try:
        return log.spans([topic])[topic, partition].end
    finally:
        log.close()
