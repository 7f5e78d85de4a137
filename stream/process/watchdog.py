"""The last resort: it ends a process in which a library keeps Python itself from running.

RocksDB's binding, for example, holds Python's lock (the GIL) while it writes and opens. On a disk that hangs, no other
thread runs, so no Python thread can detect or log it. faulthandler's thread needs no lock. Unless it is postponed in
time, it prints where all threads are and ends the process with 1.

A Python thread, which needs the lock, postpones it. So slow work does not matter, only a lock that no other thread can
get. It uses the monotonic clock: time in which the machine sleeps does not count, and setting the clock has no effect.
A process that was stopped (SIGSTOP) for longer than the limit ends as soon as it continues, since none of its threads
could run before. By then, other workers have its partitions.
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

EVERY = 5.0  # seconds between two postponements: each costs a thread

log = logging.getLogger("freshet.worker")


class Guard:
    """The timer of this process: faulthandler has only one. Call `arm(limit)`, then `beat()` often, from one thread."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._limit = 0.0
        self._armed: float | None = None  # when it was armed; None: it is not
        self._file: int | None = None
        self._warned = False

    def arm(self, limit: float) -> None:
        """From now on, end the process if `beat` is not called for `limit` seconds."""
        if not sysconfig.get_config_var("HAVE_SEM_CLOCKWAIT"):
            if not self._warned:
                self._warned = True
                log.warning(
                    "this build of Python uses the wall clock for timeouts (no sem_clockwait): a worker that hangs inside a "
                    "library will not end by itself; monitor /healthz"
                )
            return
        self._limit = limit
        self._armed = None
        self.beat()

    def beat(self) -> None:
        """Postpone the end."""
        now = self._clock()
        if not self._limit or (self._armed is not None and now - self._armed < EVERY):
            return
        if self._file is None:
            self._file = _stderr()
        self._armed = None
        with suppress(RuntimeError):  # no thread can be started: the next beat tries again
            faulthandler.dump_traceback_later(self._limit, exit=True, file=self._file)
            self._armed = now


def _stderr() -> int:
    """Return a descriptor of standard error whose writes never block, if the system has one.

    A pipe that nobody reads must not delay the end. It is a new descriptor, since other code shares descriptor 2.
    """
    with suppress(OSError):
        return os.open("/proc/self/fd/2", os.O_WRONLY | os.O_APPEND | os.O_NONBLOCK | os.O_CLOEXEC)
    return 2


guard: Final = Guard()
