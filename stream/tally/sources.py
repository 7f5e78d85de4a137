"""Reads the source topics for the tally, from the offsets up to which they are counted."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import Any, Final

from aiokafka import TopicPartition
from aiokafka.errors import KafkaError, OffsetOutOfRangeError

from stream.core.denials import refusal
from stream.core.errors import BrokerError, LossError
from stream.kafka.batch import Record
from stream.kafka.clients import absent, consumer_tasks, groupless_consumer, partition_state, undecided, unread
from stream.kafka.leader_epochs import watch_epochs
from stream.kafka.truncation import source_cut
from stream.process.progress import Work
from stream.settings import Settings
from stream.tally.store import place

POLL_MS: Final = 200
MOST: Final = 2000
"""Records of one micro-batch."""


class Sources:
    """The three source topics, all partitions.

    Args:
        settings: The settings.
        on_loss: Called with what is lost, instead of LossError, if the setting `accept_loss` is on.
    """

    def __init__(self, settings: Settings, on_loss: Callable[[str], None]) -> None:
        self._settings = settings
        self._on_loss = on_loss
        self._partitions = [
            TopicPartition(topic, partition) for topic in settings.sources for partition in range(settings.partitions)
        ]
        self._consumer: Any = None
        self._cut: LossError | None = None
        self.records = 0
        """Records read since the start."""

    async def start(self) -> dict[str, tuple[int, int]]:
        """Connect. Return the first and the last offset, exclusive, of each partition. Raises BrokerError."""
        try:
            self._consumer = groupless_consumer(self._settings, "tally")
            watch_epochs(self._consumer, self._settings.sources, self._on_cut)
            await self._consumer.start()
            self._consumer.assign(self._partitions)
            begins = await self._consumer.beginning_offsets(self._partitions)
            ends = await self._consumer.end_offsets(self._partitions)
        except KafkaError as error:
            raise refusal(error, operation="Read") or BrokerError(
                f"the source topics cannot be read: {error}"
            ) from None
        return {place(*tp): (begins[tp], ends[tp]) for tp in self._partitions}

    def seek(self, offsets: Mapping[str, int], spans: Mapping[str, tuple[int, int]]) -> None:
        """Begin to read.

        Args:
            offsets: "topic/partition" -> first offset that is not counted; partitions that are absent: their beginning.
            spans: What `start` has returned.

        Raises:
            LossError: Records were deleted before they were counted, or the log ends before what was counted.
        """
        for tp in self._partitions:
            begin, end = spans[place(*tp)]
            offset = offsets.get(place(*tp), begin)
            if offset > end:
                raise LossError(
                    f"{tp.topic} partition {tp.partition} ends at {end}, and is counted up to {offset}: its log was cut off, or "
                    "it was recreated; delete tally_dir to count what is there"
                )
            if offset < begin:
                message = (
                    f"{tp.topic} partition {tp.partition}: records {offset} to {begin - 1} are deleted and not counted"
                )
                if not self._settings.accept_loss:
                    raise LossError(f"{message}; --accept-loss continues without them")
                self._on_loss(message)
            self._consumer.seek(tp, max(begin, offset))

    async def take(self, most: int = MOST) -> dict[TopicPartition, list[Record]]:
        """Return the next records, at most `most`. Raises LossError, BrokerError."""
        try:
            found: dict[TopicPartition, list[Record]] = await self._consumer.getmany(
                timeout_ms=POLL_MS, max_records=min(most, MOST)
            )
        except OffsetOutOfRangeError as error:
            (tp, offset), *_ = error.args[0].items()
            raise self._cut or LossError(
                f"{tp.topic} partition {tp.partition} no longer holds offset {offset}, which was to be counted next: records "
                "were deleted, or it was recreated"
            ) from None
        except KafkaError as error:
            raise refusal(error, operation="Read") or BrokerError(
                f"the source topics cannot be read: {error}"
            ) from None
        if self._cut is not None:
            raise self._cut
        self.records += sum(map(len, found.values()))
        return found

    async def passed(self, spans: Mapping[str, tuple[int, int]]) -> bool:
        """Return whether everything before the ends in `spans` is read."""
        return all([await self._consumer.position(tp) >= spans[place(*tp)][1] for tp in self._partitions])

    def lag(self) -> dict[str, int]:
        """Return how many records of each source topic are known and not read yet."""
        found = dict.fromkeys(self._settings.sources, 0)
        for tp in self._partitions if self._consumer is not None else ():
            state = partition_state(self._consumer, tp)
            if state is not None and state.has_valid_position:
                ends = [end for end in (state.highwater, state.lso) if end is not None and end >= 0]
                found[tp.topic] += max(0, min(ends, default=0) - state.position)
        return found

    def tasks(self) -> Iterator[tuple[str, Any]]:
        """Yield the tasks that must not end on their own."""
        yield from consumer_tasks("the tally's consumer", self._consumer)

    def work(self) -> dict[str, Work]:
        """Return what there is to do now (stream.process.progress)."""
        if self._consumer is None:
            return {}
        topics = self._settings.sources
        away = absent(self._consumer, self._partitions)
        held = undecided(self._consumer, topics)
        if not (away or held or unread(self._consumer, topics)):
            return {}
        return {"sources": Work("records of the source topics", self.records, away, held)}

    async def stop(self) -> None:
        """Close the consumer. May be called twice."""
        if self._consumer is not None:
            consumer, self._consumer = self._consumer, None
            await consumer.stop()

    async def _on_cut(self, tp: TopicPartition, end: int, read: int) -> None:
        """Note that records are counted which no longer exist. `take` raises the error."""
        self._cut = source_cut(tp.topic, tp.partition, end, read)
