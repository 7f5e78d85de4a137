"""Supervises what must run as long as the worker. A task, thread or service that ends unexpectedly ends the process.

Faust and mode log a service that crashed and continue without it. aiokafka keeps the error of a background task until
someone asks for it. Python forgets a thread that raised. Each of these leaves a worker that answers and does nothing.
"""

from __future__ import annotations

import asyncio
import threading
import traceback
from collections.abc import Callable, Iterable
from typing import Any, Final

from aiokafka.errors import KafkaError
from faust.transport.consumer import Fetcher
from mode import Service

from stream.core.errors import FreshetError
from stream.process.fatal import fatal

Task = asyncio.Future[Any]

ENDING: Final = ("Collection._clean_data", "Fetcher._fetcher")
"""Tasks of services that may end: Faust's cleaning, if nothing expires; and its fetcher, which Faust ends and recreates
at a rebalance (stream.process.progress detects if it is not recreated)."""

OURS: Final = ("stream.", "deploy.")
"""Modules whose errors in callbacks and unawaited tasks end the process. Errors of libraries there are logged."""


AGAIN: Final = 0.5
"""Seconds after which a task that was cancelled and goes on is cancelled again."""


async def cancelled(tasks: Iterable[Task]) -> None:
    """Cancel tasks until all have ended.

    Once is not enough: asyncio.wait_for, which mode and aiokafka use, forgets in Python 3.11 a cancellation that comes as
    what it waits for ends. Whoever then waits for the task waits for ever.
    """
    unfinished = {task for task in tasks if not task.done()}
    while unfinished:
        for task in unfinished:
            task.cancel()
        _, unfinished = await asyncio.wait(unfinished, timeout=AGAIN)


def guard_services(stopping: Callable[[], bool]) -> None:
    """Make a Faust service end the process if it crashes or a task of it ends, unless the worker is `stopping`.

    A service that stops cancels its tasks until they have ended.
    """

    async def crash(self: Service, reason: BaseException) -> None:
        if not (stopping() or self.should_stop or _restarts(self, reason)):
            fatal(unasked(f"the service {self.label}", reason))
        await crashed(self, reason)

    async def execute(self: Service, task: Any) -> None:
        name = getattr(task, "__qualname__", "") or repr(task)
        try:
            await task
        except asyncio.CancelledError:
            if not (self.should_stop or stopping() or name in ENDING):
                fatal(unasked(f"the task {name} of {self.label}", asyncio.CancelledError()))
        except BaseException as error:
            await self.crash(error)
        else:
            if not (self.should_stop or stopping() or name in ENDING):
                fatal(unasked(f"the task {name} of {self.label}", None))

    async def gather(self: Service, *, timeout: float | None = None) -> None:
        await cancelled(self._futures)
        self._futures.clear()

    crashed = Service.crash
    Service.crash = crash
    Service._execute_task = execute
    Service._gather_futures = gather


def _restarts(service: Service, reason: BaseException) -> bool:
    """Check for Faust's fetcher: a rebalance that overtakes it cancels and recreates it."""
    return isinstance(service, Fetcher) and isinstance(reason, asyncio.CancelledError)


def guard_loop(loop: asyncio.AbstractEventLoop, stopping: Callable[[], bool]) -> None:
    """Make an exception of our code in a callback, or in a task that nobody awaits, end the process.

    Exceptions of libraries, such as after a lost connection, are logged.
    """

    def handle(loop: asyncio.AbstractEventLoop, context: dict[str, Any]) -> None:
        error = context.get("exception")
        if error is not None and not stopping() and _is_ours(error):
            fatal(error)
        loop.default_exception_handler(context)

    loop.set_exception_handler(handle)


def _is_ours(error: BaseException) -> bool:
    """Check whether an error passed through our code. A client's error does not count: its connection is the cause."""
    lines = (frame.f_globals.get("__name__", "") for frame, _ in traceback.walk_tb(error.__traceback__))
    return not isinstance(error, (KafkaError, OSError)) and any(name.startswith(OURS) for name in lines)


def guard_threads(stopping: Callable[[], bool]) -> None:
    """Make an exception of our code that ends a thread end the process, unless the worker is `stopping`.

    Other exceptions are logged as before.
    """
    before = threading.excepthook

    def ended(arguments: threading.ExceptHookArgs) -> None:
        error = arguments.exc_value
        if error is not None and not isinstance(error, SystemExit) and not stopping() and _is_ours(error):
            fatal(error)
        before(arguments)

    threading.excepthook = ended


def look(tasks: Iterable[tuple[str, Task | None]], threads: Iterable[tuple[str, threading.Thread | None]]) -> None:
    """End the process if one of the tasks or threads has ended. None: it has not begun yet."""
    for name, task in tasks:
        if task is not None and task.done():
            fatal(unasked(f"the task {name}", asyncio.CancelledError() if task.cancelled() else task.exception()))
    for name, thread in threads:
        if thread is not None and not thread.is_alive():
            fatal(unasked(f"the thread {name}", None))


def unasked(what: str, reason: BaseException | None) -> BaseException:
    """Return the error to end the process with: the reason why something ended, if it has an error of its own."""
    if reason is None:
        return FreshetError(f"{what} has ended, although nobody asked it to: this is a bug")
    if isinstance(reason, asyncio.CancelledError):
        return FreshetError(f"{what} was cancelled, although nobody asked it to stop: this is a bug")
    return reason
