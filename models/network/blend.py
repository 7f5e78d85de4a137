"""How the parts of a score add up: recurrent interest, neighbours of the last items, and popularity while little is known.

score(user, item) = query(h) . item
                  + neighbour * sum over the user's last `last` choices j of fade^age(j) * weight(j, item)
                  + prior * evidence / (evidence + n) * log-popularity(item)

age: 0 for the newest choice, counted over the choices of items that the catalogue has (`Histories.choice`); n: events of the
user so far, all of them; weight: models/training/neighbours.py; log-popularity: centred, row 0 and items unseen in
training have 0.
Long term is the state, short term the last items; which counts how much is chosen on validation. The worker serves the very
same sum: `blend_scores` is what the exported graph is held against.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from models.data.histories import Floats, Histories, Rows


@dataclass(frozen=True)
class Blend:
    """The five numbers of the sum above. neighbour = prior = 0: the recurrent score alone."""

    last: int = 20
    fade: float = 0.6
    neighbour: float = 0.0
    prior: float = 0.0
    evidence: float = 2.0

    def decay(self) -> Floats:
        """f32 [last]: what a neighbour's weight is multiplied with, by age."""
        return (self.neighbour * self.fade ** np.arange(self.last, dtype=np.float64)).astype(np.float32)


@dataclass(frozen=True)
class Neighbours:
    """The K nearest rows of every item row: index i64 [N + 1, K], weight f32 [N + 1, K]; unused places have index and
    weight 0, and so has row 0. K = 0: there are none."""

    index: Rows
    weight: Floats


def no_neighbours(items: int = 0) -> Neighbours:
    """K = 0, for a model without them. items: N."""
    return Neighbours(np.zeros((items + 1, 0), np.int64), np.zeros((items + 1, 0), np.float32))


def log_popularity(counts: NDArray[np.float32]) -> NDArray[np.float32]:
    """Interactions f32 [N + 1] -> log(1 + count) less its mean over the rows that have any; 0 elsewhere and in row 0."""
    out = np.log1p(counts.astype(np.float64))
    had = counts > 0
    had[0] = False
    out = np.where(had, out - (out[had].mean() if had.any() else 0.0), 0.0)
    return out.astype(np.float32)


def recent_choices(rows: Histories, begins: Rows, ends: Rows, last: int) -> Rows:
    """The last choices of B users: i64 [R, 3] of (place of the user, item row, age), each user's newest first.

    begins, ends: i64 [B], which events of each user count, `ends` excluded. The worker's counterpart is
    stream.core.fold.recent_choices.
    """
    places = np.flatnonzero(rows.choice)
    high = np.searchsorted(places, ends)
    low = np.maximum(np.searchsorted(places, begins), high - last)
    count = high - low
    user = np.repeat(np.arange(len(ends)), count)
    age = np.arange(len(user)) - np.repeat(np.cumsum(count) - count, count)
    return np.stack((user, rows.item[places[high[user] - 1 - age]], age), axis=1)


def blend_scores(
    scores: Tensor, recent: Rows, count: Rows, blend: Blend, neighbours: Neighbours, log_popularity: Floats
) -> Tensor:
    """The sum above from its first part: query(h) . item f32 [B, M] -> f32 [B, M], a new tensor.

    recent: i64 [R, 3] as `recent_choices` gives, rows without neighbours as 0; count: i64 [B], n; log_popularity: f32
    [N + 1]. M may be above N + 1: rows of items that came after training have no neighbours and no popularity.
    """
    out = scores.clone()
    if blend.prior:
        share = (blend.evidence / (blend.evidence + torch.from_numpy(count).float()))[:, None]
        out[:, : len(log_popularity)] += share * torch.from_numpy(np.float32(blend.prior) * log_popularity)
    if blend.neighbour and neighbours.index.shape[1]:
        user, row, age = recent.T
        weight = torch.from_numpy(neighbours.weight[row] * blend.decay()[age][:, None])
        index = torch.from_numpy(neighbours.index[row].astype(np.int64))
        out.index_put_((torch.from_numpy(user)[:, None].expand_as(index), index), weight, accumulate=True)
    return out
