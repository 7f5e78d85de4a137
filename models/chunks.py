"""Histories cut into pieces for training. A piece starts from the state that its user had there, not from zeros."""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from models.rows import Flags, Histories, Rows


class Batch(NamedTuple):
    """B pieces of at most T events. places: i64 [B, T] into the histories (the last place repeats where a piece is
    shorter); real: bool [B, T]; before: i64 [B], the place before each piece, -1 at a user's first event."""

    places: Rows
    real: Flags
    before: Rows


def batches(rows: Histories, use: Flags, length: int, size: int, draw: np.random.Generator) -> Iterator[Batch]:
    """One epoch over the events in `use` (bool [E], a first part of each user's), in a random order of pieces.

    The first piece of each user has a random length, so that the cuts fall elsewhere in every epoch.
    """
    begins, counts = cuts(rows, use, length, draw)
    order = draw.permutation(len(begins))
    for at in range(0, len(order), size):
        some = order[at : at + size]
        begin, count = begins[some], counts[some]
        steps = np.arange(int(count.max()))
        places = begin[:, None] + np.minimum(steps[None], count[:, None] - 1)
        before = np.where(rows.first()[begin], -1, begin - 1)
        yield Batch(places, steps[None] < count[:, None], before)


def cuts(rows: Histories, use: Flags, length: int, draw: np.random.Generator) -> tuple[Rows, Rows]:
    """Where pieces begin and how many events each has."""
    begins: list[int] = []
    counts: list[int] = []
    used = np.add.reduceat(use.astype(np.int64), rows.starts[:-1]) if len(rows.users) else np.zeros(0, np.int64)
    for begin, total in zip(rows.starts[:-1].tolist(), used.tolist(), strict=True):
        at, end = begin, begin + total
        piece = int(draw.integers(1, length + 1))
        while at < end:
            begins.append(at)
            counts.append(min(piece, end - at))
            at += counts[-1]
            piece = length
    return np.array(begins, np.int64), np.array(counts, np.int64)


def following(rows: Histories, use: Flags, horizon: int) -> Rows:
    """i64 [E, horizon]: the item rows of each event's next choices among the events in `use`, nearest first; 0: none."""
    out = np.zeros((len(rows.item), horizon), np.int64)
    wanted = rows.choice & use
    for begin, end in zip(rows.starts[:-1].tolist(), rows.starts[1:].tolist(), strict=True):
        ahead = np.zeros(horizon, np.int64)
        for at in range(end - 1, begin - 1, -1):
            if use[at]:
                out[at] = ahead
            if wanted[at]:
                ahead = np.concatenate([[rows.item[at]], ahead[:-1]])
    return out


def hold_validation(rows: Histories, last: int) -> tuple[Flags, NDArray[np.int64]]:
    """Keep back the last choices of each user for early stopping.

    Returns use (bool [E], what is trained on) and the places of the choices kept back. Users with fewer than last + 3 choices
    are trained on whole. With last = 0 nothing is kept back.
    """
    use = np.ones(len(rows.item), np.bool_)
    kept: list[int] = []
    for begin, end in zip(rows.starts[:-1].tolist(), rows.starts[1:].tolist(), strict=True):
        chosen = begin + np.flatnonzero(rows.choice[begin:end])
        if last and len(chosen) >= last + 3:
            use[chosen[-last] : end] = False
            kept += chosen[-last:].tolist()
    return use, np.array(kept, np.int64)
