"""Bounds of numbers on a command line. Beyond them, a library or the machine would fail later and less clearly."""

from __future__ import annotations

import math
from typing import Final

import typer

SEED: Final = 2**32 - 1  # for the generators of numpy and implicit
SEEDS: Final = 1000  # fits per model
EPOCHS: Final = 100_000
EVENTS: Final = 10**12  # for anything that is counted
HELD_OUT: Final = 1_000_000  # choices per user
MINUTES: Final = 525_600.0  # a year
DAYS: Final = 36_525.0  # a century
SECONDS: Final = 31_536_000.0  # a year
RATE: Final = 1e9  # per second
PARTITION: Final = 2**31 - 1  # Kafka's
OFFSET: Final = 2**63 - 1  # Kafka's


def number(value: float | None) -> float | None:
    """Return the value of an option if it is finite. Otherwise raise typer.BadParameter.

    nan would pass any bounds check, and a wait for it would never end.
    """
    if value is not None and not math.isfinite(value):
        raise typer.BadParameter(f"found {value}, expected a number")
    return value
