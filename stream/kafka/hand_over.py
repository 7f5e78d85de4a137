"""Micro-batches between the fetcher and the pipeline: one waits in the channel while one is processed."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable, Set
from contextlib import suppress
from typing import Any, Final

from faust.types import TP

from stream.core.errors import FreshetError
from stream.kafka.batch import MicroBatch
from stream.kafka.group_state import GroupState
from stream.process.fatal import fatal

QUIESCE: Final = 20.0  # seconds in which the current micro-batch must end at a rebalance


class HandOver:
    """Passes micro-batches to the pipeline.

    Args:
        group: The consumer's state in its group.
        put: Puts a micro-batch into the channel.
    Attributes:
        pending: The micro-batch that lingers or is in the channel; None if there is none.
        running: The micro-batch that the pipeline is processing.
        held: Partitions of which the pipeline wants no more records for now.
        finished: Number of micro-batches that the pipeline has finished.
    """

    def __init__(self, group: GroupState, put: Callable[[MicroBatch], Awaitable[None]]) -> None:
        self._group = group
        self._put = put
        self.pending: MicroBatch | None = None
        self.running: MicroBatch | None = None
        self.held: Set[TP] = frozenset()
        self.finished = 0
        self._waking: asyncio.Future[Any] | None = None  # kept, since the loop holds tasks weakly
        self._changed = asyncio.Event()

    @property
    def lingers(self) -> bool:
        """Whether the pending micro-batch waits for more records, so that the pipeline has not seen it."""
        return self.pending is not None and not self.pending.sent

    async def send(self, pending: MicroBatch) -> None:
        pending.sent = True
        await self._put(pending)

    def receive(self, batch: MicroBatch) -> None:
        """Note that the pipeline has got a micro-batch from the channel."""
        if self.pending is batch:
            self.pending = None
        self._changed.set()

    def begin(self, batch: MicroBatch) -> bool:
        """Note that the pipeline processes it. Return False if its partitions have been revoked since."""
        if batch.epoch != self._group.epoch:
            return False
        self.running = batch
        return True

    def finish(self, hold: Set[TP]) -> None:
        """Note that the micro-batch is finished, and which partitions must not be fetched for now."""
        self.running = None
        self.held = hold
        self.finished += 1
        self._changed.set()

    def wake(self) -> None:
        """Call the pipeline although no record has arrived: something that it held back is ready."""
        if self.pending is None:  # else the next micro-batch is on its way
            self.pending = batch = MicroBatch(self._group.epoch)
            batch.sent = True
            self._waking = asyncio.ensure_future(self._put(batch))

    async def settle(self, end: float) -> None:
        """Wait until what was handed over is finished, or `end` on the monotonic clock is reached."""
        lingering = self.lingers
        if lingering:
            self.pending = None  # the pipeline has not seen it
        while (
            self.pending is not None or self.running is not None or self._group.assigning
        ) and time.monotonic() < end:
            await self.wait_changed()
        if lingering:
            self.wake()  # what became ready meanwhile relied on it

    def drop(self) -> None:
        """Forget the micro-batch that is not processed yet, because the epoch has ended."""
        self.pending = None
        self.held = frozenset()

    async def wait_idle(self) -> None:
        """Wait for the current micro-batch. End the process if it does not end."""
        end = time.monotonic() + QUIESCE
        while self.running is not None:
            if time.monotonic() > end:
                fatal(FreshetError(f"a micro-batch did not end within {QUIESCE:g} s of a rebalance"))
            await self.wait_changed()

    def notify(self) -> None:
        """Wake up whoever waits in `wait_changed`."""
        self._changed.set()

    async def wait_changed(self) -> None:
        """Wait until a micro-batch is taken or finished, or partitions are assigned; for at most one second."""
        self._changed.clear()
        with suppress(TimeoutError):
            async with asyncio.timeout(1.0):
                await self._changed.wait()
