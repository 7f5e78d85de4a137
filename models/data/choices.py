"""What counts as a choice: an event by which a user takes an item. It is what models learn to predict, what neighbours and
popularity count, and what figures are about, in training, serving and evaluation alike; every other event is an input only.

By default every click, every rating whatever its value, and every comment that carries a value (a review), together.
"""

from __future__ import annotations

from collections.abc import Sequence

import polars as pl

from stream.errors import DataError
from stream.events import COMMENT, SOURCE_TOPICS
from stream.inputs import CHOICES


def choices(events: pl.DataFrame, counted: Sequence[str] = CHOICES) -> pl.Series:
    """bool per event: is it a choice? counted: topics whose events are; a comment without a value never is."""
    behaviours = [SOURCE_TOPICS.index(name) for name in counted]
    chosen = pl.col("behaviour").is_in(behaviours) & ((pl.col("behaviour") != COMMENT) | pl.col("value").is_not_nan())
    return events.select(chosen.alias("choice"))["choice"]


def parse_choices(text: str) -> tuple[str, ...]:
    """Names of topics with commas between, in any order -> in that of CHOICES. Raises DataError for other names, or none."""
    names = [name.strip() for name in text.split(",") if name.strip()]
    unknown = sorted(set(names) - set(CHOICES))
    if unknown or not names:
        raise DataError(
            f"choices {', '.join(unknown) or 'none'}: expected some of {', '.join(CHOICES)}, commas between"
        )
    return tuple(name for name in CHOICES if name in names)


def require_choices(name: str, events: pl.DataFrame, counted: Sequence[str]) -> None:
    """name: of the data. Raises DataError where no event counts."""
    if choices(events, counted).any():
        return
    found = {topic: int((events["behaviour"] == number).sum()) for number, topic in enumerate(SOURCE_TOPICS)}
    told = ", ".join(f"{count} {topic}" for topic, count in found.items())
    raise DataError(
        f"{name}: no event counts as a choice: found {told}, expected some of --choices {','.join(counted)} "
        "(comments only with a value)"
    )
