"""Reads ranges of the changelog, and the claim in force, for a takeover (stream.kafka.fencing)."""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager

from aiokafka import AIOKafkaConsumer, TopicPartition
from aiokafka.errors import OffsetOutOfRangeError

from stream.core.errors import LossError
from stream.core.fencing_log import CLAIM_KEY, NO_CLAIM, Claim, LogRecord, sift
from stream.kafka.clients import groupless_consumer, undecided
from stream.settings import Settings

POLL_MS = 500


@asynccontextmanager
async def _reading(settings: Settings, tp: TopicPartition) -> AsyncIterator[AIOKafkaConsumer]:
    """Create a separate client for each use. The log is read only after a takeover in a race or of a new partition."""
    consumer = groupless_consumer(settings, "changelog")
    await consumer.start()
    try:
        consumer.assign([tp])
        yield consumer
    except OffsetOutOfRangeError as error:
        (offset,) = error.args[0].values()
        raise LossError(
            f"{tp.topic} partition {tp.partition}: record {offset} is gone, and with it states: was it deleted, or the "
            "topic recreated?"
        ) from None
    finally:
        await consumer.stop()


class ChangelogReader:
    """Reads the changelog.

    Attributes:
        held: Which open transaction keeps it from reading on; "" for none.
    """

    def __init__(self, settings: Settings, topic: str) -> None:
        self._settings = settings
        self._topic = topic
        self.held = ""

    async def read(self, partition: int, first: int, last: int) -> list[LogRecord]:
        """Return the records from offset `first` to `last`."""
        tp = TopicPartition(self._topic, partition)
        found: list[LogRecord] = []
        async with _reading(self._settings, tp) as consumer:
            consumer.seek(tp, first)
            async for records in self._until(consumer, tp, last + 1):
                found += [record for record in records if record.offset <= last]
        return found

    async def find(self, partition: int) -> Claim:
        """Return the claim in force at the end of a partition. Reads the whole partition."""
        tp = TopicPartition(self._topic, partition)
        claim = NO_CLAIM
        async with _reading(self._settings, tp) as consumer:
            end = (await consumer.end_offsets([tp]))[tp]
            consumer.seek(tp, (await consumer.beginning_offsets([tp]))[tp])
            async for records in self._until(consumer, tp, end):
                claim = sift((record for record in records if record.key == CLAIM_KEY), claim).claim
        return claim

    async def _until(
        self, consumer: AIOKafkaConsumer, tp: TopicPartition, end: int
    ) -> AsyncIterator[Sequence[LogRecord]]:
        try:
            while await consumer.position(tp) < end:
                records = (await consumer.getmany(timeout_ms=POLL_MS)).get(tp, ())
                self.held = "" if records else undecided(consumer, [tp.topic])
                yield records
        finally:
            self.held = ""
