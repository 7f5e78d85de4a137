"""Gives comments without a value the one read out of their text: in training rows, as the worker does in serving."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import polars as pl

from models.data.histories import Doubles, Encode, Floats, Histories, histories
from models.text_rating.reading import Reading
from stream.core.features import InputSpec


def read_histories(
    train: pl.DataFrame,
    held: pl.DataFrame | None,
    item_ids: Sequence[str],
    spec: InputSpec,
    encode: Encode,
    reading: Reading | None,
    *,
    timed: bool = True,
) -> Histories:
    """Return `models.data.histories.histories` with the read values in the inputs. With reading None nothing is read.

    A read value does not make a comment a choice: what is to be predicted remains what users rated.
    """
    texts: list[str] = []

    def remembered(asked: Sequence[str]) -> Floats:
        texts.extend(asked)
        return encode(asked)

    rows = histories(train, held, item_ids, spec, remembered, timed=timed)
    if reading is None:
        return rows
    lacking = np.zeros(len(texts), np.bool_)
    lacking[rows.comment[_lack(rows)]] = True
    values = np.full(len(texts), np.nan)
    wanted = np.flatnonzero(lacking)
    values[wanted] = reading.values([texts[row] for row in wanted.tolist()], spec.rating_scale)
    return read_in(rows, spec, values)


def read_in(rows: Histories, spec: InputSpec, values: Doubles) -> Histories:
    """Put values into the inputs of events that have none.

    `values` is f64 [M], the rating in each text of `rows.vectors`, NaN for none.
    """
    positions = _lack(rows)
    read = values[rows.comment[positions]]
    positions, read = positions[~np.isnan(read)], read[~np.isnan(read)]
    numbers = rows.numbers.copy()
    for position, value in zip(positions.tolist(), read.tolist(), strict=True):
        numbers[position, :2] = spec.numbers(value, -1)[:2]
    return replace(rows, numbers=numbers)


def _lack(rows: Histories) -> np.ndarray[tuple[int], np.dtype[np.int64]]:
    """Return the positions of the comments that have a text but no value."""
    return np.flatnonzero((rows.comment > 0) & (rows.numbers[:, 1] == 0))
