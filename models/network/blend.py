"""How the parts of a score add up: recurrent interest, neighbours and texts of the last items, popularity for new users.

score(user, item) = query(h) . item
                  + neighbour * sum over the user's last `last` choices j of fade^age(j) * weight(j, item)
                  + text(item) * mean over the same choices j, weighed by text_fade^age(j), of text_j . text_item
                  + prior * evidence / (evidence + n) * log-popularity(item)

age: 0 for the newest choice. It counts the choices of items that are in the catalogue (`Histories.choice`).
n: the number of all events of the user so far.
weight: see models/training/neighbours.py.
text_j, text_item: projected texts (models/network/projection.py). They need no training on the item, so that they speak
for items that nobody has chosen yet. text(item) is `text_new` for those, else `text`.
log-popularity: centred; 0 for row 0 and for items unseen in training.
The state is the long-term interest, the last items the short-term one. Validation chooses their shares. The worker
serves the same sum: `blend_scores` is the reference for the exported graph.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from models.data.histories import Flags, Floats, Histories, Rows


@dataclass(frozen=True)
class Blend:
    """The numbers of the sum above. With neighbour = text = prior = 0 only the recurrent score is left."""

    last: int = 20
    fade: float = 0.6
    neighbour: float = 0.0
    prior: float = 0.0
    evidence: float = 2.0
    text: float = 0.0
    text_fade: float = 0.6
    text_new: float = 0.0

    def decay(self) -> Floats:
        """Return f32 [last]: the factor of a neighbour's weight, by age."""
        return (self.neighbour * self.fade ** np.arange(self.last, dtype=np.float64)).astype(np.float32)

    def text_decay(self) -> Floats:
        """Return f32 [last]: the share of a choice's text before division by the sum of all, by age."""
        return (self.text_fade ** np.arange(self.last, dtype=np.float64)).astype(np.float32)


@dataclass(frozen=True)
class Texts:
    """The projected texts of M rows. P = 0 means that there are none.

    Attributes:
        vectors: f32 [M, P], of unit length; zeros for row 0 and for items without a text.
        new: bool [M], items that training has not seen.
    """

    vectors: Floats
    new: Flags


def scaled_texts(texts: Texts, blend: Blend) -> Floats:
    """Return the texts as score.onnx reads them, f32 [M, P]: those of new items are text_new / text as long as the others.

    So one product with `text` times a mean text gives both weights. Where a text is read as a choice, the graph shortens it
    to unit length again.
    """
    more = np.float32(blend.text_new / blend.text) if blend.text else np.float32(1)
    return np.where(texts.new[:, None], texts.vectors * more, texts.vectors)


def no_texts(rows: int = 1) -> Texts:
    """Return P = 0, for a sum without texts."""
    return Texts(np.zeros((rows, 0), np.float32), np.ones(rows, np.bool_))


@dataclass(frozen=True)
class Neighbours:
    """The K nearest rows of every item row. K = 0 means that there are none.

    Attributes:
        index: i64 [N + 1, K]. 0 at unused positions and in row 0.
        weight: f32 [N + 1, K]. 0 at unused positions and in row 0.
        by_choice: Line r is of the r-th of the recent choices, not of item row r: tables that change from event to event.
    """

    index: Rows
    weight: Floats
    by_choice: bool = False


def no_neighbours(items: int = 0) -> Neighbours:
    """Return K = 0, for a model without neighbours. `items` is N."""
    return Neighbours(np.zeros((items + 1, 0), np.int64), np.zeros((items + 1, 0), np.float32))


def log_popularity(counts: Floats) -> Floats:
    """Turn interactions f32 [N + 1] into log(1 + count) minus its mean over the rows that have any.

    Rows without interactions, and row 0, get 0.
    """
    out = np.log1p(counts.astype(np.float64))
    had = counts > 0
    had[0] = False
    out = np.where(had, out - (out[had].mean() if had.any() else 0.0), 0.0)
    return out.astype(np.float32)


def recent_choices(rows: Histories, begins: Rows, ends: Rows, last: int) -> Rows:
    """Return the last choices of B users: i64 [R, 3] of (index of the user, item row, age), each user's newest first.

    begins, ends: i64 [B], the range of events that counts for each user, without `ends`. The worker's counterpart is
    stream.core.fold.recent_choices.
    """
    positions = np.flatnonzero(rows.choice)
    high = np.searchsorted(positions, ends)
    low = np.maximum(np.searchsorted(positions, begins), high - last)
    count = high - low
    user = np.repeat(np.arange(len(ends)), count)
    age = np.arange(len(user)) - np.repeat(np.cumsum(count) - count, count)
    return np.stack((user, rows.item[positions[high[user] - 1 - age]], age), axis=1)


def blend_scores(
    scores: Tensor,
    recent: Rows,
    count: Rows,
    blend: Blend,
    neighbours: Neighbours,
    log_popularity: Floats,
    texts: Texts | None = None,
) -> Tensor:
    """Compute the sum above from its first part, as a new tensor f32 [B, M].

    M may exceed N + 1: rows of items that came after training have no neighbours and no popularity.

    Args:
        scores: query(h) . item, f32 [B, M].
        recent: i64 [R, 3], as `recent_choices` returns it.
        count: i64 [B], n.
        blend: The weights.
        neighbours: The neighbours of the items.
        log_popularity: f32 [N + 1], or [B, N + 1] if it differs between the users.
        texts: The projected texts; None for a sum without them.
    """
    out = scores.clone()
    if blend.prior:
        share = (blend.evidence / (blend.evidence + torch.from_numpy(count).float()))[:, None]
        out[:, : log_popularity.shape[-1]] += share * torch.from_numpy(np.float32(blend.prior) * log_popularity)
    if blend.neighbour and neighbours.index.shape[1]:
        user, row, age = recent.T
        known = np.where(row < len(neighbours.index), row, 0)  # items that came after training have none
        row = np.arange(len(recent)) if neighbours.by_choice else known
        weight = torch.from_numpy(neighbours.weight[row] * blend.decay()[age][:, None])
        index = torch.from_numpy(neighbours.index[row].astype(np.int64))
        out.index_put_((torch.from_numpy(user)[:, None].expand_as(index), index), weight, accumulate=True)
    if (blend.text or blend.text_new) and texts is not None and texts.vectors.shape[1]:
        of_item = np.where(texts.new, np.float32(blend.text_new), np.float32(blend.text))
        scored = torch.from_numpy(texts.vectors * of_item[:, None])
        out += mean_texts(recent, len(out), blend, texts.vectors) @ scored.T
    return out


def mean_texts(recent: Rows, users: int, blend: Blend, texts: Floats) -> Tensor:
    """Return the decayed mean of the texts of each user's last choices, f32 [users, P]; zeros for one without any."""
    user, row, age = torch.from_numpy(recent).T
    share = torch.from_numpy(blend.text_decay())[age]
    total = torch.zeros(users, texts.shape[1]).index_add_(0, user, torch.from_numpy(texts)[row] * share[:, None])
    # The newest choice has share 1, so that the sum is below 1 only if there is none.
    return total / torch.zeros(users).index_add_(0, user, share).clamp(min=1.0)[:, None]
