"""A service's thread that asks its parent something while it ends is answered, so that both end."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable
from contextlib import suppress
from typing import TypeVar

import pytest
from mode.threads import ServiceThread

from stream.kafka.source_thread import SourceThread
from stream.kafka.thread_end import LiveUntilEnd

T = TypeVar("T", bound=ServiceThread)

SECONDS = 1.0


class Asking(LiveUntilEnd):
    """Its thread has a task, not one of the service's own, that asks the parent's loop when it is cancelled.

    A group's coordinator does this if a rebalance begins while the worker stops.
    """

    answered = False

    async def on_thread_started(self) -> None:
        self._task = asyncio.ensure_future(self._ask())

    async def _ask(self) -> None:
        try:
            await asyncio.sleep(SECONDS * 10)
        except asyncio.CancelledError:
            asked = asyncio.run_coroutine_threadsafe(asyncio.sleep(0, True), self.parent_loop)
            with suppress(TimeoutError):
                async with asyncio.timeout(SECONDS):
                    self.answered = await asyncio.wrap_future(asked)


class Forgetting(LiveUntilEnd):
    """Its thread has a task that forgets the first cancellation."""

    async def on_thread_started(self) -> None:
        self._task = asyncio.ensure_future(forget())


async def forget() -> None:
    with suppress(asyncio.CancelledError):
        await asyncio.sleep(SECONDS * 10)
    await asyncio.sleep(SECONDS * 10)


def stopped(made: Callable[[], T]) -> T:
    """Start and stop a service in a loop of its own, and return it."""

    async def run() -> T:
        service = made()
        await service.start()
        assert service._thread is not None
        assert service._thread.is_alive()
        async with asyncio.timeout(3 * SECONDS):
            await service.stop()
        assert service._thread not in threading.enumerate()
        return service

    return asyncio.run(run())


def test_a_question_during_the_stop_is_answered() -> None:
    assert stopped(Asking).answered


def test_a_forgotten_cancellation_is_repeated() -> None:
    stopped(Forgetting)


def test_a_stop_before_the_start_does_nothing() -> None:
    async def run() -> None:
        await Asking().stop()

    asyncio.run(run())


@pytest.mark.parametrize("name", ["stop", "Worker"])
def test_the_consumers_thread_ends_this_way(name: str) -> None:
    assert issubclass(SourceThread, ServiceThread)
    assert getattr(SourceThread, name) is getattr(LiveUntilEnd, name)
