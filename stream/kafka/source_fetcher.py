"""Fetches source records, explains every offset that holds none, and hands the records over as micro-batches."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from contextlib import suppress
from typing import Any, Final, Protocol

from aiokafka.errors import (
    ConsumerStoppedError,
    IllegalStateError,
    NoOffsetForPartitionError,
    OffsetOutOfRangeError,
)
from faust.types import TP

from stream.kafka.batch import MicroBatch, Record
from stream.kafka.broker_offsets import BrokerOffsets
from stream.kafka.group_state import GroupState
from stream.kafka.hand_over import HandOver
from stream.kafka.losses import Losses, holes_found, records_gone
from stream.kafka.source_positions import SourcePositions
from stream.kafka.source_thread import Fetched, SourceThread

POLL: Final = 0.5  # seconds that one fetch waits
POLL_HELD: Final = 0.05  # the same while some partitions are held: they must not wait for the fetch once they may go on
ENOUGH: Final = 64  # records that are handed over without lingering
PAUSE: Final = 0.02  # seconds before the next look where nothing can be fetched


class Flow(Protocol):
    """Faust's control of the flow of records."""

    def flows(self) -> bool:
        """Return whether records may be handed over now."""
        ...

    def active_partitions(self) -> set[TP]:
        """Return the assigned partitions that are not paused."""
        ...

    def note_inbound(self, tp: TP) -> None:
        """Note that records of a partition have arrived just now."""
        ...

    async def sleep(self, seconds: float) -> None:
        """Wait, but no longer than until the consumer stops."""
        ...


class SourceFetcher:
    """Runs one fetch after another.

    Args:
        flow: Faust's control of the flow.
        thread: The consumer's thread.
        group: The consumer's state in its group.
        positions: How far each partition is.
        hand_over: Takes the micro-batches.
        broker: The offsets that the logs have.
        losses: Decides about records that are gone.
        limit: The setting `micro_batch`: records of a micro-batch.
        linger: Seconds that a small micro-batch waits for more records.
    """

    def __init__(
        self,
        flow: Flow,
        thread: SourceThread,
        group: GroupState,
        positions: SourcePositions,
        hand_over: HandOver,
        broker: BrokerOffsets,
        losses: Losses,
        *,
        limit: int,
        linger: float,
    ) -> None:
        self._flow = flow
        self._thread = thread
        self._group = group
        self._positions = positions
        self._hand_over = hand_over
        self._broker = broker
        self._losses = losses
        self._limit = limit
        self._linger = linger
        self._fetch: asyncio.Future[Any] | None = None

    def cancel(self) -> None:
        """Cancel the fetch in progress."""
        if self._fetch is not None:
            self._fetch.cancel()

    async def fetch_once(self) -> None:
        """Run one fetch and hand over what it has found, or wait for a moment if nothing can be fetched now."""
        epoch, pending = self._group.epoch, self._hand_over.pending
        lingers = self._hand_over.lingers
        if pending is not None and pending.size >= self._limit and not lingers:
            await self._hand_over.wait_changed()
            return
        active = self._flow.active_partitions() & self._positions.next.keys()
        tps = active - self._hand_over.held
        if not tps:
            if pending is not None and lingers:
                await self._hand_over.send(pending)  # nothing more will join it, and `wake` relies on it being sent
            elif active:
                await self._hand_over.wait_changed()
            else:
                await self._flow.sleep(PAUSE)
            return
        room = max(1, self._limit - (pending.size if pending else 0))
        fetched = await self._read(tps, 0.0 if lingers else POLL_HELD if self._hand_over.held else POLL, room)
        if fetched is not None and epoch == self._group.epoch and self._flow.flows():  # else: read again after a seek
            await self._pass_on(fetched)

    async def _read(self, tps: set[TP], timeout: float, room: int) -> Fetched | None:
        """Run one fetch in the consumer's thread. None: it was cancelled, or the partitions or records are gone."""
        # not call_thread(): it has two workers, and a long poll in one of them would block commits
        fetch = self._thread.fetch(tps, timeout, room)
        epoch = self._group.epoch
        future = self._fetch = asyncio.wrap_future(asyncio.run_coroutine_threadsafe(fetch, self._thread.thread_loop))
        try:
            fetched: Fetched = await future
            return fetched
        except OffsetOutOfRangeError as error:
            if epoch == self._group.epoch:
                await self._seek_into_log(error.args[0])
            return None
        except NoOffsetForPartitionError:  # raised before we sought; we begin at the offset from `StartOffsets.seek`
            return None
        except IllegalStateError:  # revoked meanwhile
            return None
        except asyncio.CancelledError:
            if epoch != self._group.epoch:
                return None  # `cancel` cancelled the fetch, not us
            raise
        except ConsumerStoppedError:
            return None
        finally:
            self._fetch = None

    async def _pass_on(self, fetched: Fetched) -> None:
        fresh = self._hand_over.pending is None  # the last one may have been taken meanwhile
        pending = self._hand_over.pending or MicroBatch(self._group.epoch)
        back = self._collect(fetched, pending)
        if pending.size and not pending.sent:
            self._hand_over.pending = pending
            if self._linger and fresh and pending.size < ENOUGH:
                await asyncio.sleep(self._linger)
            else:
                await self._hand_over.send(pending)
        if back and pending.epoch == self._group.epoch:
            await self._thread.seek_wait(back)

    def _collect(self, fetched: Fetched, pending: MicroBatch) -> dict[TP, int]:
        """Add what was fetched to a micro-batch. Return the partitions that must be read again, and from which offset."""
        back: dict[TP, int] = {}
        positions = self._positions
        for tp, end in fetched.after.items():
            wanted = positions.next[tp]
            if fetched.before[tp] > wanted:  # the records of an earlier fetch were not handed over
                back[tp] = wanted
            elif end > wanted:
                found = fetched.records.get(tp, [])
                kept = found if fetched.before[tp] == wanted else [one for one in found if one.offset >= wanted]
                self._explain(tp, wanted, end, kept)
                positions.next[tp] = end
                if kept:
                    pending.add(tp, kept)
                    positions.handed[tp] = kept[-1].offset + 1
                    self._flow.note_inbound(tp)
        return back

    def _explain(self, tp: TP, first: int, end: int, found: Sequence[Record]) -> None:
        """Raise LossError if an offset from `first` to before `end` is neither found nor validly skipped."""
        if end - first == len(found):
            return
        holes = self._thread.passed.missing(tp, first, end, [record.offset for record in found])
        if holes:
            self._losses.lose(holes_found(tp, holes), sum(map(len, holes)))

    async def _seek_into_log(self, offsets: Mapping[TP, int]) -> None:
        """Handle positions at which the broker has no record.

        The loss of deleted records may be accepted. A log that was truncated or recreated while we run is never
        accepted, because the states contain records that the log no longer has.
        """
        epoch, known = self._group.epoch, self._positions.next
        back = {TP(*tp): known[TP(*tp)] for tp in offsets if TP(*tp) in known}
        # at other positions, the records found there were not handed over, so we read again from our own position
        wanted = {TP(*tp): offset for tp, offset in offsets.items() if back.get(TP(*tp)) == offset}
        logs = await self._broker.logs(wanted)
        if epoch != self._group.epoch:
            return
        for tp, log in logs.items():
            error = records_gone(tp, wanted[tp], log)
            if wanted[tp] >= log.start:
                raise error
            self._losses.lose(error, log.start - wanted[tp])
            known[tp] = back[tp] = log.start
        if back:
            with suppress(IllegalStateError):  # revoked meanwhile; the next owner seeks
                await self._thread.seek_wait(back)
