"""Being asked to stop: SIGTERM and SIGINT are taken by a thread of their own, from the first moment on.

Until the worker has something to give up in good order (`in_order`), a stop ends the process at once: nothing is claimed, and
what is read is in Kafka. From then on the worker stops by itself, and has LIMIT seconds for it, whatever holds it up: a log that
nobody reads, a disk, a broker, a loop that hangs.
"""

from __future__ import annotations

import logging
import signal
import sys
import threading
import traceback
from collections.abc import Callable
from typing import Final

from stream.core.errors import FreshetError
from stream.process.fatal import fatal, leave

SIGNALS: Final = (signal.SIGTERM, signal.SIGINT)
LIMIT: Final = 27.0
"""Seconds; with the last words a worker that is asked to stop is gone within 30."""


class Stopping:
    """Of a process: signals belong to it as a whole. `asked` is true from the signal on."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._listening = False
        self._begin: Callable[[], None] | None = None
        self.asked = False
        self.waits_for = ""
        """What the stop is busy with, for the line that says so where it takes too long."""

    def listen(self) -> None:
        """Take the signals from here on. Called by the main thread, best before others are started: they inherit the mask. A
        signal that finds one without it (of a library, imported earlier) comes by the main thread. May be called twice."""
        if not self._listening:
            self._listening = True
            signal.pthread_sigmask(signal.SIG_BLOCK, SIGNALS)
            thread = threading.Thread(target=self._take, name="signals", daemon=True)
            thread.start()
            for number in SIGNALS:
                signal.signal(number, lambda number, frame: signal.pthread_kill(thread.ident or 0, number))

    def in_order(self, begin: Callable[[], None]) -> None:
        """begin: called from the signals' thread once a stop is asked for; it only tells the worker, and returns."""
        with self._lock:
            self._begin = begin

    def _take(self) -> None:
        signal.sigwait(SIGNALS)
        with self._lock:
            self.asked = True
            begin = self._begin
        if begin is None:
            leave(0, "worker stopped", level=logging.INFO)
        begin()
        threading.Event().wait(LIMIT)
        where = f", waits for {self.waits_for}" if self.waits_for else ""
        fatal(
            FreshetError(f"asked to stop, and not stopped within {LIMIT:g} s{where}; the main thread is {standing()}")
        )


def standing() -> str:
    """Where the main thread is: the innermost lines, for a message."""
    frame = sys._current_frames().get(threading.main_thread().ident or 0)
    lines = traceback.extract_stack(frame)[-3:] if frame is not None else []
    return "at " + " < ".join(f"{one.name} ({one.filename.rpartition('/')[2]}:{one.lineno})" for one in reversed(lines))


stopping: Final = Stopping()
