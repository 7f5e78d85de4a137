"""Checks that the worker makes progress. If work stands still, the process ends with a line that names what it waits
for.

A worker can be alive and do nothing: a recovery that ended silently, a fetch that never returns, a loop that hangs. A
heartbeat alone shows none of these. The worker waits for an unreachable broker, and logs that it does.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Hashable, Mapping
from typing import Final, NamedTuple

from stream.core.errors import FreshetError
from stream.process.fatal import fatal
from stream.process.stopping import standing, stopping

TICK: Final = 0.5  # seconds between two checks
STEP: Final = 2.0  # most seconds that one check counts: a process that was stopped had no time to make progress
SAY: Final = 30.0  # seconds between two warnings
PATIENCE: Final = 5.0  # seconds that something may be unreachable before the first warning

log = logging.getLogger("freshet.worker")


class Work(NamedTuple):
    """Work that must make progress.

    Attributes:
        what: The work in words, to follow "waits for".
        marks: A value that differs once the work has moved.
        absent: What the work needs and is unreachable; "" for nothing.
        held: A clause that says what holds the work up although everything answers; "" if nothing is known.
    """

    what: str
    marks: Hashable
    absent: str = ""
    held: str = ""

    @property
    def named(self) -> str:
        """The work, and what holds it up."""
        return f"{self.what}: {self.held}" if self.held else self.what


class Progress:
    """Counts the seconds for which each work has not moved. `limit` is the maximum, in seconds.

    Time does not count while something that the work needs is unreachable, or while nothing checks. If something else
    holds the work up, it is soon logged, and the time counts.
    """

    def __init__(self, limit: float, clock: Callable[[], float] = time.monotonic) -> None:
        self._limit = limit
        self._clock = clock
        self._last = clock()
        self._stands: dict[str, tuple[Hashable, float]] = {}
        self._here = self._last  # when nothing was unreachable or known to hold work up
        self._logged = -SAY
        self.seconds = 0.0
        """Seconds for which the longest standing work has not moved."""
        self.what = ""
        """That work; or what work needs and is unreachable."""

    @property
    def stalled(self) -> bool:
        return self.seconds >= self._limit

    def look(self, works: Mapping[str, Work]) -> None:
        """Check all current work, each under its own name. Raises FreshetError if one stands still for too long."""
        now = self._clock()
        step, self._last = min(now - self._last, STEP), now
        stands: dict[str, tuple[Hashable, float]] = {}
        away = held = ""
        for name, work in works.items():
            marks, seconds = self._stands.get(name, (work.marks, -step))
            if marks != work.marks:
                seconds = 0.0
            elif work.absent:
                away = work.absent
                seconds = max(0.0, seconds)
            else:
                held = work.named if work.held else held
                seconds += step
            stands[name] = work.marks, seconds
        self._stands = stands
        longest = max(stands, key=lambda name: stands[name][1], default="")
        self.seconds = stands[longest][1] if longest else 0.0
        self.what = away or (works[longest].named if longest and self.seconds > 0 else "")
        if not (away or held):
            self._here = now
        if now - self._here >= PATIENCE and now - self._logged >= SAY:
            self._logged = now
            log.warning("the worker waits for %s", away or held)
        if self.stalled and not works[longest].absent:
            stood = f"nothing has moved for {self.seconds:.0f} s (stall_timeout), although there is work"
            raise FreshetError(f"{stood}: waits for {works[longest].named}")


class LoopWatch(threading.Thread):
    """Ends the process if an event loop has not turned for `limit` seconds.

    Args:
        limit: Seconds.
        beats: Loop name -> function whose result differs whenever the loop has turned.
        alive: Called about once per second, as long as Python threads run at all.
    """

    def __init__(
        self, limit: float, beats: Mapping[str, Callable[[], Hashable]], alive: Callable[[], None] = lambda: None
    ) -> None:
        super().__init__(name="watch", daemon=True)
        self._beats = beats
        self._alive = alive
        self._progress = Progress(limit)

    def run(self) -> None:
        while not stopping.asked:  # a stop has its own limit
            time.sleep(1.0)
            self._alive()
            try:
                self._progress.look({name: Work(f"{name} to turn", beat()) for name, beat in self._beats.items()})
            except FreshetError as error:
                fatal(FreshetError(f"{error}; the main thread is {standing()}"))
