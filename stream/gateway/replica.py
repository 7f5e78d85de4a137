"""Follows the changelog into the replica's RocksDB, partition by partition: claims and fences respected, from where it
was left.

It has its own consumer without a group, since every replica reads all records of its partitions. Nothing is committed
to Kafka and no record is written.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any, Final

from aiokafka import TopicPartition
from aiokafka.errors import KafkaError, OffsetOutOfRangeError

from stream.core.denials import refusal
from stream.core.errors import BrokerError, LossError, TopologyError
from stream.core.fencing_log import LogRecord, log_forged
from stream.gateway.positions import Positions
from stream.gateway.replica_store import Reached, ReplicaStore
from stream.kafka.clients import absent, consumer_tasks, groupless_consumer, partition_state, undecided
from stream.kafka.leader_epochs import watch_epochs
from stream.process.progress import Work
from stream.settings import Settings

FETCH_WAIT_MS: Final = 10
"""How long the broker may hold a fetch. A partition that is read to its end is not fetched again while the broker holds
another fetch, so this limits the delay of a quiet partition."""
POLL_MS: Final = 100
CHUNK: Final = 500
"""Records written at a time, so that a long catch-up never holds up the event loop for more than some milliseconds."""
ENDS: Final = 30.0
PAUSE: Final = 0.2

log = logging.getLogger("freshet.replica")


class Replica:
    """The states of some partitions, as the changelog has them.

    `start` opens the folder, reads to the ends that the partitions have then, and goes on in `task`, which ends only on
    a failure or by `stop`; the owner must watch it.

    Args:
        settings: The settings.
        store: The partitions' RocksDB.
        partitions: The partitions to follow.
        positions: Gets what was applied.
        on_left_out: Called with the number of fenced and of forged records.
    """

    def __init__(
        self,
        settings: Settings,
        store: ReplicaStore,
        partitions: Sequence[int],
        positions: Positions,
        on_left_out: Callable[[int, int], None] = lambda fenced, forged: None,
        on_states: Callable[[Iterable[bytes]], None] = lambda records: None,
    ) -> None:
        self.partitions = tuple(partitions)
        self.task: asyncio.Task[None] | None = None
        self.loaded = False
        """Whether it has read to the ends that it found at the start."""
        self.records = 0
        """Records read since the start."""
        self._settings = settings
        self._store = store
        self._positions = positions
        self._on_left_out = on_left_out
        self._on_states = on_states
        self._topic = settings.changelog_topic
        self._topic_partitions = {partition: TopicPartition(self._topic, partition) for partition in self.partitions}
        self._offsets = dict.fromkeys(self.partitions, -1)
        self._current = dict.fromkeys(self.partitions, -1.0)  # monotonic time at which each was last at its end
        self._done = dict.fromkeys(self.partitions, -1)  # all records before these offsets are applied
        self._applying = False  # whether records were handed out that are not applied yet
        self._turned = asyncio.Event()  # set whenever `_done` has moved
        self._consumer: Any = None
        self._epochs: Any = None
        self._cut: LossError | None = None
        self._ends: dict[int, int] = {}

    def offset(self, partition: int) -> int:
        """Return the offset of the last record of a partition that was read; -1 for none."""
        return self._offsets[partition]

    def age(self, partition: int) -> float:
        """Return the seconds since it was last known that a partition was read to its end; inf if it never was."""
        if not self._applying:
            self._look_at(partition)
        since = self._current[partition]
        return time.monotonic() - since if since >= 0 else float("inf")

    def record(self, partition: int, user: bytes) -> bytes | None:
        """Return a user's state record; None for an unknown user."""
        return self._store.read(partition, user)

    def lag(self) -> dict[int, int]:
        """Return the number of records of each partition that are known and not read yet."""
        found = {}
        for partition in self.partitions:
            state = self._state(partition)
            end = _end(state) if state is not None and state.has_valid_position else None
            found[partition] = 0 if end is None else max(0, end - state.position)
        return found

    async def start(self) -> None:
        """Read the partitions to the ends that they have now, then follow them in a task.

        Raises:
            BrokerError: No broker answers.
            LossError: Records are gone while they are read.
            TopologyError: The states belong to another setting.
            DiskError, SettingsError: The folder cannot be used.
        """
        try:
            await self._open()
            while any(self._done[one] < end for one, end in self._ends.items()):
                await self._take()
        except KafkaError as error:
            raise refusal(error, self._topic, "Read") or BrokerError(f"{self._topic}: {error}") from None
        for partition in self.partitions:
            self._check_claim(partition)
        self.loaded = True
        log.info("replica loaded", extra={"partitions": len(self.partitions), "records": self.records})
        self.task = asyncio.create_task(self._follow(), name="replica")

    def tasks(self) -> Iterator[tuple[str, asyncio.Future[Any] | None]]:
        """Yield the tasks that must not end on their own."""
        yield "replica", self.task
        yield from consumer_tasks("the replica's consumer", self._consumer)

    def work(self) -> dict[str, Work]:
        """Return what there is to do now (stream.process.progress)."""
        if self._consumer is None or (self.loaded and not any(self.lag().values())):
            return {}
        away, held = absent(self._consumer, self._topic_partitions.values()), undecided(self._consumer, [self._topic])
        return {"replica": Work(f"records of {self._topic}", (self.records, self.loaded), away, held)}

    async def ends(self, partitions: Iterable[int]) -> dict[int, int]:
        """Return the offset after the last record that each partition has now."""
        found = await self._consumer.end_offsets([self._topic_partitions[partition] for partition in partitions])
        return {topic_partition.partition: end for topic_partition, end in found.items()}

    async def reach(self, partition: int, end: int) -> None:
        """Wait until all records of a partition before `end` are applied."""
        while self._done[partition] < end:
            await self._turned.wait()

    async def stop(self) -> None:
        """End the task and the consumer, and close RocksDB. May be called twice."""
        if self.task is not None:
            self.task.cancel()
            await asyncio.wait([self.task])
        if self._consumer is not None:
            consumer, self._consumer = self._consumer, None
            await consumer.stop()
        self._store.close()

    async def _open(self) -> None:
        reached = {partition: self._store.open(partition) for partition in self.partitions}
        self._consumer = groupless_consumer(self._settings, "replica", fetch_max_wait_ms=FETCH_WAIT_MS)
        self._epochs = watch_epochs(self._consumer, [self._topic], self._on_cut)
        await self._consumer.start()
        topic_partitions = list(self._topic_partitions.values())
        self._consumer.assign(topic_partitions)
        begins = await self._consumer.beginning_offsets(topic_partitions)
        ends = await self._consumer.end_offsets(topic_partitions)
        kept = await self._kept(reached)
        for partition, topic_partition in self._topic_partitions.items():
            offset = reached[partition].offset
            begin, end = begins[topic_partition], ends[topic_partition]
            if offset >= 0 and (offset + 1 > end or offset + 1 < begin or not kept[partition]):
                log.warning(
                    "the folder has what the changelog no longer has: dropped and read back",
                    extra={"partition": partition, "offset": offset},
                )
                offset = self._store.begin_again(partition).offset
            self._offsets[partition] = offset
            self._ends[partition] = end
            self._done[partition] = max(begin, offset + 1)
            self._consumer.seek(topic_partition, max(begin, offset + 1))

    async def _kept(self, reached: Mapping[int, Reached]) -> dict[int, bool]:
        """Return for each partition whether the log still has the record up to which its folder was read.

        After an unclean election it may have another record at that offset; then the epoch ends before it.
        """
        kept = dict.fromkeys(reached, True)
        wanted = {
            self._topic_partitions[one]: at.epoch for one, at in reached.items() if at.offset >= 0 and at.epoch >= 0
        }
        deadline = time.monotonic() + ENDS
        while wanted:
            by_node: dict[int, dict[TopicPartition, int]] = {}
            for topic_partition, epoch in wanted.items():
                leader = self._epochs.leader(topic_partition)
                if leader is not None:
                    by_node.setdefault(leader, {})[topic_partition] = epoch
            for node, epochs in by_node.items():
                for topic_partition, end in (await self._epochs.ends(node, epochs)).items():
                    if not isinstance(end, KafkaError):
                        kept[topic_partition.partition] = end < 0 or end > reached[topic_partition.partition].offset
                        del wanted[topic_partition]
            if wanted:
                if time.monotonic() > deadline:
                    raise BrokerError(f"{self._topic}: no leader has answered for {len(wanted)} partitions")
                await self._epochs.refresh()
                await asyncio.sleep(PAUSE)
        return kept

    async def _follow(self) -> None:
        while True:
            await self._take()

    async def _take(self) -> None:
        """Apply one fetch."""
        try:
            batches: Mapping[TopicPartition, list[LogRecord]] = await self._consumer.getmany(timeout_ms=POLL_MS)
        except OffsetOutOfRangeError as error:
            (topic_partition, offset), *_ = error.args[0].items()
            self._store.mark_damaged(topic_partition.partition)
            raise self._cut or LossError(
                f"{self._topic} partition {topic_partition.partition}: its log no longer holds offset {offset}, up to which it "
                "was read: records were deleted, or it was recreated; the next start reads what is left"
            ) from None
        if self._cut is not None:
            raise self._cut
        self._applying = True
        for topic_partition, records in batches.items():
            for first in range(0, len(records), CHUNK):
                self._apply(topic_partition.partition, records[first : first + CHUNK])
                await asyncio.sleep(0)
        self._applying = False
        for partition in self.partitions:
            self._look_at(partition)
        self._turned.set()
        self._turned = asyncio.Event()

    def _apply(self, partition: int, records: Sequence[LogRecord]) -> None:
        last = records[-1].offset
        before = self._store.claim(partition)
        sifted = self._store.apply(partition, records, self._epochs.before(self._topic_partitions[partition], last + 1))
        self._offsets[partition] = last
        self.records += len(records)
        if sifted.fenced or sifted.forged:
            self._on_left_out(len(sifted.fenced), len(sifted.forged))
            for forged in sifted.forged:
                log_forged(partition, forged)
        if self.loaded and sifted.claim is not before:
            self._check_claim(partition)
        if self.loaded:
            self._on_states(record for _, record in sifted.states if record is not None)
        self._positions.applied(user for user, _ in sifted.states)

    def _look_at(self, partition: int) -> None:
        """Note how far a partition is read, and whether to its end as of the broker's last answer."""
        state = self._state(partition)
        if state is None or not state.has_valid_position:
            return
        self._done[partition] = state.position
        end = _end(state)
        if end is not None and state.timestamp is not None and state.position >= end:
            asked = time.monotonic() - max(0.0, time.time() - state.timestamp / 1000)
            self._current[partition] = max(self._current[partition], asked)

    def _state(self, partition: int) -> Any:
        """Return the consumer's state of a partition; None while there is none."""
        return partition_state(self._consumer, self._topic_partitions[partition]) if self._consumer else None

    def _check_claim(self, partition: int) -> None:
        """Raise TopologyError if the states were folded under other settings, so that users are elsewhere."""
        claim, settings = self._store.claim(partition), self._settings
        if claim.topics and claim.topics.keys() != set(settings.sources):
            raise TopologyError(
                f"app_id, prefix: partition {partition} of {self._topic} holds states of {', '.join(sorted(claim.topics))}, and "
                f"these settings name {', '.join(settings.sources)}: give the settings of the workers"
            )
        if claim.partitions not in (0, settings.partitions):
            raise TopologyError(
                f"the topics have {settings.partitions} partitions, and had {claim.partitions} when the states were folded"
            )
        if claim.form not in ("", settings.key):
            raise TopologyError(
                f'key: found "{settings.key}", expected "{claim.key}", the form of the users\' keys in partition {partition} of '
                f"{self._topic}: set FRESHET_KEY={claim.key}"
            )

    async def _on_cut(self, topic_partition: TopicPartition, end: int, read: int) -> None:
        """Note that the replica has states whose records no longer exist. `_take` raises the error."""
        self._store.mark_damaged(topic_partition.partition)
        self._cut = LossError(
            f"{topic_partition.topic} partition {topic_partition.partition}: the log was cut off at {end}, and was read up to "
            f"{read}: the next start reads it back"
        )


def _end(state: Any) -> int | None:
    """Return the offset up to which committed records are known to exist, exclusive; None if no fetch was answered."""
    ends = [end for end in (state.highwater, state.lso) if end is not None and end >= 0]
    return min(ends) if ends else None
