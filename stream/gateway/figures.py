"""Live figures: what the slates of the last seconds say, and a hit rate that another program has measured.

Slates are counted only while a client follows some (stream.gateway.slates), since nothing is fetched otherwise.
"""

from __future__ import annotations

import logging
import time
from collections import Counter, deque
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Final

import msgspec
from msgspec import UNSET, UnsetType

from stream.core.unreadable import UNREADABLE
from stream.gateway.messages import Figures, HitRates

WINDOW: Final = 10.0
"""Seconds that the figures are about."""
LEAST: Final = 1.0
"""Seconds that must be counted before there is a rate."""
MAX_FILE: Final = 1 << 16
DEFAULT: Final = "default"


class _Counted(msgspec.Struct):
    """The parts of a recommendation that are counted."""

    latency_ms: Annotated[int, msgspec.Meta(ge=-1, le=1 << 53)]
    events: list[msgspec.Raw]
    replay: bool = False
    placement: str = DEFAULT


log = logging.getLogger("freshet.gateway")

_COUNTED: Final = msgspec.json.Decoder(_Counted)
_RATES: Final = msgspec.json.Decoder(HitRates)


@dataclass
class _Part:
    """One second. latencies: milliseconds -> slates."""

    began: float
    events: int = 0
    latencies: Counter[int] = field(default_factory=Counter)


class SlateFigures:
    """Counts slates as they come.

    Args:
        now: Returns the time in seconds, monotonic.
    """

    def __init__(self, now: Callable[[], float] = time.monotonic) -> None:
        self._now = now
        self._began: float | None = None
        self._parts: deque[_Part] = deque()

    def begin(self) -> None:
        """Say that from now on every slate is added."""
        self._began = self._now()
        self._parts.clear()

    def end(self) -> None:
        """Say that no more slates are added."""
        self._began = None
        self._parts.clear()

    def add(self, value: bytes) -> None:
        """Count one record of the recommendations topic. One that is no recommendation counts nothing.

        Of the slates that one event moves, only that of the default placement counts.
        """
        try:
            slate = _COUNTED.decode(value)
        except UNREADABLE:
            return
        if slate.placement not in (DEFAULT, ""):
            return
        self._move()
        part = self._parts[-1]
        part.events += len(slate.events)
        if not slate.replay and slate.latency_ms >= 0:
            part.latencies[slate.latency_ms] += 1

    def answer(self, rates: HitRates | UnsetType = UNSET, problem: str = "") -> Figures:
        """Return the figures of the last seconds, with what `HitRateFile.read` returned."""
        error = problem or UNSET
        if self._began is None:
            return Figures(window_seconds=WINDOW, counted_seconds=0.0, hit_rate=rates, hit_rate_error=error)
        self._move()
        seconds = min(WINDOW, self._now() - self._began)
        if seconds < LEAST:
            return Figures(
                window_seconds=WINDOW, counted_seconds=round(seconds, 1), hit_rate=rates, hit_rate_error=error
            )
        latencies: Counter[int] = Counter()
        for part in self._parts:
            latencies.update(part.latencies)
        return Figures(
            window_seconds=WINDOW,
            counted_seconds=round(seconds, 1),
            events_per_second=round(sum(part.events for part in self._parts) / seconds, 1),
            p50_ms=_quantile(latencies, 0.50),
            p99_ms=_quantile(latencies, 0.99),
            hit_rate=rates,
            hit_rate_error=error,
        )

    def _move(self) -> None:
        now = self._now()
        if not self._parts or now - self._parts[-1].began >= 1.0:
            self._parts.append(_Part(now))
        while now - self._parts[0].began > WINDOW:
            self._parts.popleft()


def _quantile(latencies: Counter[int], share: float) -> int | UnsetType:
    wanted = share * latencies.total()
    seen = 0
    for latency in sorted(latencies):
        seen += latencies[latency]
        if seen >= wanted:
            return latency
    return UNSET


class HitRateFile:
    """A hit rate that another program measures and writes to a file (setting `serve_figures`).

    Args:
        file: The file; None if there is none. It may appear later.
    """

    def __init__(self, file: Path | None) -> None:
        self._file = file
        self._problem = ""

    def read(self) -> tuple[HitRates | UnsetType, str]:
        """Return the hit rate, and why it cannot be read ("" if it can, or if there is no file yet).

        Each new reason is logged.
        """
        found, problem = self._read()
        if problem and problem != self._problem:
            log.warning("the file of serve_figures cannot be read", extra={"file": str(self._file), "reason": problem})
        self._problem = problem
        return found, problem

    def _read(self) -> tuple[HitRates | UnsetType, str]:
        if self._file is None:
            return UNSET, ""
        try:
            if not self._file.is_file():  # opening a pipe waits for a writer
                return UNSET, "it is no regular file" if self._file.exists() else ""
            with self._file.open("rb") as opened:
                content = opened.read(MAX_FILE + 1)
            if len(content) > MAX_FILE:
                return UNSET, f"it has more than {MAX_FILE} bytes"
            return _RATES.decode(content), ""
        except FileNotFoundError:
            return UNSET, ""
        except OSError as error:
            return UNSET, error.strerror or "it cannot be read"
        except UNREADABLE as error:
            return UNSET, str(error)
