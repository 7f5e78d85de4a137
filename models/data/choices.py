"""What counts as a choice: an event by which a user takes an item. It is what models learn to predict, what neighbours and
popularity count, and what figures are about, in training, serving and evaluation alike; every other event is an input only.

By default every click but those with the action dislike or skip, every rating whatever its value, and every comment that
carries a value (a review), together. Actions have weights (stream.core.features.ACTIONS): one of 0 or below is no choice.
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
MOST_TOLD: Final = 10
"""Actions of the data that a note names."""


def choices(events: pl.DataFrame, counted: Sequence[str] = CHOICES, weights: Weights = ACTIONS) -> pl.Series:
    """bool per event: is it a choice? counted: topics whose events are; a comment without a value never is, nor an event of an
    action with a weight of 0 or below."""
    behaviours = [SOURCE_TOPICS.index(name) for name in counted]
    chosen = pl.col("behaviour").is_in(behaviours) & ((pl.col("behaviour") != COMMENT) | pl.col("value").is_not_nan())
    chosen &= ~pl.col("action").is_in(sorted(refused(weights)))
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


def counts_for(events: pl.DataFrame, weights: Weights = ACTIONS) -> pl.Series | None:
    """f64 per event: what it counts for if it is a choice; None where no event has an action, and each counts 1."""
    if not (events["action"] != "").any():
        return None
    names, values = zip(*weights, strict=True) if weights else ((), ())
    return events["action"].replace_strict(names, values, default=1.0, return_dtype=pl.Float64)


def parse_weights(given: Sequence[str], before: Weights = ACTIONS) -> Weights:
    """NAME=WEIGHT each -> `before` with these in it, by name. Raises DataError for what is not of this form."""
    table = dict(before)
    for text in given:
        name, equals, number = text.rpartition("=")
        try:
            weight = rows.number(number)
        except ValueError:
            weight = math.nan
        if not (equals and name and abs(weight) <= HEAVIEST):
            raise DataError(
                f"--action {text}: expected NAME=WEIGHT, the weight a number of {-HEAVIEST:g} to {HEAVIEST:g}, 0 or below for "
                "what is no choice: --action view=0.5; a column of actions is named by --action-column"
            )
        table[name] = weight
    return tuple(sorted(table.items()))


def unmet(events: pl.DataFrame, given: Sequence[str]) -> str:
    """One line that tells the names of `given` (NAME=WEIGHT each) that no event has as its action; "" where there is none. It is
    no error: the same weights may be given for many data sets, and for what comes after training."""
    found = sorted(set(events["action"].to_list()) - {""})
    names = sorted({text.rpartition("=")[0] for text in given} - set(found))
    if not names:
        return ""
    near = {name: difflib.get_close_matches(name, found, 1) for name in names}
    told = ", ".join(f"{name} (is {near[name][0]} meant?)" if near[name] else name for name in names)
    there = (
        f"found {', '.join(found[:MOST_TOLD])}{', ...' if len(found) > MOST_TOLD else ''}"
        if found
        else "found none at all"
    )
    return f"--action gives a weight to what no event has as its action: {told}; {there}"


def require_choices(name: str, events: pl.DataFrame, counted: Sequence[str], weights: Weights = ACTIONS) -> None:
    """name: of the data. Raises DataError where no event counts."""
    if choices(events, counted, weights).any():
        return
    found = {topic: int((events["behaviour"] == number).sum()) for number, topic in enumerate(SOURCE_TOPICS)}
    told = ", ".join(f"{count} {topic}" for topic, count in found.items())
    raise DataError(
        f"{name}: no event counts as a choice: found {told}, expected some of --choices {','.join(counted)} "
        f"(comments only with a value, nothing of the actions {', '.join(sorted(refused(weights))) or 'none'})"
    )
