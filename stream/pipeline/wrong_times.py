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
        self._logged: float | None = None
        self._unlogged = 0

    def see(self, topic: str, error: RecordError) -> None:
        """Note that a record of `topic` was refused. Refusals for other reasons than times are ignored."""
        if not error.unit and error.reason != "far_past":
            return
        self._unlogged += 1
        now = self._now()
        if self._logged is None or now - self._logged >= EVERY:
            message = "records of %s become dead letters because of their time: %s"
            log.warning(message, topic, error, extra={"records": self._unlogged, "unit": error.unit})
            self._logged, self._unlogged = now, 0
