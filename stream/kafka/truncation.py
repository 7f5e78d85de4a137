"""Refuses truncated logs: a source topic that lost records that we have read, or a changelog that lost our states.

With each offset of a source partition, its owner commits metadata. The next owner, on any machine, uses it to check
whether the logs still have everything that the offset covers.
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
from stream.core.unreadable import UNREADABLE
from stream.kafka.leader_epochs import Epochs
from stream.process.fatal import fatal

PATIENCE: Final = 5.0  # seconds to store what was found before the process ends
PAUSE: Final = 0.1  # seconds between two checks for a leader
WHY: Final = "was a leader elected that had missed records (an unclean election)?"


class CommitMetadata(msgspec.Struct, frozen=True, omit_defaults=True):
    """The metadata that is committed with an offset, as JSON; -1 means unknown.

    Attributes:
        read: The offset up to which the source was read at that time; the committed offset or higher.
        epoch: The epoch of the leader that wrote the record before `read`.
        written: The last offset of the changelog partition at that time.
        cut: The offset where a worker found the source's log truncated.
    """

    read: int = -1
    epoch: int = -1
    written: int = -1
    cut: int = -1


def encode(noted: CommitMetadata) -> str:
    return msgspec.json.encode(noted).decode()


def decode(metadata: str, offset: int = 0) -> CommitMetadata:
    """Read the metadata that was committed with `offset`.

    Nothing is known if something other than a worker committed it: a worker never notes that it has read less than the
    offset that it commits.
    """
    try:
        found = msgspec.json.decode(metadata, type=CommitMetadata)
    except (*UNREADABLE, ValueError):
        return CommitMetadata()
    return found if found.read >= offset else CommitMetadata()


class Found(NamedTuple):
    """What was committed for a source partition.

    Attributes:
        offset: The committed offset.
        noted: The decoded metadata.
        end: The offset where the current log ends the epoch of `noted`; -1 if unknown.
        metadata: The metadata as received.
    """

    offset: int
    noted: CommitMetadata
    end: int
    metadata: str = ""

    @property
    def foreign(self) -> bool:
        """Whether something other than a worker committed this; a worker always notes how far it has read."""
        return self.noted.read < self.offset

    @property
    def read(self) -> int:
        """The offset up to which the source was read."""
        return max(self.offset, self.noted.read)

    def cut(self) -> int:
        """Return the offset where the log was truncated below what was read; -1 if it was not."""
        if self.noted.cut >= 0:
            return self.noted.cut
        return self.end if 0 <= self.end < self.read else -1


def source_cut(topic: str, partition: int, end: int, read: int) -> LossError:
    return LossError(
        f"{topic} partition {partition}: the log was cut off at {end}, and was read up to {read}: acknowledged records are "
        f"gone, and other records have their offsets or will get them: {WHY} See --accept-loss"
    )


def source_moved(topic: str, partition: int, group: str, found: Found) -> LossError:
    return LossError(
        f"{topic} partition {partition}: offset {found.offset} of the group {group} was not committed by a worker: found the "
        f"metadata {found.metadata[:40]!r}, expected how far a worker has read. Records before it may be in no state. Stop all "
        "workers, wait for session_timeout, and delete the group's offsets of this topic (kafka-consumer-groups.sh "
        f"--delete-offsets --group {group} --topic {topic}): a worker then reads it from its beginning and skips what "
        f"states have. Or --accept-loss goes on from {found.offset}"
    )


def changelog_cut(topic: str, partition: int, end: int, written: int) -> LossError:
    return LossError(
        f"{topic} partition {partition}: the log ends at {end}, and states were written up to {written}: acknowledged records "
        f"are gone, and with them states: {WHY} See --accept-loss"
    )


def compacted_cut(topic: str, partition: int, end: int, read: int, what: str) -> LossError:
    return LossError(
        f"{topic} partition {partition}: the log was cut off at {end}, and was read up to {read}: acknowledged records are "
        f"gone, and {what} still has them: {WHY} Or the topic was recreated. The next start reads what is left"
    )


class TruncationWatch:
    """Watches one consumer for truncated logs, in the consumer's thread.

    Args:
        consumer: An AIOKafkaConsumer.
        sources: Names of the source topics.
        written: Changelog partition -> offset of our last record there.
        lose: Raises the error, or counts the records if the loss is accepted.
    """

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
        """Check every fetch, and commit metadata with each offset."""
        self._epochs.watch()
        self._consumer.commit = self._commit_with_metadata

    def forget(self) -> None:
        """Forget all partitions. Called before partitions are assigned again, because then the fetcher starts to read."""
        self._epochs.forget()

    async def _commit_with_metadata(self, offsets: Mapping[TopicPartition, OffsetAndMetadata]) -> None:
        await self._commit({tp: self._with_metadata(tp, one.offset) for tp, one in offsets.items()})
        self._offsets.update((tp, one.offset) for tp, one in offsets.items())

    async def commit(self, offsets: Mapping[Any, tuple[int, CommitMetadata]]) -> None:
        """Commit the given metadata with these offsets, instead of what is known here."""
        made = {
            TopicPartition(*tp): OffsetAndMetadata(offset, encode(noted)) for tp, (offset, noted) in offsets.items()
        }
        await self._commit(made)
        self._offsets.update((tp, one.offset) for tp, one in made.items())

    def _with_metadata(self, tp: TopicPartition, offset: int) -> OffsetAndMetadata:
        read = max(offset, self._epochs.reached(tp))
        noted = CommitMetadata(read, self._epochs.before(tp, read), self._written(tp.partition))
        return OffsetAndMetadata(offset, encode(noted))

    async def take_over(self, tps: Iterable[tuple[str, int]]) -> dict[TopicPartition, Found]:
        """Return what was committed for source partitions that are ours now. Waits for their leaders."""
        self._offsets.clear()
        partitions = [TopicPartition(*tp) for tp in tps]
        committed = await self._consumer._coordinator.fetch_committed_offsets(partitions) if partitions else {}
        known = {tp: (one.offset, decode(one.metadata, one.offset)) for tp, one in committed.items() if one.offset >= 0}
        self._offsets.update((tp, offset) for tp, (offset, _) in known.items())
        ends = await self._ends({tp: noted.epoch for tp, (_, noted) in known.items() if noted.epoch >= 0})
        found = {}
        for tp, (offset, noted) in known.items():
            found[tp] = Found(offset, noted, ends.get(tp, -1), committed[tp].metadata)
            self._epochs.keep_from(tp, offset)
            if noted.epoch >= 0 and offset and found[tp].cut() < 0:  # report a truncation only once
                self._epochs.note_committed(tp, offset - 1, noted.epoch)
        return found

    async def _ends(self, epochs: Mapping[TopicPartition, int]) -> dict[TopicPartition, int]:
        """Return the offset where the log of each partition ends the given epoch.

        Sends one request to each leader, and repeats it for partitions without an answer.
        """
        client = self._consumer._client
        ends: dict[TopicPartition, int] = {}
        while True:
            wanted: dict[int, dict[TopicPartition, int]] = {}
            for tp in epochs.keys() - ends.keys():
                leader = client.cluster.leader_for_partition(tp)
                if leader is not None and leader >= 0:
                    wanted.setdefault(leader, {})[tp] = epochs[tp]
            for found in await asyncio.gather(*(self._asked(node, some) for node, some in wanted.items())):
                ends |= found
            if len(ends) == len(epochs):
                return ends
            await client.force_metadata_update()
            await asyncio.sleep(PAUSE)

    async def _asked(self, node: int, epochs: Mapping[TopicPartition, int]) -> dict[TopicPartition, int]:
        """Return the answers of one leader. Partitions without an answer are requested again."""
        with suppress(KafkaError):
            found = await self._epochs.ends(node, epochs)
            return {tp: end for tp, end in found.items() if not isinstance(end, KafkaError)}
        return {}

    async def _on_cut(self, tp: TopicPartition, end: int, read: int) -> None:
        error = source_cut(tp.topic, tp.partition, end, read)
        try:
            self._lose(error, read - end)
        except LossError:
            await self._remember(tp, end, read)
            fatal(error)

    async def _remember(self, tp: TopicPartition, end: int, read: int) -> None:
        """Commit where the log was truncated.

        The committed offset may be before that point although states contain more, so a later owner could not notice
        it.
        """
        if (offset := self._offsets.get(tp)) is not None:
            with suppress(KafkaError, TimeoutError):
                async with asyncio.timeout(PATIENCE):
                    noted = CommitMetadata(read=read, cut=end)
                    await self._commit({tp: OffsetAndMetadata(offset, encode(noted))})
