"""The last resort: the end of a process in which a library keeps Python itself from running.

RocksDB's binding, for one, holds Python's lock (the GIL) while it writes and opens: on a disk that hangs no other thread runs, so
no watch of ours can see it, let alone speak. faulthandler's thread needs no lock: unless it is put off in time, it prints where
all threads are and ends the process with 1.

Whoever puts it off is itself a thread that needs the lock; so what takes long is of no matter, only a lock that nobody else gets.
It waits by the steady clock: the sleep of a machine does not count, nor does a clock that is set. A process that was stopped
(SIGSTOP) for longer than the limit is ended as it goes on, for no thread of it can run before. Its partitions are others' then.
"""

from __future__ import annotations

import faulthandler
import logging
import os
import sysconfig
import time
from collections.abc import Callable
from contextlib import suppress
from typing import Final

EVERY = 5.0  # seconds between two times that the end is put off: each costs a thread

log = logging.getLogger("freshet.worker")


class Guard:
    """Of a process: faulthandler has one timer. Use: `arm(limit)`, then `beat()` often, from any one thread."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._limit = 0.0
        self._armed: float | None = None  # when; None: not at all
        self._file: int | None = None
        self._told = False

    def arm(self, limit: float) -> None:
        """From now on the process ends where nobody calls `beat` for `limit` seconds."""
        if not sysconfig.get_config_var("HAVE_SEM_CLOCKWAIT"):
            if not self._told:
                self._told = True
                log.warning(
                    "this build of Python waits by the wall clock (no sem_clockwait): a worker that hangs inside a library does "
                    "not end by itself; watch /healthz"
                )
            return
        self._limit = limit
        self._armed = None
        self.beat()

    def beat(self) -> None:
        """Puts the end off."""
        now = self._clock()
        if not self._limit or (self._armed is not None and now - self._armed < EVERY):
            return
        if self._file is None:
            self._file = _stderr()
        self._armed = None
        with suppress(RuntimeError):  # no thread can be had: the next beat tries again
            faulthandler.dump_traceback_later(self._limit, exit=True, file=self._file)
            self._armed = now


def _stderr() -> int:
    """A descriptor of standard error whose writes never wait, where the system gives one: a pipe that nobody reads must not hold
    the end back. One of its own, since others share what `2` is."""
    with suppress(OSError):
        return os.open("/proc/self/fd/2", os.O_WRONLY | os.O_APPEND | os.O_NONBLOCK | os.O_CLOEXEC)
    return 2


guard: Final = Guard()
