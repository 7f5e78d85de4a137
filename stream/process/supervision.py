"""What must run as long as the worker does: a task, thread or service that ends unasked ends the process, with its reason.

Faust and mode log a service that crashed and go on without it; aiokafka keeps the error of a background task until somebody asks;
Python forgets a thread that raised. Each leaves a worker that answers and does nothing.
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
"""Tasks of services that may end: Faust's cleaning, where nothing expires; its fetcher, which it ends and makes again at a
rebalance (that it is made again, stream.process.progress sees)."""

OURS: Final = ("stream.", "deploy.")
"""Modules whose errors in callbacks and unasked tasks end the process; what libraries leave behind there is logged."""


def guard_services(stopping: Callable[[], bool]) -> None:
    """From here on every service of Faust ends the process where it crashes, or where one of its tasks ends, unless the worker is
    `stopping`."""

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

    crashed = Service.crash
    Service.crash = crash
    Service._execute_task = execute


def _restarts(service: Service, reason: BaseException) -> bool:
    """Faust's fetcher is cancelled, and made again, where a rebalance overtakes it."""
    return isinstance(service, Fetcher) and isinstance(reason, asyncio.CancelledError)


def guard_loop(loop: asyncio.AbstractEventLoop, stopping: Callable[[], bool]) -> None:
    """An exception of ours in a callback, or in a task that nobody asks, ends the process; what a library leaves behind, of a
    lost connection for one, is logged."""

    def handle(loop: asyncio.AbstractEventLoop, context: dict[str, Any]) -> None:
        error = context.get("exception")
        if error is not None and not stopping() and _is_ours(error):
            fatal(error)
        loop.default_exception_handler(context)

    loop.set_exception_handler(handle)


def _is_ours(error: BaseException) -> bool:
    """It came by a line of ours; a client's error is its connection's."""
    lines = (frame.f_globals.get("__name__", "") for frame, _ in traceback.walk_tb(error.__traceback__))
    return not isinstance(error, (KafkaError, OSError)) and any(name.startswith(OURS) for name in lines)


def guard_threads(stopping: Callable[[], bool]) -> None:
    """An exception of ours that ends a thread ends the process, unless the worker is `stopping`; others are logged as before."""
    before = threading.excepthook

    def ended(arguments: threading.ExceptHookArgs) -> None:
        error = arguments.exc_value
        if error is not None and not isinstance(error, SystemExit) and not stopping() and _is_ours(error):
            fatal(error)
        before(arguments)

    threading.excepthook = ended


def look(tasks: Iterable[tuple[str, Task | None]], threads: Iterable[tuple[str, threading.Thread | None]]) -> None:
    """Ends the process where one of them has ended; None: not begun yet."""
    for name, task in tasks:
        if task is not None and task.done():
            fatal(unasked(f"the task {name}", asyncio.CancelledError() if task.cancelled() else task.exception()))
    for name, thread in threads:
        if thread is not None and not thread.is_alive():
            fatal(unasked(f"the thread {name}", None))


def unasked(what: str, reason: BaseException | None) -> BaseException:
    """Why something ended -> the error to end with: its own where it has one."""
    if reason is None:
        return FreshetError(f"{what} has ended, though nobody asked it to: this is a bug")
    if isinstance(reason, asyncio.CancelledError):
        return FreshetError(f"{what} was cancelled, though nobody asked it to stop: this is a bug")
    return reason
