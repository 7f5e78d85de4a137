"""The consumer: it hands over source topics as micro-batches of raw records, and all other topics as Faust does.

It is Faust's consumer, so Faust calls it; its parts do the work, each in a module of its own:

    source_thread     fetches, commits and sends heartbeats, in a thread
    source_fetcher    one fetch after another becomes micro-batches
    hand_over         micro-batches on their way to the pipeline
    source_positions  how far each source partition is
    read_back         changelog records go to RocksDB
    start_offsets     where source partitions begin, and which committed offsets are refused
    pending_work      what there is to do, for the stall watch
"""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import AsyncIterator, Callable, Iterable, Iterator, Mapping, Set
from contextlib import contextmanager, suppress
from typing import Any

from aiokafka.errors import (
    CommitFailedError,
    IllegalStateError,
    NoOffsetForPartitionError,
    OffsetOutOfRangeError,
)
from faust.transport.drivers import aiokafka as driver
from faust.types import TP
from mode import Service

from stream.core.errors import FreshetError, LeaseError, SettingsError, TopologyError
from stream.kafka.batch import MicroBatch
from stream.kafka.broker_offsets import BrokerOffsets
from stream.kafka.clients import consumer_tasks
from stream.kafka.group_state import GroupState
from stream.kafka.hand_over import HandOver
from stream.kafka.pending_work import PendingWork
from stream.kafka.read_back import ReadBack
from stream.kafka.source_fetcher import SourceFetcher
from stream.kafka.source_positions import SourcePositions
from stream.kafka.source_thread import SourceThread
from stream.kafka.start_offsets import StartOffsets
from stream.process.fatal import fatal
from stream.process.progress import Work
from stream.process.supervision import Task

SETTLE = 1.0  # seconds that a rebalance waits for what the pipeline holds back
LAST_COMMIT = 5.0  # seconds for the commit of a rebalance that begins while the worker stops


class SourceConsumer(driver.Consumer):
    """Hands micro-batches of the source topics to the app's channel and commits what the pipeline has finished.

    The pipeline calls `take` before a micro-batch, and `finish` after it with the offsets that are now safe to commit.

    Raises:
        SettingsError: The app has no listener: no worker has built its parts.
    """

    def __init__(self, *arguments: Any, **named: Any) -> None:
        super().__init__(*arguments, **named)
        app, settings, thread = self.app, self.app.settings, self._thread
        if app.listener is None:
            raise SettingsError("no models are loaded: start the worker with `freshet worker`")
        self.sources: frozenset[str] = app.source_topics
        # seconds for what Faust waits for: less than its own limit, whose error does not name the cause
        self._limit = 0.8 * app.conf.broker_request_timeout
        # seconds to look up the logs of assigned partitions: aiokafka sends no heartbeat meanwhile
        self._assign_limit = min(self._limit, 0.5 * settings.session_timeout)
        self._drainer: asyncio.Task[Any] | None = None  # Faust's task for the topics that are not source topics
        self.group = GroupState()
        self.positions = SourcePositions()
        self.hand_over = HandOver(self.group, app.micro_batches.put)
        self._broker = BrokerOffsets(thread, app.changelog, app.listener.held_up, self._limit)
        self.read_back = ReadBack(
            thread, self.group, self._broker, app.listener, app.losses, lambda: app.tables.recovery
        )
        self.starts = StartOffsets(
            thread, self._broker, app.listener, app.losses, read=self._read_offset, committed=self._committed_offset,
            group_id=app.conf.id, changelog=app.changelog,
        )  # fmt: skip
        self._fetcher = SourceFetcher(
            self, thread, self.group, self.positions, self.hand_over, self._broker, app.losses,
            limit=settings.micro_batch, linger=settings.linger_ms / 1000,
        )  # fmt: skip
        self._pending_work = PendingWork(
            app,
            thread,
            self.group,
            self.positions,
            self.hand_over,
            self.read_back,
            app.listener,
            self._committed_offset,
        )

    def _new_consumer_thread(self) -> SourceThread:
        return SourceThread(self, loop=self.loop, beacon=self.beacon)

    # fetching

    def flows(self) -> bool:
        app = self.app
        return bool(
            self.flow_active
            and self.group.claimed == self.group.epoch
            and app.tables.actives_ready
            and not app.rebalancing
            and not self.group.stopping
            and not self.should_stop
            and not app.should_stop
        )

    def active_partitions(self) -> set[TP]:
        active: set[TP] = self._get_active_partitions()
        return active

    def note_inbound(self, tp: TP) -> None:
        self.app.monitor.stream_inbound_time[tp] = time.monotonic()  # keeps Faust's livelock detector quiet

    async def _getmany(self, active_partitions: set[TP] | None, timeout: float) -> Any:
        others = {tp for tp in active_partitions or () if tp.topic not in self.sources}
        if not others:  # aiokafka takes an empty set for all partitions
            await self.sleep(min(timeout, 0.1))
            return {}
        epoch = self.group.epoch
        try:
            records = await super()._getmany(others, timeout)
        except NoOffsetForPartitionError:  # recovery has not set a start position yet
            return {}
        except OffsetOutOfRangeError as error:
            if epoch == self.group.epoch:
                await self.read_back.seek_into_log(error.args[0])
            return {}
        if epoch != self.group.epoch or not self.flow_active:
            await self.read_back.seek_back(records)
            return {}
        return self.read_back.write(records, others)

    @Service.task
    async def _source_fetcher(self) -> None:
        try:
            while not self.should_stop:
                if self.flows():
                    await self._fetcher.fetch_once()
                else:
                    await self.sleep(0.02)
        except asyncio.CancelledError:
            raise
        except BaseException as error:
            fatal(error)

    @Service.task
    async def _lease_watch(self) -> None:
        while not self.should_stop:
            self._guard()
            await self.sleep(0.5)

    def _guard(self) -> None:
        try:
            self.app.lease.check()
        except LeaseError as error:
            fatal(error)

    # the pipeline's side

    def take(self, batch: MicroBatch) -> bool:
        """Claim a micro-batch. Return False if its partitions have been revoked since."""
        self.hand_over.receive(batch)
        self._guard()
        return self.hand_over.begin(batch)

    def is_current(self, batch: MicroBatch) -> bool:
        """Return whether the partitions of a micro-batch are still ours."""
        return batch.epoch == self.group.epoch

    def finish(self, safe: Mapping[TP, int], hold: Set[TP]) -> None:
        """Note that the micro-batch is durable.

        Args:
            safe: Offset to commit per topic-partition.
            hold: Topic-partitions that must not be fetched for now.
        """
        self.positions.safe.update(safe)
        self.hand_over.finish(hold)

    def committed(self, topic: str, partition: int) -> int:
        """Return the group's committed offset of a source partition, as far as this worker knows; 0 for none."""
        return self._committed_offset[TP(topic, partition)] or 0

    def wake(self) -> None:
        """Call the pipeline although no record has arrived: something that it held back is ready."""
        self.hand_over.wake()

    def waits(self) -> bool:
        """Return whether the next micro-batch waits for the pipeline."""
        return self.hand_over.pending is not None

    # the worker's side

    def hold(self) -> None:
        """Stop handing over records, because the worker is about to stop."""
        self.group.stopping = True

    def lag(self) -> dict[TP, int]:
        """Return how many readable records of each source partition are not finished, as far as the broker reported."""
        return self.positions.lag(self._thread.stable_end)

    def undecided(self) -> dict[str, int]:
        """Return, by source topic, how many records are unreadable until an open transaction ends."""
        return self.positions.undecided(self.sources, self._thread.stable_end, self.highwater)

    def tasks(self) -> Iterator[tuple[str, Task | None]]:
        """Yield aiokafka's tasks for this consumer; the values are None before it has started."""
        yield from consumer_tasks("the worker's consumer", self._thread.client())

    def work(self, recovered: bool) -> dict[str, Work]:
        """Return what this worker has to do now; `recovered` says whether its states are read back."""
        return self._pending_work.all(recovered)

    def thread(self) -> threading.Thread | None:
        """Return the consumer's thread; None before it has started."""
        thread: threading.Thread | None = self._thread._thread
        return thread

    def thread_loop(self) -> asyncio.AbstractEventLoop:
        """Return the loop of the consumer's thread."""
        loop: asyncio.AbstractEventLoop = self._thread.thread_loop
        return loop

    def turn(self, beat: Callable[[], None]) -> None:
        """Make the loop of the consumer's thread call `beat`."""
        with suppress(RuntimeError):  # the loop is closed; the thread reports the cause when it ends
            self.thread_loop().call_soon_threadsafe(beat)

    def check_topology(self) -> None:
        """Raise TopologyError if partitions were added to a source topic."""
        consumer = self._thread.client()
        for topic in self.sources:
            known = len(consumer.partitions_for_topic(topic) or ())
            if known > self.app.settings.partitions:
                self._refuse_added([TP(topic, known - 1)])

    def _refuse_added(self, assigned: Iterable[TP]) -> None:
        count = self.app.settings.partitions
        added = sorted(tp for tp in assigned if tp.partition >= count)
        if added:
            raise TopologyError(
                f"{added[0].topic} has partition {added[0].partition}, expected {count} partitions: partitions that are "
                "added later separate users from their states"
            )

    # rebalance and shutdown

    async def settle(self, seconds: float) -> bool:
        """Stop fetching and wait until what was handed over is finished.

        Returns:
            False if something is still held back. It is read again later, together with everything after it, and each
            of those users gets one more slate.
        """
        end = time.monotonic() + seconds
        await self.hand_over.settle(end)
        return bool(await self.app.listener.drained(max(0.0, end - time.monotonic())))

    async def quiesce(self) -> None:
        """Accept no new micro-batch from here on, and wait for the current one."""
        self.group.epoch += 1
        self.hand_over.drop()
        self._fetcher.cancel()
        await self.hand_over.wait_idle()
        self.app.listener.on_revoked()

    @contextmanager
    def _fatal_errors(self) -> Iterator[None]:
        """End the process if a callback of the group raises: aiokafka would log the error and go on without partitions."""
        epoch = self.group.epoch
        try:
            yield
        except IllegalStateError as error:
            if epoch == self.group.epoch and not self.group.stopping:
                fatal(error)
            raise  # a rebalance has overtaken us
        except self.consumer_stopped_errors:
            raise
        except Exception as error:
            if self.group.stopping and not isinstance(error, FreshetError):
                raise
            fatal(error)

    async def on_partitions_revoked(self, revoked: set[TP]) -> None:
        with self._fatal_errors():
            self._guard()  # if we were evicted while stopped, our partitions may already belong to another worker
            await self.settle(SETTLE)
            await self.quiesce()
            # Faust forgets what is finished before it would commit it. A stopped thread does not answer calls. In that
            # case, what is not committed is read again.
            with suppress(TimeoutError):
                async with asyncio.timeout(LAST_COMMIT if self.group.stopping else None):
                    await self.commit_finished()
            self.group.joined = False
            await super().on_partitions_revoked(revoked)
            self._thread.truncations.forget()
            self.app.lease.release()
            self.positions.forget()
            self.read_back.forget()
            self._thread.passed.forget()

    async def on_partitions_assigned(self, assigned: set[TP], generation_id: int = 0) -> None:
        if self.group.stopping:
            return  # start nothing more: the thread that would answer may have stopped, and the stop waits for us
        self.group.assigning = True
        self.group.epoch += 1  # a running takeover of the previous assignment does not count for this one
        self.app.lease.grant()
        self.read_back.begin()
        with self._fatal_errors():
            self._refuse_added(assigned)
            await self.read_back.prepare({tp for tp in assigned if tp.topic not in self.sources}, self._assign_limit)
            await super().on_partitions_assigned(assigned, generation_id)
        self.group.joined = True
        self.group.rebalances += 1
        self.group.assigning = False
        self.hand_over.notify()

    async def getmany(self, timeout: float) -> AsyncIterator[tuple[TP, Any]]:
        self._drainer = asyncio.current_task()
        async for found in super().getmany(timeout):
            yield found

    async def perform_seek(self) -> None:
        """Take over the source partitions if recovery calls this, after it has read their states back.

        Faust's fetcher calls this, too, when a rebalance stops the flow. Then nothing is read back yet, and the
        partitions that it knows as assigned may already belong to another worker, so nothing may be claimed.
        """
        drains = asyncio.current_task() is self._drainer or self.group.stopping
        if drains:
            await super().perform_seek()
            return
        sources: list[TP] = []
        epoch = self.group.epoch
        try:
            async with self._broker.limited(self._limit, sources):
                await super().perform_seek()
                if self.group.stopping:
                    return
                epoch = self.group.epoch
                sources += [tp for tp in self.assignment() if tp.topic in self.sources]
                starts = await self.starts.begin(sources)
                await self.app.listener.claim({tp.partition for tp in sources})
        except FreshetError as error:
            if epoch == self.group.epoch:
                fatal(error)
            return  # a rebalance has come in between and closed the partitions that we were about to read
        except CommitFailedError:
            return  # a rebalance has begun: its assignment begins again
        except IllegalStateError:
            if epoch == self.group.epoch:
                raise
            return  # a rebalance has overtaken us
        if epoch != self.group.epoch:
            return
        self.positions.begin(starts)
        # Faust may report a recovery as complete that a rebalance interrupted; what is fetched then has no owner yet
        self.group.claimed = epoch

    async def earliest_offsets(self, *partitions: TP) -> Mapping[TP, int]:
        return await self._broker.starts(*partitions)

    async def highwaters(self, *partitions: TP) -> Mapping[TP, int]:
        return await self._broker.ends(*partitions)

    # commits

    async def commit_finished(self) -> None:
        """Commit everything that is finished by now.

        Faust's `commit` joins a running commit, which does not include what was finished after it began.
        """
        while await self.maybe_wait_for_commit_to_finish():
            pass
        await self.commit()

    async def wait_empty(self) -> None:
        await self.quiesce()
        await self.commit_finished()
        await super().wait_empty()

    async def force_commit(self, topics: Any = None, start_new_transaction: bool = True) -> bool:
        done = bool(await super().force_commit(topics, start_new_transaction))
        if done:
            self.app.listener.on_committed()
        return done

    def _filter_committable_offsets(self, tps: Iterable[TP]) -> dict[TP, int]:
        offsets: dict[TP, int] = super()._filter_committable_offsets(tps)
        finished = {tp: self.positions.finished(tp) for tp in self.positions.safe}
        return offsets | {tp: offset for tp, offset in finished.items() if self._should_commit(tp, offset)}
