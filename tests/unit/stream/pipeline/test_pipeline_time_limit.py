"""A model call has a limit of its own: not the micro-batch of which it is a part, and not time in which nobody ran."""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

import pytest

from stream.core.errors import FreshetError
from stream.pipeline.model_calls import in_time


class Parts:
    """A micro-batch of several graph calls."""

    def __init__(self, parts: int, seconds: float) -> None:
        self.ended = 0
        self._parts = parts
        self._seconds = seconds

    def run(self) -> int:
        for _ in range(self._parts):
            time.sleep(self._seconds)
            self.ended += 1
        return self.ended


def run(call: Callable[[], int], ended: Callable[[], int], limit: float) -> int:
    with ThreadPoolExecutor(1) as executor:
        return asyncio.run(in_time(executor, call, ended, limit))


def test_many_graph_calls_may_take_longer_than_one_may() -> None:
    parts = Parts(8, 0.05)
    assert run(parts.run, lambda: parts.ended, 0.2) == 8


def test_one_graph_call_that_is_too_long_ends_it() -> None:
    parts = Parts(1, 0.5)
    with pytest.raises(FreshetError, match=r"a model call took longer than 0\.2 s"):
        run(parts.run, lambda: parts.ended, 0.2)


def test_time_in_which_the_process_stood_still_does_not_count() -> None:
    """A loop that stands and a call that goes on afterwards: as after SIGSTOP and SIGCONT."""

    async def stopped() -> int:
        go = threading.Event()
        with ThreadPoolExecutor(1) as executor:
            running = asyncio.ensure_future(in_time(executor, lambda: go.wait(5) + 0, lambda: 0, 0.4))
            await asyncio.sleep(0.02)
            time.sleep(0.6)  # noqa: ASYNC251
            await asyncio.sleep(0.02)
            go.set()
            return await running

    assert asyncio.run(stopped()) == 1


def test_what_a_call_raises_is_raised() -> None:
    def broken() -> int:
        raise ValueError("no")

    with pytest.raises(ValueError, match="no"):
        run(broken, lambda: 0, 1.0)


def test_a_task_that_is_cancelled_as_its_call_ends_stays_cancelled() -> None:
    async def cancelled() -> None:
        go = threading.Event()
        with ThreadPoolExecutor(1) as executor:
            running = asyncio.ensure_future(in_time(executor, lambda: go.wait(5) + 0, lambda: 0, 5.0))
            await asyncio.sleep(0.02)
            go.set()
            time.sleep(0.05)  # noqa: ASYNC251
            running.cancel()
            with pytest.raises(asyncio.CancelledError):
                await running

    asyncio.run(cancelled())
