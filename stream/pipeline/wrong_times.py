"""Events whose times are in another unit, or too old, are told in the log: one line a minute, with the unit and what to do."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable
from typing import Final

from stream.core.errors import RecordError

EVERY: Final = 60.0
"""Seconds from one line to the next."""

log = logging.getLogger("freshet.times")


class WrongTimes:
    """One line at once, then at most one in EVERY seconds. now: seconds."""

    def __init__(self, now: Callable[[], float] = time.monotonic) -> None:
        self._now = now
        self._told: float | None = None
        self._untold = 0

    def see(self, topic: str, error: RecordError) -> None:
        """A record of `topic` is refused; what has nothing to do with times is passed over."""
        if not error.unit and error.reason != "far_past":
            return
        self._untold += 1
        now = self._now()
        if self._told is None or now - self._told >= EVERY:
            said = "records of %s become dead letters for their time: %s"
            log.warning(said, topic, error, extra={"records": self._untold, "unit": error.unit})
            self._told, self._untold = now, 0
