"""Stopping on request: a separate thread handles SIGTERM and SIGINT from the first moment on.

Until the worker has something to release in good order (`in_order`), a stop ends the process immediately: nothing is
claimed, and what was read is in Kafka. From then on the worker stops by itself. It has LIMIT seconds for that, whatever
holds it up: a log that nobody reads, a disk, a broker, a loop that hangs.
"""

from __future__ import annotations

import asyncio
import logging
import signal
import sys
import threading
import traceback
from collections.abc import Callable
from typing import Final

from stream.core.errors import FreshetError
from stream.process.fatal import fatal, leave, process

SIGNALS: Final = (signal.SIGTERM, signal.SIGINT)
LIMIT: Final = 27.0
"""Seconds. Including the last log line, a worker that is asked to stop is gone within 30."""


class Stopping:
    """The stop of this process, one per process, as signals are. `asked` is true from the signal on."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._listening = False
        self._begin: Callable[[], None] | None = None
        self.asked = False
        self.waits_for = ""
        """What the stop is busy with, for the log line if it takes too long."""
        self.loops: dict[str, asyncio.AbstractEventLoop] = {}
        """Loops by the names of their threads, whose unfinished tasks that log line names."""

    def listen(self) -> None:
        """Handle the signals from here on. May be called twice.

        The main thread calls it, if possible before other threads start: they inherit the signal mask. A signal that
        reaches a thread without the mask (started by a library that was imported earlier) is passed on by the main
        thread.
        """
        if not self._listening:
            self._listening = True
            signal.pthread_sigmask(signal.SIG_BLOCK, SIGNALS)
            thread = threading.Thread(target=self._take, name="signals", daemon=True)
            thread.start()
            for number in SIGNALS:
                signal.signal(number, lambda number, frame: signal.pthread_kill(thread.ident or 0, number))

    def in_order(self, begin: Callable[[], None]) -> None:
        """Set the function that begins an orderly stop. The signals' thread calls it; it only notifies the worker."""
        with self._lock:
            self._begin = begin

    def _take(self) -> None:
        signal.sigwait(SIGNALS)
        with self._lock:
            self.asked = True
            begin = self._begin
        if begin is None:
            leave(0, f"{process()} stopped", level=logging.INFO)
        begin()
        threading.Event().wait(LIMIT)
        where = f", waits for {self.waits_for}" if self.waits_for else ""
        tasks = "".join(f"; {name} has {unfinished(loop)}" for name, loop in self.loops.items())
        fatal(
            FreshetError(
                f"asked to stop, but not stopped within {LIMIT:g} s{where}; the main thread is {standing()}{tasks}"
            )
        )


def standing() -> str:
    """Return where the main thread is, for a message: its innermost lines."""
    frame = sys._current_frames().get(threading.main_thread().ident or 0)
    lines = traceback.extract_stack(frame)[-3:] if frame is not None else []
    return "at " + " < ".join(f"{one.name} ({one.filename.rpartition('/')[2]}:{one.lineno})" for one in reversed(lines))


def unfinished(loop: asyncio.AbstractEventLoop) -> str:
    """Return which tasks of a loop are unfinished and where they wait, for a message. Any thread may call it."""
    try:
        tasks = asyncio.all_tasks(loop)
    except RuntimeError:  # they changed all the time that Python tried to list them
        return "tasks that come and go"
    lines = []
    for task in tasks:
        frames = task.get_stack(limit=1)
        code = frames[-1].f_code if frames else None
        where = f" at {code.co_name} ({code.co_filename.rpartition('/')[2]}:{frames[-1].f_lineno})" if code else ""
        lines.append(f"{getattr(task.get_coro(), '__qualname__', 'a task')}{where}")
    return ", ".join(sorted(lines)) or "no unfinished task"


stopping: Final = Stopping()
