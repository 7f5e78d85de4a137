"""Model calls outside the event loop, each with a time limit."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from concurrent.futures import Executor
from typing import Final, TypeVar

from stream.core.errors import FreshetError

Result = TypeVar("Result")
SLICE: Final = 0.25
"""Seconds between two checks of a running model call."""


async def in_time(executor: Executor, call: Callable[[], Result], ended: Callable[[], int], limit: float) -> Result:
    """Run `call` in the executor. Raises FreshetError if one of its graph calls takes longer than `limit` seconds.

    `ended` returns how many graph calls have ended. After each the time starts again, because a micro-batch may need
    any number of them. The time is counted in slices, each at most at its nominal length, because a process that was
    stopped had no time to compute.
    """
    future = asyncio.get_running_loop().run_in_executor(executor, call)
    slice_ = min(SLICE, limit / 4)
    try:
        spent, before = 0.0, ended()
        while not future.done():
            began = time.monotonic()
            await asyncio.wait((future,), timeout=slice_)
            spent += min(time.monotonic() - began, slice_)
            if (now := ended()) != before:
                spent, before = 0.0, now
            if spent >= limit and not future.done():
                raise FreshetError(f"a model call took longer than {limit:g} s")
        return future.result()
    finally:
        future.cancel()
