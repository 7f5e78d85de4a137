"""Bounds of numbers on a command line, where a library or the machine would fail beyond them, late and in its own words."""

from __future__ import annotations

import math
from typing import Final

import typer

SEED: Final = 2**32 - 1  # of numpy's and implicit's generators
SEEDS: Final = 1000  # fits of each model
EPOCHS: Final = 100_000
EVENTS: Final = 10**12  # of anything that is counted
HELD_OUT: Final = 1_000_000  # choices of one user
MINUTES: Final = 525_600.0  # a year
SECONDS: Final = 31_536_000.0  # a year
RATE: Final = 1e9  # a second
PARTITION: Final = 2**31 - 1  # Kafka's
OFFSET: Final = 2**63 - 1  # Kafka's


def number(value: float | None) -> float | None:
    """The value of an option, where it is a number: nan lies within any bounds, and no wait for it ever ends. Raises
    typer.BadParameter."""
    if value is not None and not math.isfinite(value):
        raise typer.BadParameter(f"found {value}, expected a number")
    return value
