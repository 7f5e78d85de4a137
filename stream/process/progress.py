"""Whether the worker gets on: work that does not move ends the process, with a line that names what it waits for.

A worker can be alive and do nothing: a recovery that ended without a word, a fetch that never returns, a loop that hangs. None of
these shows in a heartbeat alone. A broker that is away is waited for, and said so.
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

TICK: Final = 0.5  # seconds between two looks
STEP: Final = 2.0  # seconds that one look counts for at most: a process that was stopped had no time to get on
SAY: Final = 30.0  # seconds between two warnings
PATIENCE: Final = 5.0  # seconds that something may be away before the first

log = logging.getLogger("freshet.worker")


class Work(NamedTuple):
    """Something that must get on. what: in words, after "waits for"; marks: differ where it has moved since; absent: what is away
    that it needs, "" for nothing; held: what holds it up though all answer, a clause, "" for nothing known."""

    what: str
    marks: Hashable
    absent: str = ""
    held: str = ""

    @property
    def named(self) -> str:
        """What is waited for, and what holds it up."""
        return f"{self.what}: {self.held}" if self.held else self.what


class Progress:
    """Seconds for which each work has not moved. limit: of these, in seconds.

    Time in which something that is needed was away, or in which nobody looked, does not count. What holds work up otherwise is
    named soon, and its time counts.
    """

    def __init__(self, limit: float, clock: Callable[[], float] = time.monotonic) -> None:
        self._limit = limit
        self._clock = clock
        self._last = clock()
        self._stands: dict[str, tuple[Hashable, float]] = {}
        self._here = self._last  # when nothing was away, or known to hold anything up
        self._said = -SAY
        self.seconds = 0.0
        """Of the work that has stood still for longest."""
        self.what = ""
        """That work; or what is away that it needs."""

    @property
    def stalled(self) -> bool:
        return self.seconds >= self._limit

    def look(self, works: Mapping[str, Work]) -> None:
        """works: all there is to do now, each under a name of its own. Raises FreshetError where one stands for too long."""
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
        if now - self._here >= PATIENCE and now - self._said >= SAY:
            self._said = now
            log.warning("the worker waits for %s", away or held)
        if self.stalled and not works[longest].absent:
            stood = f"nothing has moved for {self.seconds:.0f} s (stall_timeout), though there is work"
            raise FreshetError(f"{stood}: waits for {works[longest].named}")


class LoopWatch(threading.Thread):
    """Ends the process where an event loop has not turned for `limit` seconds.

    beats: by the loop's name, what differs whenever it has turned since; alive: called about once a second, as long as threads of
    Python get to run at all.
    """

    def __init__(
        self, limit: float, beats: Mapping[str, Callable[[], Hashable]], alive: Callable[[], None] = lambda: None
    ) -> None:
        super().__init__(name="watch", daemon=True)
        self._beats = beats
        self._alive = alive
        self._progress = Progress(limit)

    def run(self) -> None:
        while not stopping.asked:  # a stop has a limit of its own
            time.sleep(1.0)
            self._alive()
            try:
                self._progress.look({name: Work(f"{name} to turn", beat()) for name, beat in self._beats.items()})
            except FreshetError as error:
                fatal(FreshetError(f"{error}; the main thread is {standing()}"))
