"""Logs events whose times are in a wrong unit, or too old: one line per minute, with the unit and what to do."""

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
    """Logs the first such record immediately, then at most one line every EVERY seconds; `now` returns seconds."""

    def __init__(self, now: Callable[[], float] = time.monotonic) -> None:
        self._now = now
        self._told: float | None = None
        self._untold = 0

    def see(self, topic: str, error: RecordError) -> None:
        """Note that a record of `topic` was refused. Refusals for other reasons than times are ignored."""
        if not error.unit and error.reason != "far_past":
            return
        self._untold += 1
        now = self._now()
        if self._told is None or now - self._told >= EVERY:
            said = "records of %s become dead letters because of their time: %s"
            log.warning(said, topic, error, extra={"records": self._untold, "unit": error.unit})
            self._told, self._untold = now, 0
