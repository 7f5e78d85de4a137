"""Finds copies of misplaced records that were forwarded in an earlier assignment, so that none is sent again.

A record that was in a partition when we got it may have been read before: by a worker that was killed before its
commit, or because the group's offsets were deleted or reset. For a record in the user's own partition, `applied` of the
state shows that. For one on a wrong partition, only its copy does. So before such a record is forwarded, the partition
where it belongs is read from that record's append time on. Records that have arrived since the assignment are new and
need no such check.
"""

from __future__ import annotations

import logging
from bisect import bisect_left
from collections.abc import AsyncGenerator, Callable, Mapping, Sequence
from contextlib import aclosing
from typing import Final

from aiokafka import TopicPartition
from faust.types import TP

from stream.kafka.batch import Record
from stream.kafka.clients import groupless_consumer
from stream.kafka.producer import Outgoing
from stream.pipeline.misplaced import FORWARDED
from stream.settings import Settings

log = logging.getLogger("freshet.misplaced")

ReadSince = Callable[[TP, int], AsyncGenerator[Sequence[Record], None]]
"""(partition, epoch ms) -> its records that are not older, up to its current end."""

MARGIN: Final = 10_000
"""Milliseconds by which a broker's clock may be behind another's."""


class SentBefore:
    """Knows which copies exist already.

    Args:
        at_start: Returns source partition -> the offsets that were there when we got it, a new mapping for each assignment.
        read: Reads a source partition's records.
    """

    def __init__(self, at_start: Callable[[], Mapping[TP, range]], read: ReadSince) -> None:
        self._at_start = at_start
        self._read = read
        self._known: Mapping[TP, range] = {}  # the assignment to which the other fields belong
        self._since: dict[TP, int] = {}  # by right partition, the append time from which it was read
        self._found: set[int] = set()  # hashes of the copies' place, key and value
        self.records = 0
        """How many records have been read."""

    async def leave_out(
        self,
        parts: Mapping[TP, Sequence[Record]],
        copies: Mapping[tuple[str, int], list[Outgoing]],
        ours: Callable[[], bool],
    ) -> dict[str, int] | None:
        """Remove the copies that exist already.

        Args:
            parts: The records from which the copies were made.
            copies: Copies by their target topic and partition.
            ours: Returns whether our partitions are still ours.
        Returns:
            The number of removed copies by topic; None if another worker has taken our partitions meanwhile.
        """
        known = self._at_start()
        if known is not self._known:
            self._known = known
            self._since.clear()
            self._found.clear()
        left_out: dict[str, int] = {}
        for (topic, partition), sent in copies.items():
            doubted = {at: times for at, copy in enumerate(sent) if (times := self._doubted(topic, copy, parts))}
            if not doubted:
                continue
            if not await self._look(TP(topic, partition), min(doubted.values()), ours):
                return None
            again = [at for at in doubted if _mark(sent[at]) in self._found]
            for at in reversed(again):
                del sent[at]
            if again:
                left_out[topic] = left_out.get(topic, 0) + len(again)
                message = (
                    "records of %s on wrong partitions are read again but were forwarded before: not forwarded twice"
                )
                log.info(message, topic, extra={"records": len(again)})
        return left_out

    def _doubted(self, topic: str, copy: Outgoing, parts: Mapping[TP, Sequence[Record]]) -> int:
        """Return the append time of the record if it may have been read before; 0 if it is new."""
        _, partition, offset = _place(copy).decode().rsplit("/", 2)
        tp = TP(topic, int(partition))
        if int(offset) not in self._known.get(tp, ()):
            return 0
        part = parts[tp]
        return max(1, part[bisect_left(part, int(offset), key=lambda record: record.offset)].timestamp)

    async def _look(self, tp: TP, since: int, ours: Callable[[], bool]) -> bool:
        """Read the copies in one partition. Return False if the assignment has ended."""
        since = max(0, since - MARGIN)
        if self._since.get(tp, since + 1) <= since:
            return True
        log.info("looking for records of %s that were forwarded before", tp.topic, extra={"partition": tp.partition})
        async with aclosing(self._read(tp, since)) as batches:
            async for records in batches:
                if not ours():
                    return False
                self.records += len(records)
                self._found.update(_mark(record) for record in records if _copies(record, tp.topic, self._known))
        self._since[tp] = since
        return True


def _place(record: Record | Outgoing) -> bytes:
    """Return the record's original place from the header; b"" without one."""
    return next((value or b"" for name, value in record.headers or () if name == FORWARDED), b"")


def _copies(record: Record, topic: str, known: Mapping[TP, range]) -> bool:
    """Return whether its header claims that it copies a record in these partitions. The header can hold anything."""
    before, _, rest = _place(record).decode("ascii", "replace").rpartition(f"{topic}/")
    partition, _, offset = rest.partition("/")
    if before or not (partition.isdecimal() and offset.isdecimal() and len(partition) < 11 and len(offset) < 20):
        return False
    return int(offset) in known.get(TP(topic, int(partition)), ())


def _mark(record: Record | Outgoing) -> int:
    """Return a hash of a copy's place, key and value, so that a forged header cannot suppress another record."""
    return hash((_place(record), record.key, record.value))


def since_reader(settings: Settings) -> ReadSince:
    """Return a reader of Kafka.

    It also reads records of open and aborted transactions: ours are in none, and other producers' transactions must not
    hide them.
    """

    async def read(tp: TP, since: int) -> AsyncGenerator[Sequence[Record], None]:
        partition = TopicPartition(tp.topic, tp.partition)
        consumer = groupless_consumer(
            settings, "sent-before", auto_offset_reset="earliest", isolation_level="read_uncommitted"
        )
        await consumer.start()
        try:
            consumer.assign([partition])
            begin = (await consumer.offsets_for_times({partition: since}))[partition]
            end = (await consumer.end_offsets([partition]))[partition]
            if begin is None:
                return
            consumer.seek(partition, begin.offset)
            while await consumer.position(partition) < end:
                yield (await consumer.getmany(timeout_ms=500)).get(partition, ())
        finally:
            await consumer.stop()

    return read
