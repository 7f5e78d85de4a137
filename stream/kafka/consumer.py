"""The consumer: it hands over source topics as micro-batches of raw records, and all other topics as Faust does."""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Collection, Iterable, Iterator, Mapping, Sequence, Set
from contextlib import asynccontextmanager, contextmanager, suppress
from dataclasses import dataclass
from typing import Any

from aiokafka.errors import (
    CommitFailedError,
    IllegalStateError,
    KafkaError,
    KafkaTimeoutError,
    NoOffsetForPartitionError,
    OffsetOutOfRangeError,
)
from faust.transport.drivers import aiokafka as driver
from faust.types import TP
from mode import Service
from msgspec.structs import replace

from stream.core.errors import BrokerError, FreshetError, LeaseError, LossError, TopologyError
from stream.core.fencing_log import LeftOut
from stream.kafka.batch import MicroBatch, Record
from stream.kafka.broker_clock import steady
from stream.kafka.clients import METADATA_MS, absent, consumer_tasks, positions, reached, undecided, unread
from stream.kafka.group_join import Joining
from stream.kafka.offset_gaps import Passed
from stream.kafka.state_store import apply_changelog
from stream.kafka.truncation import Beside, Cuts, changelog_cut, source_cut, source_moved
from stream.process.fatal import fatal
from stream.process.progress import Work
from stream.process.stopping import stopping
from stream.process.supervision import Task, guard_loop

FETCH_WAIT_MS = 50
"""How long the broker may hold a fetch. A partition that is read to its end is not fetched again while the broker holds
another fetch, so this limits the latency of a quiet topic-partition. Faust's built-in value is 1,500."""

POLL = 0.5  # seconds that one fetch waits
POLL_HELD = 0.05  # the same while some partitions are held: they must not wait for the fetch once they may go on
ENOUGH = 64  # records that are handed over without lingering
QUIESCE = 20.0  # seconds in which the current micro-batch must end at a rebalance
SETTLE = 1.0  # seconds that a rebalance waits for what the pipeline holds back
LAST_COMMIT = 5.0  # seconds for the commit of a rebalance that begins while the worker stops


@dataclass
class ReadBack:
    """Changelog records read into RocksDB since the last assignment.

    Attributes:
        records: Number of records.
        seconds: Time from the first record to the last.
    """

    records: int = 0
    seconds: float = 0.0
    _first: float = 0.0

    def add(self, records: int, began: float, ended: float) -> None:
        if not self.records:
            self._first = began
        self.records += records
        self.seconds = ended - self._first


@dataclass(frozen=True)
class Fetched:
    """The result of one fetch.

    Attributes:
        records: Records by partition.
        before: The position in each requested partition before the fetch.
        after: The position in each requested partition after the fetch.
    """

    records: Mapping[Any, list[Record]]
    before: Mapping[TP, int]
    after: Mapping[TP, int]


async def _nothing(partitions: Iterable[int]) -> None:
    pass


async def _held_back(seconds: float) -> bool:
    return True


class SourceThread(driver.AIOKafkaConsumerThread):
    """Faust's consumer thread. It notes good heartbeats, keeps its place in the group, and reads only committed records."""

    async def on_start(self) -> None:
        guard_loop(self.thread_loop, lambda: stopping.asked)
        self.joining = Joining(self.app.settings.session_timeout, lambda: stopping.asked)
        await super().on_start()
        self.consumer.passed.watch(self._consumer._fetcher)
        coordinator = self._consumer._coordinator
        membership = self.app.membership
        membership.watch(coordinator)
        self.joining.watch(coordinator)
        await membership.leave_former(coordinator)
        beat = coordinator._do_heartbeat
        lease = self.app.lease

        async def noted() -> bool:
            asked = steady()
            lease.answered = False
            good = bool(await beat())
            lease.answered = good or coordinator.coordinator_id is not None
            if good and lease.age:  # age 0: nothing is assigned
                lease.grant(asked)
            return good

        coordinator._do_heartbeat = noted

    async def crash(self, reason: BaseException) -> None:
        """End the process, for example if the broker refuses a commit.

        Faust would only stop this thread and leave a worker that does nothing.
        """
        fatal(reason)

    async def fetch(self, tps: set[TP], timeout: float, room: int) -> Fetched:
        """Fetch records of these partitions.

        Raises:
            IllegalStateError: A partition is no longer assigned.
            OffsetOutOfRangeError: A partition has neither a record nor its end at the position.
        """
        consumer = self._ensure_consumer()
        before = {tp: await consumer.position(tp) for tp in tps}
        records = await self._fetch_records(consumer, tps, timeout=timeout, max_records=room)
        waiting = consumer._fetcher._records  # read in this order; a partition that is partly read would stay in front
        for tp in [tp for tp in records if tp in waiting]:
            waiting.move_to_end(tp)
        return Fetched(records, before, {tp: await consumer.position(tp) for tp in tps})

    def _create_worker_consumer(self, transport: Any) -> Any:
        consumer = super()._create_worker_consumer(transport)
        consumer._fetch_max_wait_ms = FETCH_WAIT_MS
        consumer._isolation_level = "read_committed"
        consumer._client._metadata_max_age_ms = METADATA_MS
        self.cuts = self.consumer.cuts(consumer)
        self.cuts.watch()
        return consumer


class SourceConsumer(driver.Consumer):
    """Hands micro-batches of the source topics to the app's channel and commits what the pipeline has finished.

    The pipeline calls `take` before a micro-batch, and `finish` after it with the offsets that are now safe to commit.
    """

    finished = 0  # micro-batches
    _limit = 24.0  # seconds for what Faust waits for: less than its own limit, whose error does not name the cause
    _assign_limit = 5.0  # seconds to look up the logs of assigned partitions: aiokafka sends no heartbeat meanwhile
    _pause = 0.5  # seconds before the next request to the broker

    def __init__(self, *arguments: Any, **named: Any) -> None:
        super().__init__(*arguments, **named)
        self.sources: frozenset[str] = self.app.source_topics
        self._limit = 0.8 * self.app.conf.broker_request_timeout
        self._assign_limit = min(self._limit, 0.5 * self.app.settings.session_timeout)
        self.epoch = 0
        self.joined = False  # the group has assigned us partitions, perhaps none
        self.rebalances = 0  # how often it has done so
        self.prepare: Callable[[int], int] = lambda partition: -1
        """Open a partition of the table before it is recovered; return the offset up to which it is already read back."""
        self.drop: Callable[[int], None] = lambda partition: None
        """Delete the stored data of a partition of the table."""
        self.take_over: Callable[[Iterable[int]], Awaitable[None]] = _nothing
        """Claim recovered partitions of the table, before their first micro-batch."""
        self.written: Callable[[int], int] = lambda partition: -1
        """Return the offset of our last record in a partition of the changelog, -1 if we have written none."""
        self.claimed: Callable[[int], bool] = lambda partition: False
        """Return whether a worker has claimed a partition of the changelog, as far as it is read back."""
        self.drained: Callable[[float], Awaitable[bool]] = _held_back
        """Wait until the pipeline holds nothing back, for at most this many seconds."""
        self.calls: Callable[[], int] = lambda: 0
        """Return how many model calls have ended plus how many extra records were read. A micro-batch may need many."""
        self.held_up: Callable[[], str] = lambda: ""
        """Return what keeps a takeover or a micro-batch from reading the changelog, in words; "" if nothing does."""
        self.on_revoked: Callable[[], None] = lambda: None
        self.on_commit: Callable[[], None] = lambda: None
        self.on_left_out: Callable[[LeftOut], None] = lambda records: None
        self.on_accepted_loss: Callable[[int], None] = lambda records: None
        self._max = self.app.settings.micro_batch
        self._linger = self.app.settings.linger_ms / 1000
        self.passed = Passed(self.sources)
        self._next: dict[TP, int] = {}  # next source offset that we expect
        self._handed: dict[TP, int] = {}  # offset after the last record handed over; at first our start offset
        self._safe: dict[TP, int] = {}  # everything below is finished
        self._have: dict[TP, int] = {}  # the last offset of each changelog partition that is in RocksDB
        self.lay: Mapping[TP, range] = {}
        """By source partition, the offsets that were there when this assignment began. A worker may have read them
        before. Partitions that no worker has owned are left out."""
        self._pending: MicroBatch | None = None  # in the channel, not yet taken
        self._running: MicroBatch | None = None  # the pipeline is processing it
        self._held: Set[TP] = frozenset()  # the pipeline wants no more of their records for now
        self._stopping = False
        self._assigning = False
        self._claimed = -1  # the epoch whose partitions have been taken over
        self._waking: asyncio.Future[Any] | None = None  # kept, since the loop holds tasks weakly
        self._fetch: asyncio.Future[Any] | None = None
        self._drainer: asyncio.Task[Any] | None = None  # Faust's task for the topics that are not source topics
        self._changed = asyncio.Event()
        self.recovered = 0  # changelog records read into RocksDB
        self.read_back = ReadBack()

    def _new_consumer_thread(self) -> SourceThread:
        return SourceThread(self, loop=self.loop, beacon=self.beacon)

    # fetching

    def _open(self) -> bool:
        app = self.app
        return bool(
            self.flow_active
            and self._claimed == self.epoch
            and app.tables.actives_ready
            and not app.rebalancing
            and not self._stopping
            and not self.should_stop
            and not app.should_stop
        )

    async def _getmany(self, active_partitions: set[TP] | None, timeout: float) -> Any:
        others = {tp for tp in active_partitions or () if tp.topic not in self.sources}
        if not others:  # aiokafka takes an empty set for all partitions
            await self.sleep(min(timeout, 0.1))
            return {}
        epoch = self.epoch
        try:
            records = await super()._getmany(others, timeout)
        except NoOffsetForPartitionError:  # recovery has not set a start position yet
            return {}
        except OffsetOutOfRangeError as error:
            if epoch == self.epoch:
                await self._beyond_changelog(error.args[0])
            return {}
        if epoch != self.epoch or not self.flow_active:
            await self._read_again(records)
            return {}
        began = time.monotonic()
        try:
            left, count, left_out = apply_changelog(self.app.tables.recovery, records)
        except Exception as error:
            fatal(error)  # Faust would log it and go on with a hole in the state
        self._have.update((TP(*tp), found[-1].offset) for tp, found in records.items() if found)
        self.recovered += count
        if count:
            self.read_back.add(count, began, time.monotonic())
        if any(left_out):
            self.on_left_out(left_out)
        self._pass_over(others)
        return left

    def _pass_over(self, changelogs: Iterable[TP]) -> None:
        """Count skipped offsets at the end as read.

        Faust ends a recovery with the last record. If a transaction's marker or its aborted records come after that, no
        further record arrives.
        """
        recovery = self.app.tables.recovery
        for place, position in positions(self._client(), {tp.topic for tp in changelogs}).items():
            tp = TP(*place)
            known = recovery.active_offsets.get(tp)
            if tp in recovery.active_tps and (known is None or known < position - 1):
                recovery.active_offsets[tp] = position - 1

    async def _read_again(self, changelogs: Iterable[Any]) -> None:
        """Seek back to what RocksDB does not have yet, after a rebalance has interrupted a fetch.

        The records of that fetch are dropped, and the new recovery may have sought before the fetch took them.
        """
        wanted = {TP(*tp): self._have[TP(*tp)] + 1 for tp in changelogs if TP(*tp) in self._have}
        if wanted and not self._stopping:
            with suppress(IllegalStateError):  # revoked meanwhile; the next owner seeks
                await self.seek_wait(wanted)

    @Service.task
    async def _source_fetcher(self) -> None:
        try:
            while not self.should_stop:
                if self._open():
                    await self._fetch_once()
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

    async def _fetch_once(self) -> None:
        epoch, pending = self.epoch, self._pending
        lingering = pending is not None and not pending.sent
        if pending is not None and pending.size >= self._max and not lingering:
            await self._wait_changed()
            return
        active = self._get_active_partitions() & self._next.keys()
        tps = active - self._held
        if not tps:
            if pending is not None and lingering:
                await self._send(pending)  # nothing more will join it, and `wake` relies on it being sent
            elif active:
                await self._wait_changed()
            else:
                await self.sleep(0.02)
            return
        room = max(1, self._max - (pending.size if pending else 0))
        fetched = await self._read(tps, 0.0 if lingering else POLL_HELD if self._held else POLL, room)
        if fetched is not None and epoch == self.epoch and self._open():  # else: read again after the next seek
            await self._hand_over(fetched)

    async def _read(self, tps: set[TP], timeout: float, room: int) -> Fetched | None:
        """Run one fetch in the consumer's thread. None: it was cancelled, or the partitions or records are gone."""
        thread = self._thread
        # not call_thread(): it has two workers, and a long poll in one of them would block commits
        fetch = thread.fetch(tps, timeout, room)
        epoch = self.epoch
        future = self._fetch = asyncio.wrap_future(asyncio.run_coroutine_threadsafe(fetch, thread.thread_loop))
        try:
            fetched: Fetched = await future
            return fetched
        except OffsetOutOfRangeError as error:
            if epoch == self.epoch:
                await self._beyond_source(error.args[0])
            return None
        except NoOffsetForPartitionError:  # raised before we sought; we begin at the offset from `_begin`
            return None
        except IllegalStateError:  # revoked meanwhile
            return None
        except asyncio.CancelledError:
            if epoch != self.epoch:
                return None  # quiesce() cancelled the fetch, not us
            raise
        except self.consumer_stopped_errors:
            return None
        finally:
            self._fetch = None

    async def _hand_over(self, fetched: Fetched) -> None:
        back: dict[TP, int] = {}
        now = time.monotonic()
        fresh = self._pending is None  # the last one may have been taken meanwhile
        pending = self._pending or MicroBatch(self.epoch)
        for tp, end in fetched.after.items():
            wanted = self._next[tp]
            if fetched.before[tp] > wanted:  # the records of an earlier fetch were not handed over
                back[tp] = wanted
            elif end > wanted:
                found = fetched.records.get(tp, [])
                kept = found if fetched.before[tp] == wanted else [one for one in found if one.offset >= wanted]
                self._explain(tp, wanted, end, kept)
                self._next[tp] = end
                if kept:
                    pending.add(tp, kept)
                    self._handed[tp] = kept[-1].offset + 1
                    self.app.monitor.stream_inbound_time[tp] = now  # keeps Faust's livelock detector quiet
        if pending.size and not pending.sent:
            self._pending = pending
            if self._linger and fresh and pending.size < ENOUGH:
                await asyncio.sleep(self._linger)
            else:
                await self._send(pending)
        if back and pending.epoch == self.epoch:
            await self.seek_wait(back)

    def _explain(self, tp: TP, first: int, end: int, found: Sequence[Record]) -> None:
        """Raise LossError if an offset from `first` to before `end` is neither found nor validly skipped."""
        if end - first == len(found):
            return
        holes = self.passed.missing(tp, first, end, [record.offset for record in found])
        if not holes:
            return
        count = sum(map(len, holes))
        which = f"{holes[0].start} to {holes[-1].stop - 1}" + (f", {count} of them," if len(holes) > 1 else "")
        self.lose(
            LossError(
                f"{tp.topic} partition {tp.partition}: source records {which} are gone, but others around them are not: "
                "was the topic compacted? See --accept-loss"
            ),
            count,
        )

    async def _send(self, pending: MicroBatch) -> None:
        pending.sent = True
        await self.app.micro_batches.put(pending)

    async def _wait_changed(self) -> None:
        self._changed.clear()
        with suppress(TimeoutError):
            async with asyncio.timeout(1.0):
                await self._changed.wait()

    # the pipeline's side

    def take(self, batch: MicroBatch) -> bool:
        """Claim a micro-batch. Return False if its partitions have been revoked since."""
        if self._pending is batch:
            self._pending = None
        self._changed.set()
        self._guard()
        if batch.epoch != self.epoch:
            return False
        self._running = batch
        return True

    def finish(self, safe: Mapping[TP, int], hold: Set[TP]) -> None:
        """Note that the micro-batch is durable.

        Args:
            safe: Offset to commit per topic-partition.
            hold: Topic-partitions that must not be fetched for now.
        """
        self._safe.update(safe)
        self._running = None
        self._held = hold
        self.finished += 1
        self._changed.set()

    def hold(self) -> None:
        """Stop handing over records, because the worker is about to stop."""
        self._stopping = True

    def wake(self) -> None:
        """Call the pipeline although no record has arrived: something that it held back is ready."""
        if self._pending is None:  # else the next micro-batch is on its way
            self._pending = batch = MicroBatch(self.epoch)
            batch.sent = True
            self._waking = asyncio.ensure_future(self.app.micro_batches.put(batch))

    def lag(self) -> dict[TP, int]:
        """Return how many readable records of each source partition are not finished, as far as the broker reported."""
        return {tp: max(0, (self._stable(tp) or 0) - self._finished(tp)) for tp in self._safe}

    def undecided(self) -> dict[str, int]:
        """Return, by source topic, how many records are unreadable until an open transaction ends.

        These are its own records and all records after its first one.
        """
        found = dict.fromkeys(self.sources, 0)
        for tp in self._safe:
            stable = self._stable(tp)
            if stable is not None:
                found[tp.topic] += max(0, (self.highwater(tp) or 0) - stable)
        return found

    def _stable(self, tp: TP) -> int | None:
        """Return the end of the readable records. An open transaction and everything after its first record come later."""
        stable: int | None = self._thread._ensure_consumer().last_stable_offset(tp)
        return stable

    def _finished(self, tp: TP) -> int:
        """Return the offset below which everything is finished.

        If all records that were handed over are finished, the markers after them are finished, too.
        """
        safe = self._safe[tp]
        return self._next[tp] if safe >= self._handed[tp] else safe

    # what must make progress (stream.process.supervision, stream.process.progress)

    def tasks(self) -> Iterator[tuple[str, Task | None]]:
        """Yield aiokafka's tasks for this consumer; the values are None before it has started."""
        yield from consumer_tasks("the worker's consumer", self._client())

    def work(self, recovered: bool) -> dict[str, Work]:
        """Return what this worker has to do now; `recovered` says whether its states are read back."""
        client, app = self._client(), self.app
        if client is None:
            return {"start": Work("Kafka's client to start", None)}
        if not self.joined:
            wanted = f"the group {app.conf.id} to assign partitions"
            away = absent(client, group=True)
            return {"group": Work(wanted, self.rebalances, away, self._thread.joining.held)}
        ours = [tp for tp in self.assignment() if tp.topic in self.sources]
        away = absent(client, [*ours, *(app.changelog(tp.partition) for tp in ours)], group=True)
        if not recovered:
            remaining = app.tables.recovery.active_remaining_total() if app.in_recovery else 0
            wanted = f"states to be read back and claimed: {max(0, remaining)} records of {app.settings.changelog_topic} remain"
            read = reached(client, [app.settings.changelog_topic])  # includes what was compacted or aborted
            held = undecided(client, [app.settings.changelog_topic]) or self.held_up()
            return {"recovery": Work(wanted, (self.rebalances, self.recovered, remaining, read), away, held)}
        found = {}
        waiting = unread(client, self.sources, self._held)
        wanted = f"source records to be processed, {waiting} of them not read yet"
        done = self.finished, self.calls()
        if self._pending is not None or self._running is not None:
            found["records"] = Work(wanted, done, away, self.held_up())
        if waiting:  # markers and aborted transactions are skipped and produce no micro-batch
            found["unread"] = Work(wanted, (*done, sum(self._next.values())), away)
        behind = {tp: offset for tp, offset in self._safe.items() if offset > (self._committed_offset.get(tp) or 0)}
        if behind:
            committed = tuple(self._committed_offset.get(tp) for tp in sorted(behind))
            found["commit"] = Work(f"offsets of {len(behind)} source partitions to be committed", committed, away)
        return found

    def thread(self) -> threading.Thread | None:
        """Return the consumer's thread; None before it has started."""
        return self._thread._thread if self._thread is not None else None

    def turn(self, beat: Callable[[], None]) -> None:
        """Make the loop of the consumer's thread call `beat`."""
        if self._thread is not None:
            with suppress(RuntimeError):  # the loop is closed; the thread reports the cause when it ends
                self._thread.thread_loop.call_soon_threadsafe(beat)

    def _client(self) -> Any:
        return self._thread._consumer if self._thread is not None else None

    # rebalance and shutdown

    async def settle(self, seconds: float) -> bool:
        """Stop fetching and wait until what was handed over is finished.

        Returns:
            False if something is still held back. It is read again later, together with everything after it, and each
            of those users gets one more slate.
        """
        end = time.monotonic() + seconds
        lingering = self._pending is not None and not self._pending.sent
        if lingering:
            self._pending = None  # the pipeline has not seen it
        while (self._pending is not None or self._running is not None or self._assigning) and time.monotonic() < end:
            await self._wait_changed()
        if lingering:
            self.wake()  # what became ready meanwhile relied on it
        return await self.drained(max(0.0, end - time.monotonic()))

    async def quiesce(self) -> None:
        """Accept no new micro-batch from here on, and wait for the current one."""
        self.epoch += 1
        self._pending = None
        self._held = frozenset()
        if self._fetch is not None:
            self._fetch.cancel()
        end = time.monotonic() + QUIESCE
        while self._running is not None:
            if time.monotonic() > end:
                fatal(FreshetError(f"a micro-batch did not end within {QUIESCE:g} s of a rebalance"))
            await self._wait_changed()
        self.on_revoked()

    async def on_partitions_revoked(self, revoked: set[TP]) -> None:
        with self._telling():
            await self._give_up(revoked)

    @contextmanager
    def _telling(self) -> Iterator[None]:
        """End the process if a callback of the group raises: aiokafka would log the error and go on without partitions."""
        epoch = self.epoch
        try:
            yield
        except IllegalStateError as error:
            if epoch == self.epoch and not self._stopping:
                fatal(error)
            raise  # a rebalance has overtaken us
        except self.consumer_stopped_errors:
            raise
        except Exception as error:
            if self._stopping and not isinstance(error, FreshetError):
                raise
            fatal(error)

    async def _give_up(self, revoked: set[TP]) -> None:
        self._guard()  # if we were evicted while stopped, our partitions may already belong to another worker
        await self.settle(SETTLE)
        await self.quiesce()
        # Faust forgets what is finished before it would commit it. A stopped thread does not answer calls. In that case,
        # what is not committed is read again.
        with suppress(TimeoutError):
            async with asyncio.timeout(LAST_COMMIT if self._stopping else None):
                await self.commit_finished()
        self.joined = False
        await super().on_partitions_revoked(revoked)
        self._thread.cuts.forget()
        self.app.lease.release()
        for known in (self._next, self._handed, self._safe, self._have):
            known.clear()
        self.passed.forget()

    async def on_partitions_assigned(self, assigned: set[TP], generation_id: int = 0) -> None:
        if self._stopping:
            return  # start nothing more: the thread that would answer may have stopped, and the stop waits for us
        self._assigning = True
        self.epoch += 1  # a running takeover of the previous assignment does not count for this one
        self.app.lease.grant()
        self.read_back = ReadBack()
        with self._telling():
            self._refuse_added(assigned)
            await self._prepare({tp for tp in assigned if tp.topic not in self.sources})
            await super().on_partitions_assigned(assigned, generation_id)
        self.joined = True
        self.rebalances += 1
        self._assigning = False
        self._changed.set()

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

    async def getmany(self, timeout: float) -> AsyncIterator[tuple[TP, Any]]:
        self._drainer = asyncio.current_task()
        async for found in super().getmany(timeout):
            yield found

    async def perform_seek(self) -> None:
        """Take over the source partitions if recovery calls this, after it has read their states back.

        Faust's fetcher calls this, too, when a rebalance stops the flow. Then nothing is read back yet, and the
        partitions that it knows as assigned may already belong to another worker, so nothing may be claimed.
        """
        drains = asyncio.current_task() is self._drainer or self._stopping
        if drains:
            await super().perform_seek()
            return
        sources: list[TP] = []
        epoch = self.epoch
        try:
            async with self._answered(self._limit, sources):
                await super().perform_seek()
                if self._stopping:
                    return
                epoch = self.epoch
                sources += [tp for tp in self.assignment() if tp.topic in self.sources]
                known = {tp: self._read_offset.get(tp) for tp in sources}
                begins = await self._begin(sources)
                await self._refuse_empty(sources)
                accepted = await self._refuse_cut(sources)
                back = {tp: Beside(begins[tp]) for tp, offset in known.items() if offset is None or begins[tp] < offset}
                begun = back | accepted
                # before the claim, which records that a worker has begun here: see `_begin`
                await self._commit_begun(
                    {tp: (begins[tp], replace(one, read=max(one.read, begins[tp]))) for tp, one in begun.items()}
                )
                await self.take_over({tp.partition for tp in sources})
        except FreshetError as error:
            if epoch == self.epoch:
                fatal(error)
            return  # a rebalance has come in between and closed the partitions that we were about to read
        except CommitFailedError:
            return  # a rebalance has begun: its assignment begins again
        except IllegalStateError:
            if epoch == self.epoch:
                raise
            return  # a rebalance has overtaken us
        if epoch != self.epoch:
            return
        for offsets in (self._next, self._handed, self._safe):
            offsets.update(begins)
        # Faust may report a recovery as complete that a rebalance interrupted; what is fetched then has no owner yet
        self._claimed = epoch

    def _refuse_added(self, assigned: Iterable[TP]) -> None:
        count = self.app.settings.partitions
        added = sorted(tp for tp in assigned if tp.partition >= count)
        if added:
            raise TopologyError(
                f"{added[0].topic} has partition {added[0].partition}, expected {count} partitions: partitions that are "
                "added later separate users from their states"
            )

    async def _prepare(self, changelogs: set[TP]) -> None:
        """Open the table's partitions, and refuse a changelog that does not continue what they hold."""
        async with self._answered(self._assign_limit, changelogs):
            logs = await self._logs(changelogs)
        for tp, log in sorted(logs.items()):
            have = self._have[tp] = self.prepare(tp.partition)
            if log.start <= have + 1 <= log.stop:
                continue
            self.lose(_states_gone(tp, have, log), max(0, log.start - have - 1))
            self._have[tp] = log.start - 1
            if have >= log.stop:
                self.drop(tp.partition)
                self.prepare(tp.partition)

    async def _refuse_empty(self, sources: Iterable[TP]) -> None:
        """Report a loss if a changelog partition is empty but source offsets are committed.

        Every owner writes a claim, so a changelog without records belongs to a group that has committed nothing.
        """
        committed = {tp: offset for tp in sources if (offset := self._committed_offset.get(tp))}
        changelogs = {self.app.changelog(tp.partition) for tp in committed}
        ends = await self.highwaters(*changelogs) if changelogs else {}
        for tp, offset in sorted(committed.items()):
            changelog = self.app.changelog(tp.partition)
            if not ends.get(changelog):
                said = f"{changelog.topic} partition {tp.partition} is empty, though {tp.topic} is committed up to {offset}"
                self.lose(LossError(f"{said}: the states are gone; see --accept-loss"), 0)

    def cuts(self, consumer: Any) -> Cuts:
        """Return an object that watches aiokafka's consumer for truncated logs."""
        return Cuts(consumer, self.sources, lambda partition: self.written(partition), self.lose)

    async def _refuse_cut(self, sources: Iterable[TP]) -> dict[TP, Beside]:
        """Check committed offsets: the source log has the records before them, and the changelog has the states.

        If a worker has begun a partition, a worker must have committed its offset, too.

        Returns:
            For each partition that fails a check whose loss is accepted: what to commit with the offset, so that the
            same loss is not reported again.
        """
        sources = [tp for tp in sources if self._committed_offset.get(tp)]
        if not sources:
            return {}
        thread = self._thread
        asked = asyncio.run_coroutine_threadsafe(thread.cuts.take_over(sources), thread.thread_loop)
        found = await asyncio.wrap_future(asked)
        accepted: dict[TP, Beside] = {}
        written: dict[TP, int] = {}  # once for each changelog partition, from whichever source's offset has it
        for (topic, partition), one in sorted(found.items()):
            if one.foreign:
                if self.claimed(partition):
                    self.lose(source_moved(topic, partition, self.app.conf.id, one))
                accepted[TP(topic, partition)] = Beside(one.offset)
            if (end := one.cut()) >= 0:
                self.lose(source_cut(topic, partition, end, one.read), one.read - end)
                accepted[TP(topic, partition)] = Beside(one.offset, written=one.beside.written)
            changelog = self.app.changelog(partition)
            written[changelog] = max(written.get(changelog, -1), one.beside.written)
        ends = await self.highwaters(*written) if written else {}
        for changelog, last in sorted(written.items()):
            end = ends.get(changelog) or 0
            if 0 < end <= last:  # `_refuse_empty` reports an empty one
                self.lose(changelog_cut(changelog.topic, changelog.partition, end, last), last + 1 - end)
        for place, one in found.items():
            tp = TP(*place)
            end = ends.get(self.app.changelog(tp.partition)) or 0
            if end <= one.beside.written:
                accepted[tp] = replace(accepted.get(tp, one.beside), written=end - 1)
        return accepted

    def lose(self, error: LossError, records: int = 0) -> None:
        """Raise `error`, or log it and return if losses are accepted; `records` is how many are lost, 0 if unknown."""
        if not self.app.settings.accept_loss:
            raise error
        self.log.error("%s: going on, since accept_loss is set", error)
        self.on_accepted_loss(max(1, records))  # if the number is unknown, there is still something to alert on

    def check_topology(self) -> None:
        """Raise TopologyError if partitions were added to a source topic."""
        consumer = self._thread._consumer
        for topic in self.sources:
            known = len(consumer.partitions_for_topic(topic) or ())
            if known > self.app.settings.partitions:
                self._refuse_added([TP(topic, known - 1)])

    async def _begin(self, sources: Iterable[TP]) -> dict[TP, int]:
        """Seek to the start position in each source partition.

        That is the committed offset, or the log's start if there is none.

        Returns:
            The start offset of each partition.
        Raises:
            LossError: A committed offset is outside the log, or it is missing for a partition that a worker has owned.
                So there are records that no worker will ever read.
        """
        committed = {tp: self._read_offset.get(tp) for tp in sources}
        begins: dict[TP, int] = {}
        logs = await self._logs(committed)
        for tp, log in logs.items():
            offset = committed[tp]
            begins[tp] = log.start if offset is None else offset
            if offset is None and log.start > 0 and self.claimed(tp.partition):
                self.lose(_offset_gone(tp, log))
            if not log.start <= begins[tp] <= log.stop:
                self.lose(_gone(tp, begins[tp], log), max(0, log.start - begins[tp]))
                begins[tp] = log.start
        # Faust has already sought the committed offsets, except those that are 0
        sought = {tp: offset for tp, offset in begins.items() if not offset or offset != committed[tp]}
        if sought:
            await self.seek_wait(sought)
        self.lay = {tp: range(begins[tp], log.stop) for tp, log in logs.items() if self.claimed(tp.partition)}
        return begins

    async def _commit_begun(self, offsets: Mapping[TP, tuple[int, Beside]]) -> None:
        """Commit the offsets at which we begin. Raises CommitFailedError if the partitions are no longer ours."""
        if not offsets:
            return
        thread = self._thread
        asked = asyncio.run_coroutine_threadsafe(thread.cuts.commit(offsets), thread.thread_loop)
        await asyncio.wrap_future(asked)
        self._committed_offset.update((tp, offset) for tp, (offset, _) in offsets.items())

    async def _beyond_source(self, offsets: Mapping[TP, int]) -> None:
        """Handle positions at which the broker has no record.

        The loss of deleted records may be accepted. A log that was truncated or recreated while we run is never
        accepted, because the states contain records that the log no longer has.
        """
        epoch = self.epoch
        back = {TP(*tp): self._next[TP(*tp)] for tp in offsets if TP(*tp) in self._next}
        # at other positions, the records found there were not handed over, so we read again from our own position
        wanted = {TP(*tp): offset for tp, offset in offsets.items() if back.get(TP(*tp)) == offset}
        logs = await self._logs(wanted)
        if epoch != self.epoch:
            return
        for tp, log in logs.items():
            error = _gone(tp, wanted[tp], log)
            if wanted[tp] >= log.start:
                raise error
            self.lose(error, log.start - wanted[tp])
            self._next[tp] = back[tp] = log.start
        if back:
            with suppress(IllegalStateError):  # revoked meanwhile; the next owner seeks
                await self.seek_wait(back)

    async def _beyond_changelog(self, offsets: Mapping[TP, int]) -> None:
        """Do the same as `_beyond_source` for a changelog that is read back.

        Faust begins at the record that we already have, which may be gone.
        """
        try:
            for tp, log in (await self._logs(TP(*tp) for tp in offsets)).items():
                have = self._have.get(tp, -1)
                if have + 1 > log.stop:
                    raise _states_gone(tp, have, log)
                if have + 1 < log.start:
                    self.lose(_states_gone(tp, have, log), log.start - have - 1)
                    self._have[tp] = log.start - 1
                await self.seek_wait({tp: max(log.start, have + 1)})
        except LossError as error:
            fatal(error)

    async def _logs(self, tps: Iterable[TP]) -> dict[TP, range]:
        """Return the offsets that each partition has now, from the broker. Waits for leaders without a time limit."""
        asked, said = tuple(tps), ""
        while asked:
            try:
                begins = await self._asked_beginnings(*asked)
                ends = await self._asked_ends(*asked)
                return {tp: range(begins.get(tp) or 0, ends.get(tp) or 0) for tp in asked}
            except KafkaError as error:
                if not (error.retriable or isinstance(error, KafkaTimeoutError)):
                    raise
                waits = f"{error!r}: retrying; waits for {self._away(asked)}"
                if waits != said:
                    self.log.warning(waits)
                said = waits
            await asyncio.sleep(self._pause)
        return {}

    async def _asked_beginnings(self, *tps: TP) -> Mapping[TP, int]:
        found: Mapping[TP, int] = await super().earliest_offsets(*tps)
        return found

    async def _asked_ends(self, *tps: TP) -> Mapping[TP, int]:
        found: Mapping[TP, int] = await super().highwaters(*tps)
        return found

    async def earliest_offsets(self, *partitions: TP) -> Mapping[TP, int]:
        async with self._told(partitions):
            return await self._asked_beginnings(*partitions)

    async def highwaters(self, *partitions: TP) -> Mapping[TP, int]:
        async with self._told(partitions):
            return await self._asked_ends(*partitions)

    def _away(self, tps: Iterable[TP]) -> str:
        client = self._client()
        away = [] if client is None else [said for tp in sorted(tps) if (said := absent(client, [tp]))]
        return "; ".join(dict.fromkeys(away)) or "a broker to answer"

    @asynccontextmanager
    async def _told(self, tps: Collection[TP]) -> AsyncIterator[None]:
        """Do the same as `_answered`, but end the process on an error, because Faust would ignore it."""
        try:
            async with self._answered(self._limit, tps):
                yield
        except FreshetError as error:
            fatal(error)

    @asynccontextmanager
    async def _answered(self, seconds: float, tps: Collection[TP]) -> AsyncIterator[None]:
        """Limit how long the block waits for the broker.

        Raises:
            BrokerError: The broker has not answered in time. The error names which of these partitions have no leader.
            FreshetError: The broker has answered, but an open transaction blocks reading of the changelog.
        """
        held: list[str] = []
        # checked shortly before: at the end of the time the reader is closed
        look = asyncio.get_running_loop().call_later(0.95 * seconds, lambda: held.append(self.held_up()))
        try:
            async with asyncio.timeout(seconds):
                yield
        except (TimeoutError, KafkaTimeoutError):
            if any(held):
                raise FreshetError(f"assigned partitions could not begin for {seconds:g} s: {held[0]}") from None
            places = {place for tp in tps for place in (tp, self.app.changelog(tp.partition))}
            away = self._away(places)
            raise BrokerError(
                f"no answer for {seconds:g} s, so assigned partitions cannot begin: waits for {away}"
            ) from None
        finally:
            look.cancel()

    async def force_commit(self, topics: Any = None, start_new_transaction: bool = True) -> bool:
        done = bool(await super().force_commit(topics, start_new_transaction))
        if done:
            self.on_commit()
        return done

    def _filter_committable_offsets(self, tps: Iterable[TP]) -> dict[TP, int]:
        offsets: dict[TP, int] = super()._filter_committable_offsets(tps)
        finished = {tp: self._finished(tp) for tp in self._safe}
        return offsets | {tp: offset for tp, offset in finished.items() if self._should_commit(tp, offset)}


def _gone(tp: TP, offset: int, log: range) -> LossError:
    """Return the error for an `offset` that a source partition's log no longer contains, or whose log was replaced."""
    if offset < log.start:
        what = f"source records are gone: {offset} to {log.start - 1}"
    elif offset > log.stop:
        what = f"source records are gone: beyond the log's end {log.stop}, read up to {offset}"
    else:
        what = f"the log was cut off before {offset} and has grown to {log.stop} since"
    return LossError(f"{tp.topic} partition {tp.partition}: {what}; see --accept-loss")


def _offset_gone(tp: TP, log: range) -> LossError:
    """Return the error for a missing committed offset. The changelog has a claim, so an offset was committed once."""
    return LossError(
        f"{tp.topic} partition {tp.partition}: the group's offsets are gone (expired, or the group was deleted), and so are the "
        f"records before {log.start}, which may never have been read; see --accept-loss"
    )


def _states_gone(tp: TP, have: int, log: range) -> LossError:
    """Return the error for a changelog partition that was read up to `have` and no longer continues from there."""
    if have + 1 < log.start:
        what = f"records {have + 1} to {log.start - 1} are gone, and with them states"
    else:
        what = f"it ends at {log.stop}, but was read up to {have}: was it recreated?"
    return LossError(f"{tp.topic} partition {tp.partition}: {what}; see --accept-loss")
