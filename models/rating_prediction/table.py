"""The ratings of a data set as arrays, and their splits."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final

import numpy as np
import polars as pl

from models.data import DataSet
from models.data.histories import Doubles, Encode, Floats, Rows
from models.interfaces import LeftOut
from stream.core.errors import DataError
from stream.core.features import item_text

FOLDS: Final = 5
LATE: Final = 0.2  # share of the ratings, the latest, that is the test part of the time split
SPLITS: Final = ("random", "time")


@dataclass(frozen=True)
class RatingTable:
    """R ratings in time order. The review of a rating is not in here.

    Attributes:
        user: i64 [R].
        item: i64 [R].
        time: i64 [R], ms.
        value: f64 [R].
        text: f32 [I, X], unit length or zeros.
        category: f32 [I, C], unit length or zeros.
        scale: (min, max).
    """

    user: Rows
    item: Rows
    time: Rows
    value: Doubles
    text: Floats
    category: Floats
    scale: tuple[float, float]

    @property
    def users(self) -> int:
        return int(self.user.max()) + 1

    @property
    def items(self) -> int:
        return len(self.text)


def rating_table(data: DataSet, encode: Encode) -> RatingTable:
    """Return all events with a value (ratings, reviews) on items of the catalogue.

    Raises DataError if there are too few, or if all have the same value.
    """
    number = pl.DataFrame({"item": [item.item for item in data.items], "number": range(len(data.items))})
    events = data.events.filter(pl.col("value").is_not_nan()).join(
        number, on="item", how="inner", maintain_order="left"
    )
    if len(events) < 10 * FOLDS:
        raise DataError(f"{data.name}: found {len(events)} ratings; protocol `rating` needs at least {10 * FOLDS}")
    if events["value"].n_unique() == 1:
        raise DataError(
            f"{data.name}: field `value`: all {len(events)} ratings are {events['value'][0]:g}; expected at least two "
            "different values"
        )
    names = sorted({name for item in data.items for name in item.categories or ()})
    column = {name: at for at, name in enumerate(names)}
    category = np.zeros((len(data.items), max(1, len(names))), np.float32)
    for at, item in enumerate(data.items):
        for name in item.categories or ():
            category[at, column[name]] = 1.0
    text = encode([item_text(item.title, item.text, item.categories) for item in data.items])
    return RatingTable(
        events["user"].rank("dense").to_numpy().astype(np.int64) - 1,
        events["number"].to_numpy().astype(np.int64),
        events["time"].to_numpy().astype(np.int64),
        events["value"].to_numpy().astype(np.float64),
        unit(text - text[np.abs(text).sum(1) > 0].mean(0) * (np.abs(text).sum(1) > 0)[:, None] if text.any() else text),
        unit(category),
        data.rating_scale,
    )


def not_rated(data: DataSet) -> tuple[LeftOut, ...]:
    """Return what `rating_table` leaves out, and why."""
    known = pl.col("item").is_in([item.item for item in data.items])
    valued = pl.col("value").is_not_nan()
    reasons = (("events without a value", ~valued), ("ratings of items that are not in the catalogue", valued & ~known))
    found = ((why, data.events.filter(flags)) for why, flags in reasons)
    return tuple(LeftOut(why, some["user"].n_unique(), len(some)) for why, some in found if len(some))


def in_time(table: RatingTable) -> bool:
    """Return whether the last LATE of the ratings are later than those before them.

    If not, there is no split in time.
    """
    cut = int(len(table.value) * (1 - LATE))
    return bool(table.time[cut - 1] < table.time[-1])


def unit(rows: Floats) -> Floats:
    """Scale rows to unit length; zeros stay zeros."""
    length = np.linalg.norm(rows, axis=1, keepdims=True)
    out: Floats = np.divide(rows, length, out=np.zeros_like(rows), where=length > 0).astype(np.float32)
    return out


def folds(table: RatingTable, split: str, seed: int) -> Iterator[tuple[Rows, Rows]]:
    """Yield (training, test) positions i64, each in time order.

    random: FOLDS of them. time: one, with the last LATE of all ratings as test.
    """
    count = len(table.value)
    if split == "time":
        cut = int(count * (1 - LATE))
        yield np.arange(cut), np.arange(cut, count)
        return
    if split != "random":
        raise DataError(f"split {split}: expected one of {', '.join(SPLITS)}")
    part = np.random.default_rng(seed).permutation(count) % FOLDS
    for fold in range(FOLDS):
        yield np.flatnonzero(part != fold), np.flatnonzero(part == fold)
