"""Cuts histories into pieces for training. A piece starts from the state that its user had there, not from zeros."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from models.data.histories import Flags, Histories, Rows
from models.network.network import InterestNetwork
from models.network.scorer import rounds

GROUP = 16  # number of steps whose pieces are sorted together


@dataclass(frozen=True)
class Pieces:
    """P pieces of histories.

    Attributes:
        begin: i64 [P], the position of the first event.
        count: i64 [P], number of events.
        ahead: i64 [P], number of the user's events before the piece.
    """

    begin: Rows
    count: Rows
    ahead: Rows

    def positions(self, some: Rows) -> tuple[Rows, Flags]:
        """Return the positions i64 [B, T] of the events of some pieces, and which are real.

        Shorter pieces repeat their last event.
        """
        begin, count = self.begin[some, None], self.count[some, None]
        steps = np.arange(int(count.max()))[None]
        return begin + np.minimum(steps, count - 1), steps < count


def cut(rows: Histories, use: Flags, first: int, length: int) -> Pieces:
    """Cut the events in `use` into pieces: `first` events, then `length` each.

    `use` is bool [E] and holds a first part of each user's events.
    """
    begin: list[int] = []
    count: list[int] = []
    ahead: list[int] = []
    for start, stop in zip(rows.starts[:-1].tolist(), rows.starts[1:].tolist(), strict=True):
        used = int(use[start:stop].sum())
        at, piece = 0, first
        while at < used:
            begin.append(start + at)
            count.append(min(piece, used - at))
            ahead.append(at)
            at, piece = at + piece, length
    return Pieces(np.array(begin, np.int64), np.array(count, np.int64), np.array(ahead, np.int64))


@torch.no_grad()
def initial_states(
    network: InterestNetwork, rows: Histories, pieces: Pieces, first: int, length: int
) -> tuple[Tensor, Tensor]:
    """Compute h and c before every piece, f32 [P, H], with the current weights."""
    hidden = network.size.hidden
    items = network.item_matrix()
    h, c = items.new_zeros(len(pieces.begin), hidden), items.new_zeros(len(pieces.begin), hidden)
    piece_at = np.full(len(rows.item), -1)
    piece_at[pieces.begin] = np.arange(len(pieces.begin))
    opens = rows.first()
    for some in rounds(network, rows, items, first, length):
        if some.positions.shape[1] < first and opens[some.positions[0, 0]]:
            break  # rounds gives long histories first: from here on nobody has a second piece
        piece = piece_at[some.positions[:, 0]]
        here = torch.from_numpy(piece >= 0)
        at = torch.from_numpy(piece[piece >= 0])
        h[at], c[at] = some.h[here], some.c[here]
    return h, c


def following(rows: Histories, use: Flags) -> Rows:
    """Return i64 [E]: the item row of each event's next choice among the events in `use`, or 0 if there is none."""
    wanted = np.flatnonzero(rows.choice & use)
    owner = rows.owner()
    after = np.searchsorted(wanted, np.arange(len(rows.item)), side="right")
    out = np.zeros(len(rows.item), np.int64)
    real = after < len(wanted)
    nearest = wanted[np.minimum(after, len(wanted) - 1)] if len(wanted) else after
    real &= use
    real[real] = owner[nearest[real]] == owner[real]
    out[real] = rows.item[nearest[real]]
    return out


def batches(pieces: Pieces, states: int, draw: np.random.Generator) -> list[Rows]:
    """Return the pieces in random order, cut into steps of about `states` events.

    The pieces of a step have similar lengths, so that little is computed on padding.
    """
    order = draw.permutation(len(pieces.begin))
    made: list[Rows] = []
    for group in np.array_split(order, max(1, round(int(pieces.count.sum()) / states / GROUP))):
        lengths = pieces.count[group]
        by_length = group[np.argsort(lengths, kind="stable")]
        ends = np.cumsum(pieces.count[by_length])
        cuts = np.flatnonzero(np.diff(ends // states)) + 1
        made += [part for part in np.split(by_length, cuts) if len(part)]
    return [made[number] for number in draw.permutation(len(made))]


def hold_validation(rows: Histories, last: int) -> tuple[Flags, Rows]:
    """Hold back the last choices of each user for early stopping.

    Users with fewer than last + 3 choices are trained on whole. With last = 0 nothing is held back.

    Returns:
        use (bool [E], what is trained on), and the positions of the choices that were held back.
    """
    use = np.ones(len(rows.item), np.bool_)
    watched: list[int] = []
    for begin, end in zip(rows.starts[:-1].tolist(), rows.starts[1:].tolist(), strict=True):
        chosen = begin + np.flatnonzero(rows.choice[begin:end])
        if last and len(chosen) >= last + 3:
            use[chosen[-last] : end] = False
            watched += chosen[-last:].tolist()
    return use, np.array(watched, np.int64)
