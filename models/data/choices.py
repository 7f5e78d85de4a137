"""Define what counts as a choice: an event by which a user takes an item.

Models learn to predict choices, neighbours and popularity count them, and figures are about them, in training, serving
and evaluation alike. Every other event is only an input.

By default these are choices: every click except those with the action dislike or skip, every rating whatever its value,
and every comment that carries a value (a review). Actions have weights (stream.core.features.ACTIONS). A click whose
action has a weight of 0 or below is not a choice.
"""

from __future__ import annotations

import difflib
import math
from collections.abc import Sequence
from typing import Final

import polars as pl

from models.data import rows
from stream.core.errors import DataError
from stream.core.features import ACTIONS, CHOICES, refused
from stream.core.messages import COMMENT, SOURCE_TOPICS

Weights = tuple[tuple[str, float], ...]
HEAVIEST: Final = 1e6
MOST_NAMED: Final = 10
"""How many actions of the data a note names at most."""


def choices(events: pl.DataFrame, counted: Sequence[str] = CHOICES, weights: Weights = ACTIONS) -> pl.Series:
    """Return a bool per event: is it a choice?

    A comment without a value is never a choice, nor is an event whose action has a weight of 0 or below.

    Args:
        counted: Topics whose events are choices.
        weights: Weights of actions.
    """
    behaviours = [SOURCE_TOPICS.index(name) for name in counted]
    chosen = pl.col("behaviour").is_in(behaviours) & ((pl.col("behaviour") != COMMENT) | pl.col("value").is_not_nan())
    chosen &= ~pl.col("action").is_in(sorted(refused(weights)))
    return events.select(chosen.alias("choice"))["choice"]


def parse_choices(text: str) -> tuple[str, ...]:
    """Parse topic names separated by commas, in any order, and return them in the order of CHOICES.

    Raises DataError if a name is unknown or there is none.
    """
    names = [name.strip() for name in text.split(",") if name.strip()]
    unknown = sorted(set(names) - set(CHOICES))
    if unknown or not names:
        raise DataError(
            f"choices {', '.join(unknown) or 'none'}: expected one or more of {', '.join(CHOICES)}, separated by commas"
        )
    return tuple(name for name in CHOICES if name in names)


def counts_for(events: pl.DataFrame, weights: Weights = ACTIONS) -> pl.Series | None:
    """Return f64 per event: its weight if it is a choice.

    Returns None if no event has an action, so that each counts 1.
    """
    if not (events["action"] != "").any():
        return None
    names, values = zip(*weights, strict=True) if weights else ((), ())
    return events["action"].replace_strict(names, values, default=1.0, return_dtype=pl.Float64)


def parse_weights(given: Sequence[str], before: Weights = ACTIONS) -> Weights:
    """Parse NAME=WEIGHT texts and return `before` with these weights set, sorted by name.

    Raises DataError for any other text.
    """
    table = dict(before)
    for text in given:
        name, equals, number = text.rpartition("=")
        try:
            weight = rows.number(number)
        except ValueError:
            weight = math.nan
        if not (equals and name and abs(weight) <= HEAVIEST):
            raise DataError(
                f"--action {text}: expected NAME=WEIGHT, with a weight from {-HEAVIEST:g} to {HEAVIEST:g} (0 or below if the "
                "action is not a choice), such as --action view=0.5; to name a column of actions, use --action-column"
            )
        table[name] = weight
    return tuple(sorted(table.items()))


def unmet(events: pl.DataFrame, given: Sequence[str]) -> str:
    """Return one line with the names in `given` (NAME=WEIGHT each) that no event has as its action, or "" if none.

    This is not an error: the same weights may be given for many data sets, and for events that come after training.
    """
    found = sorted(set(events["action"].to_list()) - {""})
    names = sorted({text.rpartition("=")[0] for text in given} - set(found))
    if not names:
        return ""
    near = {name: difflib.get_close_matches(name, found, 1) for name in names}
    listed = ", ".join(f"{name} (is {near[name][0]} meant?)" if near[name] else name for name in names)
    there = (
        f"actions found: {', '.join(found[:MOST_NAMED])}{', ...' if len(found) > MOST_NAMED else ''}"
        if found
        else "no event has an action"
    )
    return f"--action gives a weight to actions that no event has: {listed}; {there}"


def require_choices(name: str, events: pl.DataFrame, counted: Sequence[str], weights: Weights = ACTIONS) -> None:
    """Raise DataError if no event is a choice. name: of the data."""
    if choices(events, counted, weights).any():
        return
    found = {topic: int((events["behaviour"] == number).sum()) for number, topic in enumerate(SOURCE_TOPICS)}
    counts = ", ".join(f"{count} {topic}" for topic, count in found.items())
    raise DataError(
        f"{name}: no event counts as a choice: found {counts}, expected at least one of --choices {','.join(counted)} "
        f"(comments count only with a value; actions that do not count: {', '.join(sorted(refused(weights))) or 'none'})"
    )
