"""Chooses the bundle that a process starts with, and brings it to the newest activation of the topic `bundles` while it works
(docs/swap.md).

Load and prove the bundle beside the one in use, report `loaded`, switch, free the old one. A bundle that cannot be used is
reported as `refused`, and the process goes on with the one that it has. A newer activation replaces one in progress.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from typing import Final, Generic, Literal, TypeVar

from stream.core.bundle_log import Activation, BundleLog, Loaded, Record, Refused, sentence
from stream.core.errors import BrokerError, BundleError, FreshetError, LossError, TopologyError
from stream.inference.bundle import Bundle, current, load
from stream.inference.loading import Loaded as Served
from stream.inference.loading import Refusal, first, warn_of_current
from stream.inference.serving import Opened, Threads, check_fit, open_for
from stream.observability.bundle_figures import BundleFigures
from stream.process.startup import in_time
from stream.settings import Settings

BUNDLE_LIMIT: Final = 120.0
"""Seconds to load a bundle at the start, and to compute its golden vectors."""
PAUSE: Final = 5.0
"""Seconds before a bundle is prepared again for which a broker did not answer."""

Prepared = TypeVar("Prepared")
log = logging.getLogger("freshet.bundles")


@dataclass(frozen=True, kw_only=True)
class SwapParts(Generic[Prepared]):
    """What a swap works with.

    Attributes:
        name: The process's name, 32 hex digits.
        process: What it is.
        log: Returns the topic as far as it is read.
        write: Writes records to it.
        prepare: Loads and proves the bundle of an activation, and all that belongs to it. Raises FreshetError if it cannot be
            used. It may be cancelled.
        switch: Puts in place what was prepared, and frees what was there; None: the bundle stays, under another activation.
        figures: Counts what happens.
        now: Returns the time in epoch ms.
    """

    name: str
    process: Literal["worker", "gateway"]
    log: Callable[[], BundleLog]
    write: Callable[[Sequence[Record]], Awaitable[None]]
    prepare: Callable[[Activation], Awaitable[Prepared]]
    switch: Callable[[Activation, Prepared | None], Awaitable[None]]
    figures: BundleFigures
    now: Callable[[], int]


def choose(
    settings: Settings, activated: Sequence[Activation], threads: Threads, limit: float
) -> tuple[Served, list[Refusal]]:
    """Return what a process serves when it starts, and what it had to refuse.

    Args:
        settings: The settings.
        activated: The activations to try, the newest first; after them, the bundle that CURRENT names.
        threads: The threads that will run it.
        limit: Seconds to load a bundle and to compute its golden vectors.

    Raises:
        FreshetError: No bundle can be used.
    """

    def of_current() -> tuple[Bundle, Opened]:
        late = BundleError(f"golden.npz: not computed within {limit:g} s: a graph does not end")
        with in_time(limit, late):
            bundle = load(current(settings.bundles))
            check_fit(settings, bundle)
            return bundle, open_for(bundle, settings.provider, threads)

    loaded, refused = first(settings, activated, threads, of_current, limit)
    warn_of_current(settings, loaded.activation)
    return loaded, refused


class Swap(Generic[Prepared]):
    """Follows the activations in `task`, which ends only on a failure or by `stop`; its owner must watch it.

    Args:
        parts: What it works with.
        serving: What is served now.
        refused: What was refused at the start.
        seconds: How long loading has taken.
    Attributes:
        serving: What is served now.
    """

    def __init__(
        self, parts: SwapParts[Prepared], serving: Activation, refused: Sequence[Refusal], seconds: float
    ) -> None:
        self.serving = serving
        self.task: asyncio.Task[None] | None = None
        self._parts = parts
        self._at_start = [*refused]
        self._seconds = seconds
        self._settled = max([serving.number, *(one.activation.number for one in refused)])  # switched to, or refused
        self._came = asyncio.Event()
        self._since: tuple[int, float] | None = (
            None  # the activation that waits, and the monotonic time at which it came
        )
        parts.figures.waiting.set_function(self._waiting)
        parts.figures.serve(serving.number)
        parts.figures.loaded(seconds)
        for _ in refused:
            parts.figures.refuse()

    def start(self) -> None:
        """Begin to follow the activations."""
        self.task = asyncio.create_task(self._run(), name="swap")

    def look(self) -> None:
        """Look at the topic again: records have come."""
        self._came.set()

    async def stop(self) -> None:
        """End the task. May be called twice."""
        if self.task is not None:
            self.task.cancel()
            await asyncio.wait([self.task])

    def _newest(self) -> Activation | None:
        """Return the newest activation, if it is neither switched to nor refused."""
        newest = self._parts.log().newest
        if newest is None or newest.number <= self._settled:
            self._since = None
            return None
        if self._since is None:
            self._since = newest.number, time.monotonic()
        return newest

    def _waiting(self) -> float:
        """Return the seconds for which an activation has waited to be switched to or refused; 0 for none."""
        return 0.0 if self._newest() is None or self._since is None else time.monotonic() - self._since[1]

    async def _run(self) -> None:
        await self._report_start()
        while True:
            self._came.clear()
            while (newest := self._newest()) is not None:
                await self._follow(newest)
            await self._came.wait()

    async def _report_start(self) -> None:
        """Report what the process has made of the activations that it found when it started."""
        records: list[Record] = [self._refused(one.activation, one.reason) for one in self._at_start]
        if self.serving.number >= 0:
            records.append(self._loaded(self.serving, self._seconds))
        if records:
            await self._parts.write(records)

    async def _follow(self, activation: Activation) -> None:
        """Switch to an activation, refuse it, or leave it for a newer one."""
        parts = self._parts
        began = time.monotonic()
        prepared: Prepared | None = None
        if activation.bundle != self.serving.bundle:
            log.info("loading a bundle", extra={"bundle": activation.bundle, "activation": activation.number})
            try:
                prepared = await self._prepared(activation)
            except (LossError, TopologyError):
                raise  # of the topics, not of the bundle
            except BrokerError as error:
                log.warning("%s: loading the bundle again in %g s", error, PAUSE)
                await asyncio.sleep(PAUSE)
                return
            except FreshetError as error:
                await self._refuse(activation, str(error))
                return
            except Exception as error:  # the process serves: whatever is wrong with another bundle must not end it
                log.exception("the bundle cannot be loaded", extra={"bundle": activation.bundle})
                await self._refuse(activation, f"{type(error).__name__}: {error}")
                return
            if prepared is None:
                log.info("a newer activation has come: the bundle is not served", extra={"bundle": activation.bundle})
                return
        seconds = time.monotonic() - began
        await parts.write([self._loaded(activation, seconds)])
        await parts.switch(activation, prepared)
        self.serving, self._settled = activation, activation.number
        parts.figures.loaded(seconds)
        parts.figures.switched()
        parts.figures.serve(activation.number)
        log.info(
            "bundle switched",
            extra={"bundle": activation.bundle, "activation": activation.number, "seconds": round(seconds, 3)},
        )

    async def _prepared(self, activation: Activation) -> Prepared | None:
        """Return what `prepare` makes of an activation; None if a newer one comes meanwhile."""
        preparing = asyncio.ensure_future(self._parts.prepare(activation))
        try:
            while not preparing.done():
                self._came.clear()
                newest = self._newest()
                if newest is not None and newest.number != activation.number:
                    return None
                came = asyncio.ensure_future(self._came.wait())
                await asyncio.wait((preparing, came), return_when=asyncio.FIRST_COMPLETED)
                came.cancel()
            return preparing.result()
        finally:
            if not preparing.done():
                preparing.cancel()
                await asyncio.wait((preparing,))

    async def _refuse(self, activation: Activation, reason: str) -> None:
        log.error("bundle refused: %s", reason, extra={"bundle": activation.bundle, "activation": activation.number})
        self._parts.figures.refuse()
        self._settled = activation.number
        await self._parts.write([self._refused(activation, reason)])

    def _loaded(self, activation: Activation, seconds: float) -> Loaded:
        parts = self._parts
        return Loaded(
            activation.number, activation.bundle, parts.name, parts.process, parts.now(), round(max(0.0, seconds), 3)
        )

    def _refused(self, activation: Activation, reason: str) -> Refused:
        parts = self._parts
        return Refused(activation.number, activation.bundle, parts.name, parts.process, parts.now(), sentence(reason))
