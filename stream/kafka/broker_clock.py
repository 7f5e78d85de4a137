"""The time that a worker goes by: the brokers', not that of its own machine, whose clock may be wrong or jump."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable
from typing import Final

log = logging.getLogger("freshet.clock")

Seconds = Callable[[], float]


_BOOT: int | None = getattr(time, "CLOCK_BOOTTIME", None)


def steady() -> float:
    """Seconds that only ever grow; where the system can say it, a machine's sleep counts too."""
    return time.monotonic() if _BOOT is None else time.clock_gettime(_BOOT)


class Clock:
    """Begins with the machine's wall clock, then runs with `steady`: a wall clock that jumps moves nothing.

    Every acknowledgement tells when a broker appended what was sent: after it was sent and before it was acknowledged. A time
    by which that could not be is moved to the nearest by which it could, so what is left of an error is at most the time that
    one send took.
    """

    def __init__(self, wall: Seconds = time.time, steady: Seconds = steady) -> None:
        self._wall = wall
        self.steady = steady
        self._begin = wall() - steady()

    def now(self) -> float:
        """Unix time in seconds, by the brokers as far as they have told."""
        return self._begin + self.steady()

    def now_ms(self) -> int:
        """The same in milliseconds, never negative."""
        return max(0, int(self.now() * 1000))

    def learn(self, sent: float, append_ms: int) -> None:
        """What was sent at `sent` (by `steady`) is acknowledged now; append_ms: the broker's time of it, epoch ms, or -1 where
        its topic keeps the sender's instead."""
        if append_ms >= 0:
            earliest, latest = append_ms / 1000 - self.steady(), (append_ms + 1) / 1000 - sent
            self._begin = min(max(self._begin, earliest), latest)

    @property
    def offset(self) -> float:
        """Seconds by which the brokers are ahead of the machine's wall clock; negative: behind it."""
        return self.now() - self._wall()


WRONG: Final = 5.0
"""Seconds between two clocks that nobody calls network delay."""


class Difference:
    """Says once in the log when the machine's clock differs from the brokers', and once when it agrees again."""

    def __init__(self) -> None:
        self._differs = False

    def look(self, offset: float) -> None:
        """offset: see Clock."""
        differs = abs(offset) > WRONG
        if differs != self._differs:
            self._differs = differs
            said = {"offset_seconds": round(offset, 3)}
            if differs:
                log.warning("this machine's clock differs from the brokers'", extra=said)
            else:
                log.info("this machine's clock agrees with the brokers' again", extra=said)
