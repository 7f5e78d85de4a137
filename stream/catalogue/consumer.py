"""Reads the compacted topics items, rules and tables: to their ends before the worker is ready, then continuously.

Each has its own consumer without a group: every worker has all of them, and nothing is committed. It starts at the
beginning each time, so records that are not acceptable are reported again after each start.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any, Final

from aiokafka import TopicPartition
from aiokafka.errors import KafkaError, OffsetOutOfRangeError

from stream.catalogue.catalogue import Catalogue, Snapshot
from stream.catalogue.tables import EpochRows, EpochTables, RefusedTable
from stream.core.denials import refusal
from stream.core.errors import BrokerError, LossError, RecordError, TopologyError
from stream.core.rules import Refused, RuleBook, RuleSet
from stream.inference.serving import step_back
from stream.kafka.clients import absent, consumer_tasks, groupless_consumer, undecided
from stream.kafka.leader_epochs import watch_epochs
from stream.kafka.truncation import compacted_cut
from stream.process.progress import Work
from stream.settings import Settings

OnRejected = Callable[[int, bytes | None, bytes | None, RecordError], None]
Record = tuple[int, bytes | None, bytes | None]
"""offset, key, value"""
OnSnapshot = Callable[[Snapshot], None]
MAX_RECORDS: Final = 500
"""Records applied at a time: encoding 100 new texts takes seconds, and small steps let the stall watch see progress."""
POLL_MS: Final = 1_000
METADATA: Final = 10.0
PAUSE: Final = 0.02
"""Seconds between two looks at how far another follower is."""
_log = logging.getLogger(__name__)


class _Cut:
    """Notes that what was built from the topic contains records that no longer exist.

    It is an object of its own: the client is full of reference cycles, and keeps what it refers to until they are collected.

    Args:
        what: What is built from the topic, in words.
    Attributes:
        error: The error to raise; None if nothing was cut off. It is not raised within a fetch of the client.
    """

    def __init__(self, what: str) -> None:
        self.error: LossError | None = None
        self._what = what

    async def note(self, tp: TopicPartition, end: int, read: int) -> None:
        """Note where the log ends that was read further."""
        self.error = compacted_cut(tp.topic, tp.partition, end, read, self._what)


class TopicFollower:
    """Applies partition 0 of a compacted topic, in its own thread, so that work on records delays nothing else.

    `start` sets `task`, which ends only on a failure or by `stop`; the owner of the follower must watch it.

    Args:
        settings: The settings.
        topic: The topic.
        name: `items`, `rules` or `tables`, for names of tasks and clients.
        what: What is built from the topic, in words.
        steps_back: Whether its thread has a low priority until `keep_up` is called.
        isolation: Which records are read: committed ones, or all.
    """

    def __init__(
        self,
        settings: Settings,
        topic: str,
        name: str,
        what: str,
        *,
        steps_back: bool = False,
        isolation: str = "read_committed",
    ) -> None:
        self.task: asyncio.Task[None] | None = None
        self._settings = settings
        self._name = name
        self._what = what
        self._place = TopicPartition(topic, 0)
        self._thread = ThreadPoolExecutor(1, name, initializer=step_back if steps_back else None)
        self._isolation = isolation
        self._consumer: Any = None
        self._applying = False
        self._end = -1  # the topic's end at the start
        self._at = -1  # the position, which also moves past offsets without a record
        self._cut = _Cut(what)

    def offset(self) -> int:
        """Return the last applied offset; -1 for none."""
        raise NotImplementedError

    def apply(self, records: Sequence[Record]) -> Callable[[], None]:
        """Apply records, in the follower's thread. Return what the event loop is to call then."""
        raise NotImplementedError

    def loaded(self) -> None:
        """Say that the topic is read to the end that it had at the start."""
        raise NotImplementedError

    def report(self) -> None:
        """Say that something new was applied."""

    def settled(self) -> bool:
        """Return whether what was applied may be used, or more of the topic must be read first."""
        return True

    async def start(self) -> None:
        """Read the topic to the end that it has now, then follow it in a task.

        Raises:
            BrokerError: No broker answers.
            TopologyError: The topic is missing or has several partitions.
            LossError: Records are deleted, or the log is truncated, while it is read.
        """
        try:
            self._consumer = groupless_consumer(self._settings, self._name, isolation_level=self._isolation)
            watch_epochs(self._consumer, [self._place.topic], self._cut.note)
            await self._consumer.start()
            self._consumer.assign([self._place])
            await self._check_topic()
            begin = (await self._consumer.beginning_offsets([self._place]))[self._place]
            self._consumer.seek(self._place, begin)
            while await self._is_behind():
                await self._take(timeout_ms=POLL_MS)
        except KafkaError as error:
            await self.stop()
            refused = refusal(error, self._place.topic, "Read")
            raise refused or BrokerError(f"{self._name} topic {self._place.topic}: {error}") from None
        except BaseException:
            await self.stop()
            raise
        self.report()
        self.loaded()
        self.task = asyncio.create_task(self._follow(), name=self._name)

    def tasks(self) -> Iterator[tuple[str, asyncio.Future[Any] | None]]:
        """Yield the tasks that must not end on their own while it follows (stream.process.supervision)."""
        yield self._name, self.task
        yield from consumer_tasks(f"the {self._name}' consumer", self._consumer)

    def work(self) -> dict[str, Work]:
        """Return what there is to do now (stream.process.progress)."""
        offset, topic = self.offset(), self._place.topic
        if self.task is None:
            away = absent(self._consumer, [self._place]) if self._consumer is not None else ""
            held = undecided(self._consumer, [topic]) if self._consumer is not None else ""
            wanted = f"{self._what}: {topic} is read up to {offset} of {self._end - 1}"
            return {self._name: Work(wanted, (offset, self._at), away, held)}
        if self._applying:
            return {self._name: Work(f"records of {topic} after {offset} to be encoded", offset)}
        return {}

    async def stop(self) -> None:
        """End the task, the consumer and the thread, without raising a failure of the task again. May be called twice."""
        if self.task is not None:
            task, self.task = (
                self.task,
                None,
            )  # its error refers to this object: nothing of it is to wait for the collector
            task.cancel()
            await asyncio.wait([task])
        if self._consumer is not None:
            consumer, self._consumer = self._consumer, None
            await consumer.stop()
        self._thread.shutdown(wait=False, cancel_futures=True)

    async def reach(self, other: TopicFollower) -> None:
        """Wait until everything is applied that another follower of the topic has applied. Raises what has ended the task."""
        while self._at < other._at:
            if self.task is not None and self.task.done():
                self.task.result()
            await asyncio.sleep(PAUSE)

    def keep_up(self) -> None:
        """Do the work from here on at the process's own priority, in another thread."""
        self._thread.shutdown(wait=False)
        self._thread = ThreadPoolExecutor(1, self._name)

    async def _check_topic(self) -> None:
        topic = self._place.topic
        partitions = await self._partitions(topic)
        if not partitions:
            raise TopologyError(f"the topic {topic} is missing; `freshet topics create` creates it")
        if partitions != {0}:
            raise TopologyError(f"the topic {topic} has {len(partitions)} partitions, expected 1")

    async def _partitions(self, topic: str) -> set[int]:
        """Return the topic's partitions once the metadata contain them; empty if they do not within METADATA seconds."""
        end = asyncio.get_running_loop().time() + METADATA
        while True:
            found = set(self._consumer.partitions_for_topic(topic) or ())
            if found or asyncio.get_running_loop().time() > end:
                return found
            await asyncio.sleep(0.05)

    async def _is_behind(self) -> bool:
        """Return whether the start has to read more: up to the end that the topic had at the start, and until it is settled."""
        self._at = await self._consumer.position(self._place)
        if self._at >= self._end and (self._end < 0 or not self.settled()):
            self._end = (await self._consumer.end_offsets([self._place]))[self._place]
        return self._at < self._end

    async def _follow(self) -> None:
        while True:
            if await self._take(timeout_ms=POLL_MS):
                self.report()

    async def _take(self, timeout_ms: int) -> bool:
        """Apply one fetch to the catalogue. Return False if it had no records."""
        try:
            batches = await self._consumer.getmany(self._place, timeout_ms=timeout_ms, max_records=MAX_RECORDS)
        except OffsetOutOfRangeError as error:
            if self._cut.error is not None:
                raise self._cut.error from None
            (offset,) = error.args[0].values()
            raise LossError(
                f"{self._place.topic}: its log no longer holds offset {offset}, up to which it was read: records were deleted, "
                "or it was recreated; the next start reads what is left"
            ) from None
        if self._cut.error is not None:  # before any record of the other log is applied
            raise self._cut.error
        records = [(record.offset, record.key, record.value) for batch in batches.values() for record in batch]
        if not records:
            self._at = await self._consumer.position(self._place)
            return False
        loop = asyncio.get_running_loop()
        self._applying = True
        try:
            tell = await loop.run_in_executor(self._thread, self.apply, records)
        finally:
            self._applying = False
        self._at = await self._consumer.position(self._place)
        tell()
        return True


class ItemsFollower(TopicFollower):
    """Applies the items topic to a catalogue.

    Args:
        settings: The settings.
        catalogue: Gets the records.
        on_rejected: Called in the event loop with offset, key, value and reason of each record that is not acceptable.
        on_snapshot: Called in the event loop after each swap.
        steps_back: As for TopicFollower.
    """

    def __init__(
        self,
        settings: Settings,
        catalogue: Catalogue,
        on_rejected: OnRejected | None = None,
        on_snapshot: OnSnapshot | None = None,
        *,
        steps_back: bool = False,
    ) -> None:
        super().__init__(settings, settings.items_topic, "items", "the catalogue", steps_back=steps_back)
        self.catalogue = catalogue
        self.on_rejected = on_rejected
        self.on_snapshot = on_snapshot

    def offset(self) -> int:
        return self.catalogue.snapshot.offset

    def apply(self, records: Sequence[Record]) -> Callable[[], None]:
        rejected = self.catalogue.apply(records)

        def tell() -> None:
            for refused in rejected:
                if self.on_rejected is not None:
                    self.on_rejected(*refused)

        return tell

    def loaded(self) -> None:
        snapshot = self.catalogue.snapshot
        _log.info(
            "catalogue loaded: %d live of %d known items, offset %d", snapshot.live, snapshot.known, snapshot.offset
        )

    def report(self) -> None:
        if self.on_snapshot is not None:
            self.on_snapshot(self.catalogue.snapshot)


class RulesFollower(TopicFollower):
    """Applies the rules topic to a book of rules.

    Args:
        settings: The settings.
        book: Gets the records.
        on_refused: Called in the event loop with each record that is not in force, once.
        on_rules: Called in the event loop after each change.
    """

    def __init__(
        self,
        settings: Settings,
        book: RuleBook,
        on_refused: Callable[[Refused], None] | None = None,
        on_rules: Callable[[RuleSet], None] | None = None,
    ) -> None:
        super().__init__(settings, settings.rules_topic, "rules", "the rules")
        self.book = book
        self._on_refused = on_refused
        self._on_rules = on_rules

    def offset(self) -> int:
        return self.book.current.offset

    def apply(self, records: Sequence[Record]) -> Callable[[], None]:
        refused = self.book.apply(records)

        def tell() -> None:
            for one in refused:
                _log.warning(
                    "rule refused: %s", one.message,
                    extra={"rule": one.rule, "offset": one.offset, "reason": one.reason, "field": one.field},
                )  # fmt: skip
                if self._on_refused is not None:
                    self._on_refused(one)

        return tell

    def loaded(self) -> None:
        current = self.book.current
        _log.info(
            "rules loaded: %d in force, %d refused, offset %d", len(current.rules), len(current.refused), current.offset
        )

    def report(self) -> None:
        if self._on_rules is not None:
            self._on_rules(self.book.current)


class TablesFollower(TopicFollower):
    """Applies the epochs of the tables topic to a catalogue, whose snapshots then have their tables.

    While it starts it uses no epoch but the last one: the topic may have rows of several.

    Args:
        settings: The settings.
        catalogue: Gets the epochs; `serve` adds others.
        on_refused: Called in the event loop with each record that is not acceptable, and each epoch that is not used.
        on_epoch: Called in the event loop after each swap.
    """

    def __init__(
        self,
        settings: Settings,
        catalogue: Catalogue,
        on_refused: Callable[[RefusedTable], None] | None = None,
        on_epoch: Callable[[EpochTables], None] | None = None,
    ) -> None:
        super().__init__(settings, settings.tables_topic, "tables", "the tables")
        self.rows = EpochRows()
        self._catalogues = [catalogue]  # replaced, never changed: another thread reads it
        self._on_refused = on_refused
        self._on_epoch = on_epoch
        self._used: EpochTables | None = None

    def offset(self) -> int:
        return self.rows.offset

    def settled(self) -> bool:
        return self.rows.whole

    def apply(self, records: Sequence[Record]) -> Callable[[], None]:
        refused = self.rows.apply(records, close=self.task is not None)
        self._use()
        return lambda: self._tell(refused)

    def loaded(self) -> None:
        self._tell(self.rows.end())
        self._use()
        current = self.rows.current
        if current is None:
            _log.info("tables loaded: no epoch, so the bundle's own are used; offset %d", self.rows.offset)
        else:
            closed = current.closed
            _log.info("tables loaded: epoch %d with %d rows, offset %d", closed.epoch, closed.rows, current.offset)
            self.report()

    def report(self) -> None:
        if self._on_epoch is not None and self._used is not None:
            self._on_epoch(self._used)

    def _use(self) -> None:
        """Have the catalogue use the newest epoch."""
        if self.rows.current is not self._used and self.rows.current is not None:
            for catalogue in self._catalogues:
                catalogue.use(self.rows.current)
            self._used = self.rows.current

    async def serve(self, catalogue: Catalogue) -> None:
        """Have another catalogue use the newest epoch, and all that come. It has it when this returns."""
        self._catalogues = [*self._catalogues, catalogue]
        await asyncio.get_running_loop().run_in_executor(self._thread, self._bring_up, catalogue)

    def leave(self, catalogue: Catalogue) -> None:
        """Bring a catalogue no more epochs."""
        self._catalogues = [one for one in self._catalogues if one is not catalogue]

    def _bring_up(self, catalogue: Catalogue) -> None:
        if self._used is not None:
            catalogue.use(self._used)

    def _tell(self, refused: Sequence[RefusedTable]) -> None:
        for one in refused:
            _log.warning(
                "tables: %s", one.message, extra={"offset": one.offset, "reason": one.reason, "field": one.field}
            )
            if self._on_refused is not None:
                self._on_refused(one)
