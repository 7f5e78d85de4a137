"""Reads the slates that a worker does not know: those that others have written to its partitions of `recommendations`.

It works in short steps between micro-batches, so it never waits for Kafka: what takes a round trip runs in a task.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from contextlib import suppress
from typing import Annotated, Any, Final

import msgspec
from aiokafka import TopicPartition
from aiokafka.errors import KafkaError

from stream.core.denials import refusal
from stream.core.errors import BrokerError
from stream.core.keys import ANYONE_KEY
from stream.core.messages import Scored
from stream.core.state import MAX_SEQ
from stream.core.unreadable import UNREADABLE
from stream.kafka.batch import Record
from stream.kafka.clients import groupless_consumer
from stream.kafka.standing_slates import Shown, Slot, StandingSlates
from stream.settings import Settings

FETCH_BYTES: Final = 1 << 20
PAUSE: Final = 0.05
"""Seconds until it looks again for records that have not arrived."""

ATTEMPTS_EVERY: Final = 1.0
"""Seconds until it asks again if no broker has answered."""


class _Slate(msgspec.Struct):
    """What is read of a slate."""

    seq: Annotated[int, msgspec.Meta(ge=0, le=MAX_SEQ)]
    items: list[Scored]
    placement: str = ""


_SLATE: Final = msgspec.json.Decoder(_Slate)


_Logs = dict[int, tuple[int, int]]
"""Partition -> the first offset of its log, and the offset after the last one."""


class SlateReader:
    """Brings the standing slates of the partitions that are behind up to date.

    Args:
        settings: The worker's settings.
        standing: Where the slates are noted.
        wake: Called when a step is due.
    """

    def __init__(self, settings: Settings, standing: StandingSlates, wake: Callable[[], None]) -> None:
        self._settings = settings
        self._topic = settings.recommendations_topic
        self._standing = standing
        self._wake = wake
        self._consumer: Any = None
        self._asking: asyncio.Future[_Logs] | None = None
        self._at: dict[int, int] = {}  # partition -> the next offset to read
        self._assigned: tuple[int, ...] = ()
        self._timer: asyncio.TimerHandle | None = None
        self._closing: asyncio.Future[None] | None = None  # kept, since the loop holds tasks weakly
        self.records = 0
        """How many records have been read."""

    async def step(self, most: int) -> bool:
        """Read at most `most` records. Return whether the next step is due at once; else `wake` says when it is.

        Raises BrokerError.
        """
        wanted = tuple(self._standing.behind())
        if not wanted:
            return False
        if self._asking is not None:
            if not self._asking.done():
                return False
            asked, self._asking = self._asking, None
            self._begin(asked.result())
        unknown = [one for one in wanted if one not in self._at or self._standing.target(one) < 0]
        if unknown:
            self._asking = asyncio.ensure_future(self._ask(unknown))
            self._asking.add_done_callback(lambda _: self._wake())
            return False
        if wanted != self._assigned:
            self._assign(wanted)
        return await self._read(wanted, most)

    def close(self) -> None:
        """Close the client in a task."""
        if self._consumer is not None or self._asking is not None:
            self._closing = asyncio.ensure_future(self.stop())

    async def stop(self) -> None:
        """Close the client, and forget how far it was. May be called twice."""
        asking, self._asking = self._asking, None
        if asking is not None:
            asking.cancel()
            await asyncio.wait([asking])
        consumer, self._consumer = self._consumer, None
        self._at, self._assigned = {}, ()
        if consumer is not None:
            with suppress(KafkaError):
                await consumer.stop()

    def forget(self) -> None:
        """Forget how far it was: the assignment has ended."""
        if self._asking is not None:
            self._asking.cancel()
            self._asking = None
        self._at.clear()
        self._assigned = ()

    async def _ask(self, partitions: Sequence[int]) -> _Logs:
        """Return the logs of partitions; nothing if no broker answers."""
        try:
            if self._consumer is None:
                # Workers write in no transaction, and another producer's must not hide their slates.
                consumer = groupless_consumer(
                    self._settings, "standing", auto_offset_reset="earliest", isolation_level="read_uncommitted",
                    max_partition_fetch_bytes=FETCH_BYTES, fetch_max_bytes=4 * FETCH_BYTES,
                )  # fmt: skip
                self._consumer = consumer
                await consumer.start()
            wanted = [TopicPartition(self._topic, partition) for partition in partitions]
            starts = await self._consumer.beginning_offsets(wanted)
            ends = await self._consumer.end_offsets(wanted)
        except KafkaError as error:
            if denied := refusal(error, self._topic, "Read"):
                raise denied from None
            consumer, self._consumer = self._consumer, None
            if consumer is not None:
                with suppress(KafkaError):
                    await consumer.stop()
            await asyncio.sleep(ATTEMPTS_EVERY)
            return {}
        return {tp.partition: (starts[tp], ends[tp]) for tp in wanted}

    def _begin(self, logs: _Logs) -> None:
        for partition, (start, end) in logs.items():
            if partition not in self._at:
                reached = self._standing.reached(partition)
                if reached >= end:  # the topic was recreated
                    self._standing.drop(partition)
                    reached = -1
                self._at[partition] = max(reached + 1, start)
                self._assigned = ()
            self._standing.aim(partition, end)

    def _assign(self, partitions: tuple[int, ...]) -> None:
        self._consumer.assign([TopicPartition(self._topic, partition) for partition in partitions])
        for partition in partitions:
            self._consumer.seek(TopicPartition(self._topic, partition), self._at[partition])
        self._assigned = partitions

    async def _read(self, partitions: tuple[int, ...], most: int) -> bool:
        open_ = [one for one in partitions if self._at[one] < self._standing.target(one)]
        found: dict[Any, list[Any]] = {}
        if open_:
            try:
                found = await self._consumer.getmany(timeout_ms=0, max_records=most)
            except KafkaError as error:
                raise refusal(error, self._topic, "Read") or BrokerError(f"{self._topic}: {error}") from None
        for tp, records in found.items():
            self.records += len(records)
            self._standing.take(tp.partition, _slates(records), records[-1].offset)
        for partition in partitions:
            self._at[partition] = await self._consumer.position(TopicPartition(self._topic, partition))
            if self._at[partition] >= self._standing.target(partition) and self._standing.caught_up(partition):
                del self._at[partition]
        if self._standing.behind() and not found and self._timer is None:
            self._timer = asyncio.get_running_loop().call_later(PAUSE, self._ring)
        return bool(found) or not self._standing.behind()

    def _ring(self) -> None:
        self._timer = None
        self._wake()


def _slates(records: Sequence[Record]) -> list[tuple[Slot, Shown | None]]:
    """Return what users' slates show, in order; None for a tombstone. Records that no worker writes are left out."""
    found: list[tuple[Slot, Shown | None]] = []
    for record in records:
        if record.key is None or record.key == ANYONE_KEY:  # nobody's slate is not re-issued
            continue
        if record.value is None:
            found.append((Slot(record.key), None))
            continue
        with suppress(*UNREADABLE):
            slate = _SLATE.decode(record.value)
            if slate.placement.isascii():
                slot = Slot(record.key, slate.placement)
                found.append((slot, Shown(slate.seq, [scored.item for scored in slate.items])))
    return found
