"""Parts of real data sets."""

from __future__ import annotations

from dataclasses import replace

import polars as pl

from models.data import DataSet
from stream.core.messages import RATING


def first_raters(data: DataSet, count: int) -> DataSet:
    """The first users who only rated, with the items that they rated. Kafka keeps the order within a topic only: with tags the
    worker might fold some events in another order than the harness does."""
    tagged = data.events.filter(pl.col("behaviour") != RATING)["user"].unique()
    rated = data.events.filter(~pl.col("user").is_in(tagged.implode()))
    users = rated["user"].unique().sort().head(count)
    events = rated.filter(pl.col("user").is_in(users.implode()))
    known = set(events["item"].unique())
    return replace(data, events=events, items=tuple(item for item in data.items if item.item in known))
