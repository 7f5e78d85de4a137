"""Hold back the last choices of every user. Training sees only the first part."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

import polars as pl

from models.data.choices import choices
from models.data.dataset import DataSet


@dataclass(frozen=True)
class Split:
    """Both parts of a data set, in time order.

    Attributes:
        train: What a model may learn from. It is folded first.
        held: What follows it.
    """

    train: pl.DataFrame
    held: pl.DataFrame


LEAST: Final = 4  # choices of a user that stay in the training part


def split_last(data: DataSet, last: int = 8, least: int = LEAST) -> Split:
    """Hold back the last `last` choices of each user (models/data/choices.py) and every event after the first of them.

    Users with fewer than `last + least` choices keep all their events in the training part. The cut depends only on the
    order of the user's events.
    """
    held = held_last(data, last, least)
    return Split(data.events.filter(~held), data.events.filter(held))


def held_last(data: DataSet, last: int = 8, least: int = LEAST) -> pl.Series:
    """Return a bool per event: is it held back? See split_last."""
    if not last:
        return pl.repeat(False, len(data.events), eager=True)
    counted = choices(data.events, data.choices, data.weights)
    cuts = (
        data.events.with_row_index("row")
        .filter(counted)
        .group_by("user", maintain_order=True)
        .agg(pl.col("row").tail(last).first().alias("cut"), pl.len().alias("count"))
        .filter(pl.col("count") >= last + least)
        .select("user", "cut")
    )
    table = data.events.with_row_index("row").join(cuts, on="user", how="left", maintain_order="left")
    return table.select((pl.col("row") >= pl.col("cut")).fill_null(False))["row"]
