"""Refusing a log that was cut off under us: a source that has lost what we have read, a changelog that has lost our states.

Beside each offset of a source partition its owner commits what the next one, on any machine, needs to ask whether the logs
still have everything that the offset stands for.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable, Mapping
from contextlib import suppress
from typing import Any, Final, NamedTuple

import msgspec
from aiokafka.errors import KafkaError
from aiokafka.structs import OffsetAndMetadata, TopicPartition

from stream.core.errors import LossError
from stream.kafka.leader_epochs import Epochs
from stream.process.fatal import fatal

PATIENCE: Final = 5.0  # seconds to remember, before the end, what was found
PAUSE: Final = 0.1  # seconds between two looks for a leader
WHY: Final = "an election of a leader that had missed records (unclean)?"


class Beside(msgspec.Struct, frozen=True, omit_defaults=True):
    """What is committed beside an offset, as JSON; -1: not known.

    read: up to where the source was read by then, the offset or more. epoch: of the leader that wrote the record before that.
    written: last offset of the changelog partition by then. cut: where a worker found the log of the source cut off.
    """

    read: int = -1
    epoch: int = -1
    written: int = -1
    cut: int = -1


def encode(beside: Beside) -> str:
    return msgspec.json.encode(beside).decode()


def decode(metadata: str, offset: int = 0) -> Beside:
    """Nothing is known where somebody else has committed something else. A worker never says that it has read less than `offset`,
    the one that it commits."""
    try:
        found = msgspec.json.decode(metadata, type=Beside)
    except (msgspec.DecodeError, ValueError):
        return Beside()
    return found if found.read >= offset else Beside()


class Found(NamedTuple):
    """What was committed of a source partition. end: where its log, as it is now, ends the epoch of `beside`; -1: not known.
    metadata: what lay beside the offset, as it came."""

    offset: int
    beside: Beside
    end: int
    metadata: str = ""

    @property
    def foreign(self) -> bool:
        """No worker committed this: each says up to where it has read."""
        return self.beside.read < self.offset

    @property
    def read(self) -> int:
        """Up to where the source was read."""
        return max(self.offset, self.beside.read)

    def cut(self) -> int:
        """Where the log was cut off below what was read; -1 where it was not."""
        if self.beside.cut >= 0:
            return self.beside.cut
        return self.end if 0 <= self.end < self.read else -1


def source_cut(topic: str, partition: int, end: int, read: int) -> LossError:
    return LossError(
        f"{topic} partition {partition}: the log was cut off at {end}, and was read up to {read}: acknowledged records are "
        f"gone, others have their offsets or will: {WHY} See --accept-loss"
    )


def source_moved(topic: str, partition: int, group: str, found: Found) -> LossError:
    return LossError(
        f"{topic} partition {partition}: offset {found.offset} of the group {group} was committed by no worker: beside it stands "
        f"{found.metadata[:40]!r}, expected up to where a worker has read. Records before it may be in no state. Stop all "
        "workers, wait for session_timeout, and delete the group's offsets of this topic (kafka-consumer-groups.sh "
        f"--delete-offsets --group {group} --topic {topic}): a worker then reads it from its beginning and passes over what "
        f"states have. Or --accept-loss goes on from {found.offset}"
    )


def changelog_cut(topic: str, partition: int, end: int, written: int) -> LossError:
    return LossError(
        f"{topic} partition {partition}: the log ends at {end}, and states were written up to {written}: acknowledged records "
        f"are gone, and with them states: {WHY} See --accept-loss"
    )


def items_cut(topic: str, partition: int, end: int, read: int) -> LossError:
    return LossError(
        f"{topic} partition {partition}: the log was cut off at {end}, and was read up to {read}: acknowledged records are "
        f"gone, and the catalogue shows their items: {WHY} Or the topic was recreated. The next start reads what is left"
    )


class Cuts:
    """Watches one consumer, in its thread. written: changelog partition -> offset of our last record there; lose: raises
    the error, or counts the records where loss is accepted."""

    def __init__(
        self,
        consumer: Any,
        sources: frozenset[str],
        written: Callable[[int], int],
        lose: Callable[[LossError, int], None],
    ) -> None:
        self._consumer = consumer
        self._written = written
        self._lose = lose
        self._offsets: dict[TopicPartition, int] = {}  # committed
        self._epochs = Epochs(consumer._client, sources, self._on_cut)
        self._commit = consumer.commit

    def watch(self) -> None:
        """Look at every fetch, and commit what is known beside each offset."""
        self._epochs.watch()
        self._consumer.commit = self._commit_beside

    def forget(self) -> None:
        """All partitions are given up. Called before they are assigned again: from then on the fetcher reads."""
        self._epochs.forget()

    async def _commit_beside(self, offsets: Mapping[TopicPartition, OffsetAndMetadata]) -> None:
        await self._commit({place: self._beside(place, one.offset) for place, one in offsets.items()})
        self._offsets.update((place, one.offset) for place, one in offsets.items())

    async def commit(self, offsets: Mapping[Any, tuple[int, Beside]]) -> None:
        """Commit this beside these offsets, whatever is known here."""
        made = {
            TopicPartition(*tp): OffsetAndMetadata(offset, encode(beside)) for tp, (offset, beside) in offsets.items()
        }
        await self._commit(made)
        self._offsets.update((place, one.offset) for place, one in made.items())

    def _beside(self, place: TopicPartition, offset: int) -> OffsetAndMetadata:
        read = max(offset, self._epochs.reached(place))
        beside = Beside(read, self._epochs.before(place, read), self._written(place.partition))
        return OffsetAndMetadata(offset, encode(beside))

    async def take_over(self, tps: Iterable[tuple[str, int]]) -> dict[TopicPartition, Found]:
        """What was committed of source partitions that are ours now. Waits for their leaders."""
        self._offsets.clear()
        places = [TopicPartition(*tp) for tp in tps]
        committed = await self._consumer._coordinator.fetch_committed_offsets(places) if places else {}
        known = {
            place: (one.offset, decode(one.metadata, one.offset)) for place, one in committed.items() if one.offset >= 0
        }
        self._offsets.update((place, offset) for place, (offset, _) in known.items())
        ends = await self._ends({place: beside.epoch for place, (_, beside) in known.items() if beside.epoch >= 0})
        found = {}
        for place, (offset, beside) in known.items():
            found[place] = Found(offset, beside, ends.get(place, -1), committed[place].metadata)
            self._epochs.keep_from(place, offset)
            if beside.epoch >= 0 and offset and found[place].cut() < 0:  # a cut is told once
                self._epochs.note_committed(place, offset - 1, beside.epoch)
        return found

    async def _ends(self, epochs: Mapping[TopicPartition, int]) -> dict[TopicPartition, int]:
        """Where the log of each partition ends the epoch given; one request for each leader, again for what has no answer yet."""
        client = self._consumer._client
        ends: dict[TopicPartition, int] = {}
        while True:
            wanted: dict[int, dict[TopicPartition, int]] = {}
            for place in epochs.keys() - ends.keys():
                leader = client.cluster.leader_for_partition(place)
                if leader is not None and leader >= 0:
                    wanted.setdefault(leader, {})[place] = epochs[place]
            for found in await asyncio.gather(*(self._asked(node, some) for node, some in wanted.items())):
                ends |= found
            if len(ends) == len(epochs):
                return ends
            await client.force_metadata_update()
            await asyncio.sleep(PAUSE)

    async def _asked(self, node: int, epochs: Mapping[TopicPartition, int]) -> dict[TopicPartition, int]:
        """What one leader says now; who does not answer is asked again."""
        with suppress(KafkaError):
            found = await self._epochs.ends(node, epochs)
            return {place: end for place, end in found.items() if not isinstance(end, KafkaError)}
        return {}

    async def _on_cut(self, place: TopicPartition, end: int, read: int) -> None:
        error = source_cut(place.topic, place.partition, end, read)
        try:
            self._lose(error, read - end)
        except LossError:
            await self._remember(place, end, read)
            fatal(error)

    async def _remember(self, place: TopicPartition, end: int, read: int) -> None:
        """What is committed may lie before the cut; states hold more than that, and no later owner could tell."""
        if (offset := self._offsets.get(place)) is not None:
            with suppress(KafkaError, TimeoutError):
                async with asyncio.timeout(PATIENCE):
                    beside = Beside(read=read, cut=end)
                    await self._commit({place: OffsetAndMetadata(offset, encode(beside))})
