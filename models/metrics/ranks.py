"""Ranks of what users chose next, over the full catalogue without seen items, and the metrics computed from them."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from models.data.histories import Doubles, Floats, Histories, Rows
from models.interfaces import Scorer

QUERIES = 512  # states scored at a time

Ranks = NDArray[np.int64]
MISSED = np.iinfo(np.int64).max
"""Rank of an item that cannot be in the slate: it is unknown, was seen before, or its score is not a finite number."""


def batches(positions: Rows) -> Iterator[slice]:
    """Yield slices of `positions`, QUERIES at a time."""
    for at in range(0, len(positions), QUERIES):
        yield slice(at, min(at + QUERIES, len(positions)))


def seen_before(rows: Histories, positions: Rows) -> tuple[Rows, Rows]:
    """Return all items that the users of the positions saw before them, as index of the position and row of the item."""
    line, event = rows.earlier(positions)
    return line, rows.item[event]


def scored(
    rows: Histories, positions: Rows, score: Scorer, *, filter_seen: bool = True
) -> Iterator[tuple[slice, Tensor]]:
    """Yield the positions in batches, each with scores of its own, f32 [q, N + 1]; -inf for items that are not ranked."""
    for batch in batches(positions):
        some = positions[batch]
        scores = score(some).clone()
        if filter_seen:
            line, seen = seen_before(rows, some)
            scores[torch.from_numpy(line), torch.from_numpy(seen)] = -torch.inf
        yield batch, scores


def ranks(rows: Histories, positions: Rows, score: Scorer, *, filter_seen: bool = True) -> Ranks:
    """Rank the item of each event at `positions`, from 0, by `worst_ranks`. score: positions [Q] -> f32 [Q, N + 1]."""
    out = np.full(len(positions), MISSED)
    for batch, scores in scored(rows, positions, score, filter_seen=filter_seen):
        out[batch] = worst_ranks(scores, torch.from_numpy(rows.item[positions[batch]])).numpy()
    return out


def worst_ranks(scores: Tensor, wanted: Tensor) -> Tensor:
    """Compute the rank, i64 [Q], from 0: how many other items score no less than the wanted one.

    This is the one definition of rank, and the worst case for the model. Of equal scores the wanted item comes last, so
    that the order of the catalogue gives no advantage. A NaN score counts as no less than any other. The rank is MISSED
    if the wanted item is row 0 or its own score is not a finite number.

    Args:
        scores: f32 [Q, N + 1], -inf for items that are not ranked. Row 0 never counts.
        wanted: i64 [Q], item rows.
    """
    own = scores.gather(1, wanted[:, None])
    others = ~(scores < own)  # NaN compares as "not below"
    others[:, 0] = False
    return torch.where((wanted > 0) & own[:, 0].isfinite(), others.sum(1) - 1, MISSED)


def popularity_ranks(counts: Floats, rows: Histories, positions: Rows, *, filter_seen: bool = True) -> Ranks:
    """Compute ranks from one score per item, the same for every user. `counts` is f32 [N + 1]."""
    scores = torch.from_numpy(counts)[None]
    return ranks(rows, positions, lambda some: scores.expand(len(some), -1), filter_seen=filter_seen)


def placed(lists: Rows, wanted: Rows) -> Ranks:
    """Return the place of each wanted item, i64 [Q], in its list, i64 [Q, k], from 0. MISSED if it is not in it."""
    found = lists == wanted[:, None]
    return np.where(found.any(1) & (wanted > 0), found.argmax(1), MISSED)


def hits(of: Ranks, k: int = 10) -> Doubles:
    """Return 1 for each item among the first k, else 0."""
    return (of < k).astype(np.float64)


def gains(of: Ranks, k: int = 10) -> Doubles:
    """Compute NDCG@k with one relevant item: 1 / log2(rank + 2) if it is among the first k, else 0."""
    return np.where(of < k, 1.0 / np.log2(np.minimum(of, k) + 2.0), 0.0)
