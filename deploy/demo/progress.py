"""What there is to see of a demo: its steps, the replay's figures, one user's slate. `view` draws it, or it is told line
by line where nobody can watch."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Final

from deploy.demo.hit_rate import HitRate

QUIET: Final = 5.0  # seconds between two notes that are told as lines


@dataclass
class Step:
    """One step of the demo. seconds: None while it runs."""

    name: str
    text: str
    began: float
    seconds: float | None = None


@dataclass(frozen=True)
class Figures:
    """The replay so far. rate: events/s, lately; p50_ms, p99_ms: append of an event to its slate, as the worker says in
    each slate; round_ms: the same quantiles as a client sees them, from send to read; hits: None before the first."""

    done: int
    total: int
    rate: float
    p50_ms: float
    p99_ms: float
    round_ms: tuple[float, float]
    hits: HitRate | None = None


@dataclass(frozen=True)
class Spot:
    """One user's slate around their newest event. said: the event in words; rank: the item's place, from 0, in the slate
    before it, -1 for none; before, now: titles, best first."""

    user: str
    number: int
    of: int
    said: str
    rank: int
    before: tuple[str, ...]
    now: tuple[str, ...]


def silent(line: str) -> None:
    """Tells nobody."""


@dataclass
class Board:
    """tell: gets a line for each step that begins or ends, and some notes between."""

    tell: Callable[[str], None] = silent
    title: str = ""
    hint: str = ""
    steps: list[Step] = field(default_factory=list)
    figures: Figures | None = None
    spot: Spot | None = None
    _told: float = 0.0

    def begin(self, name: str, text: str = "") -> None:
        self.steps.append(Step(name, text, time.monotonic()))
        self._told = time.monotonic()
        self.tell(f"{name}: {text}" if text else f"{name} ...")

    def note(self, text: str) -> None:
        """How the step gets on; told as a line every QUIET seconds at most."""
        step = self.steps[-1]
        step.text = text
        if time.monotonic() - self._told >= QUIET:
            self.line(text)

    def line(self, text: str) -> None:
        """A remark that is always told."""
        self.steps[-1].text = text
        self._told = time.monotonic()
        self.tell(f"{self.steps[-1].name}: {text}")

    def done(self, text: str) -> None:
        step = self.steps[-1]
        step.text = text
        step.seconds = time.monotonic() - step.began
        self.tell(f"{step.name}: {text} ({step.seconds:.1f} s)")
