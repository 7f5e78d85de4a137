"""What the demo shows: its steps, the replay's figures, and one user's slate.

deploy.demo.terminal draws it. Without a terminal, it is printed line by line.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Final

from deploy.demo.hit_rate import HitRate

QUIET: Final = 5.0  # minimum seconds between two notes that are printed as lines


@dataclass
class Step:
    """One step of the demo. seconds: None while it runs."""

    name: str
    text: str
    began: float
    seconds: float | None = None


@dataclass(frozen=True)
class Figures:
    """The figures of the replay so far.

    Attributes:
        done: Number of events that a slate has shown.
        total: Number of all events.
        rate: Recent rate in events/s.
        p50_ms: Median time from the append of an event to its slate, as the worker reports it in each slate.
        p99_ms: 99 % quantile of that time.
        round_ms: The same two quantiles as a client sees them, from send to read.
        hits: Hit rate; None before the first counted event.
    """

    done: int
    total: int
    rate: float
    p50_ms: float
    p99_ms: float
    round_ms: tuple[float, float]
    hits: HitRate | None = None


@dataclass(frozen=True)
class Spot:
    """One user's slate before and after their newest event.

    Attributes:
        user: The user's id.
        number: Number of the event among the user's.
        of: How many events the user has.
        words: The event in words.
        rank: Rank of its item in the slate before it, from 0; -1 if it was not there.
        before: Titles of the slate before it, best first.
        now: Titles of the slate after it, best first.
    """

    user: str
    number: int
    of: int
    words: str
    rank: int
    before: tuple[str, ...]
    now: tuple[str, ...]


def silent(line: str) -> None:
    """Ignore the line."""


@dataclass
class Board:
    """The current view of the demo. print_line: receives a line for each step that begins or ends, and notes in between."""

    print_line: Callable[[str], None] = silent
    title: str = ""
    hint: str = ""
    steps: list[Step] = field(default_factory=list)
    figures: Figures | None = None
    spot: Spot | None = None
    _printed: float = 0.0

    def begin(self, name: str, text: str = "") -> None:
        self.steps.append(Step(name, text, time.monotonic()))
        self._printed = time.monotonic()
        self.print_line(f"{name}: {text}" if text else f"{name} ...")

    def note(self, text: str) -> None:
        """Update the progress of the step. It is printed as a line at most every QUIET seconds."""
        step = self.steps[-1]
        step.text = text
        if time.monotonic() - self._printed >= QUIET:
            self.line(text)

    def line(self, text: str) -> None:
        """Show a remark that is always printed."""
        self.steps[-1].text = text
        self._printed = time.monotonic()
        self.print_line(f"{self.steps[-1].name}: {text}")

    def done(self, text: str) -> None:
        step = self.steps[-1]
        step.text = text
        step.seconds = time.monotonic() - step.began
        self.print_line(f"{step.name}: {text} ({step.seconds:.1f} s)")
