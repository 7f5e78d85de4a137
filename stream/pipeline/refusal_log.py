"""Logs records that become dead letters: one line per reason and minute, with the position and what to do."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable
from typing import Final

from stream.core.errors import RecordError

EVERY: Final = 60.0
"""Seconds from one line to the next with the same reason."""

DEAD_LETTER: Final = "%s/%d/%d becomes a dead letter (%s): %s; `freshet deadletters list` shows all"
"""A line, for topic, partition, offset, reason and what is wrong."""

log = logging.getLogger("freshet.deadletters")


class RefusalLog:
    """Logs the first record of a reason immediately, then at most one line every EVERY seconds; `now` returns seconds.

    A line's field `records` counts the dead letters with its reason since the line before, itself included. `wording` is in
    the form of DEAD_LETTER.
    """

    def __init__(self, now: Callable[[], float] = time.monotonic, wording: str = DEAD_LETTER) -> None:
        self._now = now
        self._wording = wording
        self._logged: dict[str, float] = {}  # reason -> when its last line was logged; reasons are few and fixed
        self._unlogged: dict[str, int] = {}

    def see(self, topic: str, partition: int, offset: int, error: RecordError) -> None:
        """Note that the record at this position becomes a dead letter."""
        reason = error.reason
        records = self._unlogged.get(reason, 0) + 1
        now = self._now()
        if reason in self._logged and now - self._logged[reason] < EVERY:
            self._unlogged[reason] = records
            return
        self._logged[reason], self._unlogged[reason] = now, 0
        extra = {"records": records, "reason": reason, "stage": error.stage, "field": error.field, "unit": error.unit}
        log.warning(self._wording, topic, partition, offset, reason, error.named, extra=extra)
