"""Bundles that are loaded beside one in use: in a thread of their own at low priority, one at a time, within a time limit."""

from __future__ import annotations

import asyncio
import ctypes
import logging
import sys
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass
from typing import Final, TypeVar

from stream.core.bundle_log import CURRENT, Activation
from stream.core.errors import BundleError, FreshetError
from stream.inference.bundle import Bundle, current, load
from stream.inference.serving import Opened, Threads, check_fit, open_for, step_back
from stream.inference.text_encoder import Encoder
from stream.settings import Settings

LIMIT: Final = 600.0
"""Seconds that a bundle may take to load beside one in use: its thread runs when nothing else does."""

Result = TypeVar("Result")
log = logging.getLogger("freshet.bundles")


@dataclass(frozen=True)
class Loaded:
    """A bundle that is verified, fits the settings and has computed its golden vectors.

    Attributes:
        activation: The activation that names it; its number is CURRENT if it is that of the file CURRENT.
        bundle: The bundle.
        opened: Its sessions.
        seconds: How long that took.
    """

    activation: Activation
    bundle: Bundle
    opened: Opened
    seconds: float = 0.0


@dataclass(frozen=True)
class Refusal:
    """An activation whose bundle cannot be used, and the reason."""

    activation: Activation
    reason: str


def prove(settings: Settings, activation: Activation, threads: Threads, like: Encoder | None = None) -> Loaded:
    """Load the bundle of an activation from the folder `bundles`, and check all of it.

    Args:
        settings: The settings.
        activation: The activation.
        threads: The threads that will run it.
        like: An encoder in use: sessions of the same graphs are shared.

    Raises:
        FreshetError: It cannot be used; the text says why.
    """
    began = time.monotonic()
    bundle = load(settings.bundles / activation.bundle)
    check_fit(settings, bundle)
    opened = open_for(bundle, settings.provider, threads, like)
    return Loaded(activation, bundle, opened, time.monotonic() - began)


def first(
    settings: Settings,
    candidates: Sequence[Activation],
    threads: Threads,
    otherwise: Callable[[], tuple[Bundle, Opened]],
    limit: float,
) -> tuple[Loaded, list[Refusal]]:
    """Return what a process serves when it starts, and what it had to refuse.

    Args:
        settings: The settings.
        candidates: The activations to try, in this order (stream.core.bundle_log.BundleLog.candidates).
        threads: The threads that will run it.
        otherwise: Loads the bundle that the file CURRENT names, if none of them can be used.
        limit: Seconds for each of the candidates.

    Raises:
        FreshetError: No bundle can be used.
    """
    refused: list[Refusal] = []
    for activation in candidates:
        thread = ThreadPoolExecutor(1, "bundle")
        try:
            found = thread.submit(prove, settings, activation, threads).result(limit)
        except TimeoutError:
            refused.append(Refusal(activation, f"golden.npz: not computed within {limit:g} s: a graph does not end"))
        except FreshetError as error:
            refused.append(Refusal(activation, str(error)))
        else:
            return found, refused
        finally:
            thread.shutdown(wait=False)
        log.error(
            "bundle refused: %s",
            refused[-1].reason,
            extra={"bundle": activation.bundle, "activation": activation.number},
        )
    began = time.monotonic()
    bundle, opened = otherwise()
    return Loaded(Activation(CURRENT, bundle.id), bundle, opened, time.monotonic() - began), refused


def warn_of_current(settings: Settings, serving: Activation) -> None:
    """Log that the file CURRENT names another bundle than the activation that is served."""
    if serving.number == CURRENT:
        return
    try:
        named = current(settings.bundles).name
    except BundleError:
        named = ""
    if named != serving.bundle:
        log.warning(
            "an activation is served, and not the bundle that CURRENT names",
            extra={"bundle": serving.bundle, "activation": serving.number, "current": named},
        )


class Loader:
    """Runs calls in the thread for bundles. All methods run in the event loop.

    Args:
        limit: Seconds for a call.
    """

    def __init__(self, limit: float = LIMIT) -> None:
        self._limit = limit
        self._thread = self._new()

    async def run(self, call: Callable[[], Result]) -> Result:
        """Return what `call` returns. Raises BundleError if it takes too long: its thread is given up then."""
        future = self._thread.submit(call)
        try:
            async with asyncio.timeout(self._limit):
                return await asyncio.wrap_future(future)
        except TimeoutError:
            self._thread.shutdown(wait=False, cancel_futures=True)
            self._thread = self._new()
            raise BundleError(
                f"not loaded within {self._limit:g} s: a graph does not end, or the machine is too busy"
            ) from None

    async def free(self) -> None:
        """Give memory that nothing refers to any more back to the system, in the thread."""
        await self.run(_free)

    def stop(self) -> None:
        """End the thread; a call that is running does not delay the end."""
        self._thread.shutdown(wait=False, cancel_futures=True)

    @staticmethod
    def _new() -> ThreadPoolExecutor:
        return ThreadPoolExecutor(1, "bundle", initializer=step_back)


def _free() -> None:
    if sys.platform == "linux":  # glibc keeps what is freed unless it is told
        with suppress(OSError, AttributeError):
            ctypes.CDLL(None).malloc_trim(0)
