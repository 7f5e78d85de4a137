"""Finds which items follow which: directed, decayed co-occurrence in user sequences, cut to the best few per item.

For every user sequence s and every i < j <= i + reach:
    C[s_i, s_j] += w decay^(j - i - 1)      C[s_j, s_i] += back w decay^(j - i - 1)
    weight(a, b) = C[a, b] / (sqrt(n_a n_b) + shrink)        n: how often each item was chosen

Choices count by their actions (stream.core.features.ACTIONS): each adds its weight to n, and a pair counts with
w = sqrt(weight_i weight_j). Apart from the shrinkage, two items of one weight are therefore as near as at any other
weight. Without actions all weights are 1.

Counting by distance is from sequential rules (I. Kamehkhosh, D. Jannach and M. Ludewig, RecTemp 2017). The norm is from
item-kNN.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

import numpy as np
from scipy.sparse import coo_matrix, csr_matrix

from models.data.histories import Doubles, Floats, Histories, Rows
from models.interfaces import TrainingData
from models.network.blend import recent_choices
from stream.core.errors import DataError

DAY: Final = 86_400_000


@dataclass(frozen=True)
class NeighbourSettings:
    """How neighbours are counted. The defaults were chosen on the validation part of Amazon Beauty.

    Attributes:
        reach: How many events ahead count.
        decay: Factor per event of distance.
        back: Weight of the backward direction.
        shrink: Added to the denominator of a weight.
        keep: Number of neighbours of an item.
        half_life: In days: a choice counts 2^(-age / half_life), where age is the time to the newest choice that is counted.
            A pair has the time of its later choice. 0: time does not matter.
    """

    reach: int = 10
    decay: float = 0.8
    back: float = 0.5
    shrink: float = 5.0
    keep: int = 100
    half_life: int = 0


def neighbours(training: TrainingData, settings: NeighbourSettings | None = None) -> tuple[Rows, Floats]:
    """Find the neighbours: index i64 [N + 1, K] and weight f32 [N + 1, K], best first, equal weights in row order.

    Rows with fewer than K neighbours end in zeros; row 0 is empty. It reads only the choices in `training.use`.
    Raises DataError if there is a half-life and the data has no times.
    """
    settings = settings or NeighbourSettings()
    rows, size = training.rows, len(training.items) + 1
    counted = np.flatnonzero(training.use & rows.choice)
    item, owner = rows.item[counted], rows.owner()[counted]
    weights = None if rows.weight is None else rows.weight[counted]
    fresh = _fresh(rows, counted, settings.half_life)
    ahead = csr_matrix((size, size), dtype=np.float64)
    for step in range(1, settings.reach + 1):
        same = owner[step:] == owner[:-step]
        pair = item[:-step][same], item[step:][same]
        values = np.full(len(pair[0]), settings.decay ** (step - 1))
        if weights is not None:
            values *= np.sqrt(weights[:-step][same] * weights[step:][same])
        if fresh is not None:
            values *= fresh[step:][same]
        ahead += coo_matrix((values, pair), (size, size)).tocsr()
    both = (ahead + settings.back * ahead.T).tocoo()
    use = (both.row != both.col) & (both.data > 0)
    row, column, weight = both.row[use].astype(np.int64), both.col[use].astype(np.int64), both.data[use]
    if fresh is not None:
        weights = fresh if weights is None else fresh * weights
    often = np.sqrt(np.bincount(item, weights, minlength=size))
    weight = weight / (often[row] * often[column] + settings.shrink)
    return _best(row, column, weight, size, settings.keep)


def _fresh(rows: Histories, counted: Rows, half_life: int) -> Doubles | None:
    """Return 2^(-age / half_life) of the counted choices. None if time does not matter."""
    if not half_life or not len(counted):
        return None
    if rows.time is None:
        raise DataError("neighbours: a half-life needs times, and the data gives only an order within each user")
    time = rows.time[counted]
    fresh: Doubles = np.exp2((time - time.max()) / (half_life * DAY))
    return fresh


def _best(row: Rows, column: Rows, weight: Floats, size: int, keep: int) -> tuple[Rows, Floats]:
    """Return the `keep` heaviest entries of every row of a sparse matrix, as two dense arrays [size, keep]."""
    weight = weight.astype(np.float32)  # rounded before ordering: equal in the arrays means equal in the order
    order = np.lexsort((column, -weight, row))
    row, column, weight = row[order], column[order], weight[order]
    slot = np.arange(len(row)) - np.searchsorted(row, row, side="left")
    best = slot < keep
    index = np.zeros((size, keep), np.int64)
    weights = np.zeros((size, keep), np.float32)
    index[row[best], slot[best]] = column[best]
    weights[row[best], slot[best]] = weight[best]
    return index, weights


def windows(rows: Histories, positions: Rows, last: int) -> Rows:
    """Return i64 [Q, last]: item rows of the user's last choices before each position, newest first.

    0 fills the rest if there are fewer.
    """
    starts = rows.begins(positions)
    out = np.zeros((len(positions), last), np.int64)
    line, row, age = recent_choices(rows, starts, positions, last).T
    out[line, age] = row
    return out
