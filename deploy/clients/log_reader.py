"""Reads records, from a real Kafka through kafka-python, or from any other `Log`, such as lists in a test."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any, NamedTuple, Protocol

from deploy.clients.arguments import client_arguments
from deploy.clients.connect import connect
from stream.core.denials import refusal
from stream.core.errors import BrokerError, TopologyError
from stream.settings import Settings

TopicPartition = tuple[str, int]
"""(topic, partition)"""


class Record(Protocol):
    """What is read of one record. kafka-python's ConsumerRecord fits."""

    @property
    def partition(self) -> int: ...
    @property
    def offset(self) -> int: ...
    @property
    def timestamp(self) -> int: ...
    @property
    def key(self) -> bytes | None: ...
    @property
    def value(self) -> bytes | None: ...
    @property
    def headers(self) -> Sequence[tuple[str, bytes]]: ...


class Span(NamedTuple):
    """The first offset that a partition still has, and the one after its last."""

    start: int
    end: int


class Log(Protocol):
    """A set of topics that can be read from the beginning."""

    def spans(self, topics: Sequence[str]) -> dict[TopicPartition, Span]:
        """Return the current offsets of every partition. Raises TopologyError if a topic is missing."""
        ...

    def tops(self, topics: Sequence[str]) -> dict[TopicPartition, int]:
        """Return the current offset after the last record of every partition.

        It counts records of open transactions, too; `spans` ends before these.
        """
        ...

    def committed(self) -> dict[TopicPartition, int]:
        """Return the worker group's committed offsets."""
        ...

    def at(self, times: dict[TopicPartition, int]) -> dict[TopicPartition, int]:
        """Return the first offset whose record is not older than a time (epoch ms); the end if all are older."""
        ...

    def records(self, topic: str, spans: dict[TopicPartition, Span]) -> Iterator[Record]:
        """Yield all committed records of a topic within the spans; those of one partition in offset order."""
        ...


class KafkaLog:
    """The topics of a real Kafka. Raises BrokerError if no broker answers."""

    def __init__(self, settings: Settings) -> None:
        import kafka
        from kafka.errors import KafkaError

        self._kafka = kafka
        self._error = KafkaError
        self._settings = settings
        self._timeout = settings.request_timeout
        self._arguments = client_arguments(settings)
        self._client = connect(settings, self._consumer)

    def _consumer(self, wait: int | None = None) -> Any:
        """Create a consumer. wait: Milliseconds to find a broker; None: as long as a request may take."""
        return self._kafka.KafkaConsumer(
            **self._arguments,
            enable_auto_commit=False,
            isolation_level="read_committed",
            auto_offset_reset="none",
            max_poll_records=2000,
            max_partition_fetch_bytes=1 << 20,  # a larger record comes alone
            check_crcs=False,  # kafka-python's crc32c is pure Python: minutes for a large log; state records have their own
            bootstrap_timeout_ms=wait or int(1000 * self._timeout),
        )

    def close(self) -> None:
        self._client.close()

    def _topic_partitions(self, topics: Sequence[str]) -> list[Any]:
        tps = []
        for topic in topics:
            partitions = self._client.partitions_for_topic(topic)
            if not partitions:
                self._check_allowed(topic)
                raise TopologyError(f"topic {topic} is missing; create it with: freshet topics create")
            tps += [self._kafka.TopicPartition(topic, partition) for partition in sorted(partitions)]
        return tps

    def tops(self, topics: Sequence[str]) -> dict[TopicPartition, int]:
        try:
            asked = dict.fromkeys(self._topic_partitions(topics), self._kafka.admin.OffsetSpec.LATEST)
            admin = self._kafka.KafkaAdminClient(**self._arguments)
            try:
                found = self._retry(lambda: admin.list_partition_offsets(asked))
            finally:
                admin.close()
        except self._error as error:
            refused = refusal(error, operation="Describe")
            raise refused or BrokerError(f"offsets cannot be read from {self._settings.brokers}: {error}") from None
        return {(tp.topic, tp.partition): answer.offset for tp, answer in found.items()}

    def spans(self, topics: Sequence[str]) -> dict[TopicPartition, Span]:
        try:
            tps = self._topic_partitions(topics)
            starts = self._client.beginning_offsets(tps)
            ends = self._client.end_offsets(tps)
        except self._error as error:
            refused = refusal(error, operation="Describe")
            raise refused or BrokerError(f"offsets cannot be read from {self._settings.brokers}: {error}") from None
        return {(tp.topic, tp.partition): Span(starts[tp], ends[tp]) for tp in tps}

    def committed(self) -> dict[TopicPartition, int]:
        try:
            admin = self._kafka.KafkaAdminClient(**self._arguments)
            try:
                found = self._retry(lambda: admin.list_group_offsets(self._settings.app_id)[self._settings.app_id])
            finally:
                admin.close()
        except self._error as error:
            name = self._settings.app_id
            refused = refusal(error, name, "Describe")
            raise refused or BrokerError(f"committed offsets of {name} cannot be read: {error}") from None
        return {(tp.topic, tp.partition): entry.offset for tp, entry in found.items() if entry.offset >= 0}

    def at(self, times: dict[TopicPartition, int]) -> dict[TopicPartition, int]:
        asked = {self._kafka.TopicPartition(*tp): when for tp, when in times.items()}
        try:
            found = self._client.offsets_for_times(asked)
            ends = self._client.end_offsets(list(asked))
        except self._error as error:
            refused = refusal(error, operation="Describe")
            raise refused or BrokerError(f"offsets cannot be read from {self._settings.brokers}: {error}") from None
        return {(p.topic, p.partition): found[p].offset if found.get(p) else ends[p] for p in asked}

    def _check_allowed(self, topic: str) -> None:
        """Raise the broker's error if an ACL hides the topic. A consumer gets the same answer for this and a missing topic."""
        admin = self._kafka.KafkaAdminClient(**self._arguments)
        try:
            (answer,) = admin.describe_topics([topic])
        finally:
            admin.close()
        hidden = self._kafka.errors.TopicAuthorizationFailedError
        if answer["error_code"] == hidden.errno:
            raise hidden(topic)

    def _retry(self, ask: Callable[[], Any]) -> Any:
        """Retry a request: the first one about a group succeeds only after the broker has created its internal topic."""
        deadline = time.monotonic() + self._timeout
        while True:
            try:
                return ask()
            except self._error as error:
                if not error.retriable or time.monotonic() >= deadline:
                    raise
                time.sleep(0.2)

    def records(self, topic: str, spans: dict[TopicPartition, Span]) -> Iterator[Record]:
        left = {
            self._kafka.TopicPartition(*tp): span
            for tp, span in spans.items()
            if tp[0] == topic and span.end > span.start
        }
        if not left:
            return
        consumer = self._client  # one for all reads: creating one takes longer than reading ten thousand records
        moved = time.monotonic()
        try:
            consumer.assign(list(left))
            for tp, span in left.items():
                consumer.seek(tp, span.start)
            while left:
                batches = consumer.poll(timeout_ms=500)
                for tp, records in batches.items():
                    end = left[tp].end
                    if records[-1].offset < end:
                        yield from records
                    else:
                        yield from (record for record in records if record.offset < end)
                for tp in [tp for tp, span in left.items() if consumer.position(tp) >= span.end]:
                    del left[tp]
                    consumer.pause(tp)
                if batches:
                    moved = time.monotonic()
                elif left and time.monotonic() - moved > self._timeout:
                    tp, span = next(iter(left.items()))
                    raise BrokerError(
                        f"{topic}/{tp.partition} gave no record for {self._timeout:g} s before offset {span.end}"
                    )
        except self._error as error:
            raise refusal(error, topic, "Read") or BrokerError(f"{topic} cannot be read: {error}") from None
        finally:
            consumer.unsubscribe()

    def tail(self, topic: str, starts: dict[TopicPartition, int]) -> Iterator[Record]:
        """Yield records from these offsets on. Never ends."""
        with self._reading(topic, starts) as consumer:
            while True:
                for records in consumer.poll(timeout_ms=500).values():
                    yield from records

    @contextmanager
    def _reading(self, topic: str, starts: dict[TopicPartition, int]) -> Iterator[Any]:
        """Open a consumer at these offsets."""
        tps = {self._kafka.TopicPartition(*tp): start for tp, start in starts.items()}
        try:
            consumer = self._consumer()
            try:
                consumer.assign(list(tps))
                for tp, start in tps.items():
                    consumer.seek(tp, start)
                yield consumer
            finally:
                consumer.close()
        except self._error as error:
            raise refusal(error, topic, "Read") or BrokerError(f"{topic} cannot be read: {error}") from None
