"""Convert events to the network's input rows, one user after the other, with stream.core.features, as serving does."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import polars as pl
from numpy.typing import NDArray

from models.data.choices import choices, counts_for
from stream.core.features import NUMBERS, UNKNOWN, InputSpec

Floats = NDArray[np.float32]
Rows = NDArray[np.int64]
Flags = NDArray[np.bool_]
Doubles = NDArray[np.float64]

Encode = Callable[[Sequence[str]], Floats]
"""Encodes texts as f32 [n, X]; "" becomes zeros."""


@dataclass(frozen=True)
class Histories:
    """E events of U users. The events of user u are starts[u] to starts[u + 1], oldest first.

    Attributes:
        users: Ids of the U users.
        starts: i64 [U + 1].
        item: i64 [E], rows of the item matrix (UNKNOWN if the catalogue lacks the item).
        behaviour: i64 [E].
        scene: i64 [E].
        numbers: f32 [E, NUMBERS].
        comment: i64 [E], rows of `vectors`.
        vectors: f32 [M, X] (row 0: zeros, no text).
        choice: bool [E], choices (models/data/choices.py) of known items. The model learns to predict these events.
        judged: bool [E], the choices that are held out and count in figures.
        weight: f64 [E], how much a choice counts when choices are counted. None: 1 each.
        action: i64 [E]. None if no action is read.
        time: i64 [E], epoch ms. None if times of different users cannot be compared.
    """

    users: tuple[str, ...]
    starts: Rows
    item: Rows
    behaviour: Rows
    scene: Rows
    numbers: Floats
    comment: Rows
    vectors: Floats
    choice: Flags
    judged: Flags
    weight: Doubles | None = None
    action: Rows | None = None
    time: Rows | None = None

    def owner(self) -> Rows:
        """Return i64 [E]: the user of every event."""
        return np.repeat(np.arange(len(self.users)), np.diff(self.starts))

    def begins(self, positions: Rows) -> Rows:
        """Return i64, shaped as `positions`: the first event of each position's user."""
        return self.starts[np.searchsorted(self.starts, positions, side="right") - 1]

    def earlier(self, positions: Rows) -> tuple[Rows, Rows]:
        """Return all events of the users of `positions` i64 [Q] before them, oldest first: number of the position, event.

        Both are i64 of one length; the numbers are 0 to Q - 1 in order.
        """
        begins = self.begins(positions)
        counts = positions - begins
        line = np.repeat(np.arange(len(positions)), counts)
        return line, np.arange(len(line)) - np.repeat(np.cumsum(counts) - counts - begins, counts)

    def first(self) -> Flags:
        """Return bool [E]: is it the user's first event?"""
        flags = np.zeros(len(self.item), np.bool_)
        flags[self.starts[:-1]] = True
        return flags


def histories(
    train: pl.DataFrame,
    held: pl.DataFrame | None,
    item_ids: Sequence[str],
    spec: InputSpec,
    encode: Encode,
    *,
    timed: bool = True,
) -> Histories:
    """Convert both parts of a split to rows.

    Args:
        held: The held-out part. None if only the training part may be read.
        item_ids: Item ids; item_ids[i] has row i + 1.
        encode: Encodes the texts.
        timed: Whether times of different users can be compared (models.data.dataset.DataSet).
    """
    table = train.with_columns(held=pl.lit(False))
    if held is not None:
        table = pl.concat([table, held.with_columns(held=pl.lit(True))])
    table = table.with_columns(counts=choices(table, spec.choices, spec.weights))
    table = table.with_columns(owner=pl.col("user").rank("dense")).sort("owner", maintain_order=True)
    owners = table["owner"].to_numpy()
    starts = np.concatenate([[0], np.flatnonzero(np.diff(owners)) + 1, [len(owners)]]).astype(np.int64)
    row_of = {item: row for row, item in enumerate(item_ids, start=1)}
    items = np.fromiter((row_of.get(item, UNKNOWN) for item in table["item"].to_list()), np.int64, len(table))
    texts = ["", *sorted(set(table["text"].to_list()) - {""})]
    text_row = {text: row for row, text in enumerate(texts)}
    weight = counts_for(table, spec.weights)
    choice = table["counts"].to_numpy() & (items != UNKNOWN)
    return Histories(
        users=tuple(table["user"][start] for start in starts[:-1].tolist()),
        starts=starts,
        item=items,
        behaviour=table["behaviour"].to_numpy().astype(np.int64),
        scene=np.fromiter((spec.scene(name) for name in table["scene"].to_list()), np.int64, len(table)),
        numbers=numbers_of(table["value"].to_list(), table["time"].to_list(), starts, spec),
        comment=np.fromiter((text_row[text] for text in table["text"].to_list()), np.int64, len(table)),
        vectors=encode(texts),
        choice=choice,
        judged=choice & table["held"].to_numpy(),
        weight=None if weight is None else weight.to_numpy(),
        action=(
            np.fromiter((spec.action(name) for name in table["action"].to_list()), np.int64, len(table))
            if spec.actions
            else None
        ),
        time=table["time"].to_numpy().astype(np.int64) if timed else None,
    )


def numbers_of(values: Sequence[float], times: Sequence[int], starts: Rows, spec: InputSpec) -> Floats:
    """Return f32 [E, NUMBERS]. The gap counts from the latest time so far, as in stream.core.state.fold."""
    out = np.empty((len(values), NUMBERS), np.float32)
    for begin, end in zip(starts[:-1].tolist(), starts[1:].tolist(), strict=True):
        latest = -1
        for at in range(begin, end):
            gap = -1 if latest < 0 else max(0, times[at] - latest)
            latest = max(latest, times[at])
            out[at] = spec.numbers(values[at], gap)
    return out
