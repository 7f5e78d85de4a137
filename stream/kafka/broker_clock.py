"""The clock that a worker uses: the brokers' time, because its own machine's clock may be wrong or jump."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable
from typing import Final

log = logging.getLogger("freshet.clock")

Seconds = Callable[[], float]


_BOOT: int | None = getattr(time, "CLOCK_BOOTTIME", None)


def steady() -> float:
    """Return seconds that never decrease. If the system supports it, the time that the machine sleeps counts, too."""
    return time.monotonic() if _BOOT is None else time.clock_gettime(_BOOT)


class Clock:
    """A clock that starts with the machine's wall clock, then runs with `steady`, so jumps of the wall clock do not matter.

    Every acknowledgement contains the time at which a broker appended what was sent: after it was sent and before it
    was acknowledged. If this clock contradicts that, it is moved by the smallest amount that resolves the
    contradiction. So the remaining error is at most the time that one send took.
    """

    def __init__(self, wall: Seconds = time.time, steady: Seconds = steady) -> None:
        self._wall = wall
        self.steady = steady
        self._begin = wall() - steady()

    def now(self) -> float:
        """Return the Unix time in seconds by the brokers' clocks, as far as they are known."""
        return self._begin + self.steady()

    def now_ms(self) -> int:
        """Return the same time in milliseconds, never negative."""
        return max(0, int(self.now() * 1000))

    def learn(self, sent: float, append_ms: int) -> None:
        """Adjust the clock to an acknowledgement that has arrived now.

        Args:
            sent: When the record was sent, by `steady`.
            append_ms: When the broker appended it, epoch ms; -1 if its topic keeps the sender's time instead.
        """
        if append_ms >= 0:
            earliest, latest = append_ms / 1000 - self.steady(), (append_ms + 1) / 1000 - sent
            self._begin = min(max(self._begin, earliest), latest)

    @property
    def offset(self) -> float:
        """Seconds by which the brokers are ahead of the machine's wall clock; negative if they are behind it."""
        return self.now() - self._wall()


WRONG: Final = 5.0
"""Seconds between two clocks that network delay cannot explain."""


class Difference:
    """Logs once when the machine's clock differs from the brokers', and once when it agrees again."""

    def __init__(self) -> None:
        self._differs = False

    def look(self, offset: float) -> None:
        """Check the current `Clock.offset`."""
        differs = abs(offset) > WRONG
        if differs != self._differs:
            self._differs = differs
            fields = {"offset_seconds": round(offset, 3)}
            if differs:
                log.warning("this machine's clock differs from the brokers'", extra=fields)
            else:
                log.info("this machine's clock agrees with the brokers' again", extra=fields)
