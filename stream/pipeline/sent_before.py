"""Copies of misplaced records that were sent on in a former life of their partition, so that none is sent again.

A record that lay in a partition when we were given it may have been read before: by a worker that was killed before its commit,
or since the group's offsets are gone or were set back. `applied` of a state tells that of a record in the user's own
partition; of one
on a wrong partition nothing but its copy does. So before such a record is sent on, the partition where it belongs is read from
that record's append time on. Records that have come since are new, and cost nothing.
"""

from __future__ import annotations

import logging
from bisect import bisect_left
from collections.abc import AsyncGenerator, Callable, Mapping, Sequence
from contextlib import aclosing
from typing import Final

from aiokafka import AIOKafkaConsumer, TopicPartition
from faust.types import TP

from stream.kafka.batch import Record
from stream.kafka.clients import consumer_arguments
from stream.kafka.producer import Outgoing
from stream.pipeline.misplaced import FORWARDED
from stream.settings import Settings

log = logging.getLogger("freshet.misplaced")

ReadSince = Callable[[TP, int], AsyncGenerator[Sequence[Record], None]]
"""(partition, epoch ms) -> its records that are not older, up to its end as it is now."""

MARGIN: Final = 10_000
"""Milliseconds by which a broker's clock may lie behind another's."""


class SentBefore:
    """Which copies are there already. lay: source partition -> the offsets that lay there when we were given it, a new mapping
    for each assignment; read: a source partition's records."""

    def __init__(self, lay: Callable[[], Mapping[TP, range]], read: ReadSince) -> None:
        self._lay = lay
        self._read = read
        self._known: Mapping[TP, range] = {}  # the assignment that the rest is of
        self._since: dict[TP, int] = {}  # by right partition, the append time from which it was read
        self._found: set[int] = set()  # hashes of the copies' place, key and value
        self.records = 0
        """How many have been read."""

    async def leave_out(
        self,
        parts: Mapping[TP, Sequence[Record]],
        copies: Mapping[tuple[str, int], list[Outgoing]],
        ours: Callable[[], bool],
    ) -> dict[str, int] | None:
        """Take out of `copies` (by the place that they are for) those that are there already -> how many, by topic.

        parts: the records that they were made of; ours: nobody has taken our partitions meanwhile. None where somebody has.
        """
        known = self._lay()
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
                said = "records of %s on wrong partitions are read again, and were sent on before: not sent on twice"
                log.info(said, topic, extra={"records": len(again)})
        return left_out

    def _doubted(self, topic: str, copy: Outgoing, parts: Mapping[TP, Sequence[Record]]) -> int:
        """The append time of the record, where it may have been read before; 0 where it is new."""
        _, partition, offset = _place(copy).decode().rsplit("/", 2)
        tp = TP(topic, int(partition))
        if int(offset) not in self._known.get(tp, ()):
            return 0
        part = parts[tp]
        return max(1, part[bisect_left(part, int(offset), key=lambda record: record.offset)].timestamp)

    async def _look(self, tp: TP, since: int, ours: Callable[[], bool]) -> bool:
        """Read the copies in one partition. False: the assignment has ended."""
        since = max(0, since - MARGIN)
        if self._since.get(tp, since + 1) <= since:
            return True
        log.info("looks for records of %s that were sent on before", tp.topic, extra={"partition": tp.partition})
        async with aclosing(self._read(tp, since)) as batches:
            async for records in batches:
                if not ours():
                    return False
                self.records += len(records)
                self._found.update(_mark(record) for record in records if _copies(record, tp.topic, self._known))
        self._since[tp] = since
        return True


def _place(record: Record | Outgoing) -> bytes:
    """What the header says of where the record lay; b"" without."""
    return next((value or b"" for name, value in record.headers or () if name == FORWARDED), b"")


def _copies(record: Record, topic: str, known: Mapping[TP, range]) -> bool:
    """It says that it is a copy of a record that lay in one of these partitions. Anybody may say anything there."""
    said, _, rest = _place(record).decode("ascii", "replace").rpartition(f"{topic}/")
    partition, _, offset = rest.partition("/")
    if said or not (partition.isdecimal() and offset.isdecimal() and len(partition) < 11 and len(offset) < 20):
        return False
    return int(offset) in known.get(TP(topic, int(partition)), ())


def _mark(record: Record | Outgoing) -> int:
    """A copy, by place, key and value: whoever writes our header cannot have another record left out."""
    return hash((_place(record), record.key, record.value))


def since_reader(settings: Settings) -> ReadSince:
    """Reads Kafka. Records of open and aborted transactions, too: ours are in none, and none of somebody else's hides them."""

    async def read(tp: TP, since: int) -> AsyncGenerator[Sequence[Record], None]:
        place = TopicPartition(tp.topic, tp.partition)
        consumer = AIOKafkaConsumer(
            **consumer_arguments(settings), group_id=None, enable_auto_commit=False, auto_offset_reset="earliest",
            isolation_level="read_uncommitted",
        )  # fmt: skip
        await consumer.start()
        try:
            consumer.assign([place])
            begin = (await consumer.offsets_for_times({place: since}))[place]
            end = (await consumer.end_offsets([place]))[place]
            if begin is None:
                return
            consumer.seek(place, begin.offset)
            while await consumer.position(place) < end:
                yield (await consumer.getmany(timeout_ms=500)).get(place, ())
        finally:
            await consumer.stop()

    return read
