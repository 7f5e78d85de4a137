"""What the rating predictors learn from: the training part's ratings, or 1s and drawn 0s if nothing is rated."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from scipy.sparse import csr_matrix
from surprise import Trainset

from models.baselines.interactions import interactions
from models.data.histories import Doubles, Flags, Histories, Rows
from models.interfaces import TrainingData
from models.rating_prediction.library import trainset


@dataclass(frozen=True)
class Ratings:
    """R ratings.

    Attributes:
        user: i64 [R], rows of the training part.
        item: i64 [R], rows of the training part.
        value: f64 [R].
        users: Number of users.
        items: Number of items.
        scale: (min, max).
        rated: False if the values are 1s for choices and the same number of drawn 0s.
    """

    user: Rows
    item: Rows
    value: Doubles
    users: int
    items: int
    scale: tuple[float, float]
    rated: bool

    def trainset(self) -> Trainset:
        """Return the ratings as scikit-surprise takes them. Its inner ids are the rows."""
        users, items = np.arange(self.users), np.arange(self.items + 1)
        return trainset(self.user, self.item, self.value, users, items, self.scale)

    def matrix(self) -> csr_matrix:
        """Return f64 [U, N + 1].

        A 0 that was drawn or rated is stored as an entry. The last rating of a pair counts.
        """
        return last_values(self.user, self.item, self.value, (self.users, self.items + 1))


def ratings(training: TrainingData, seed: int) -> Ratings:
    """Return the ratings of the training part, leaving out choices without one.

    If it has no ratings, return 1 for every chosen item and 0 for the same number of items per user, drawn from those
    not chosen.
    """
    rows, size = training.rows, len(training.items)
    rated = training.use & rows.choice & (rows.numbers[:, 1] > 0)
    if rated.any():
        value = values(rows, np.flatnonzero(rated), training.spec.rating_scale)
        owner = rows.owner()[rated]
        return Ratings(owner, rows.item[rated], value, len(rows.users), size, training.spec.rating_scale, True)
    chosen = interactions(training).tocoo()
    user, item = drawn_zeros(chosen.tocsr(), np.random.default_rng(seed))
    users = np.concatenate([chosen.row, user]).astype(np.int64)
    items = np.concatenate([chosen.col, item]).astype(np.int64)
    both = np.repeat([1.0, 0.0], [chosen.nnz, len(user)])
    order = np.random.default_rng(seed).permutation(len(both))
    return Ratings(users[order], items[order], both[order], len(rows.users), size, (0.0, 1.0), False)


def drawn_zeros(chosen: csr_matrix, draw: np.random.Generator) -> tuple[Rows, Rows]:
    """Draw, for each entry of [U, N + 1], one item from 1 to N that the user has not chosen; none if ten draws fail."""
    user = np.repeat(np.arange(chosen.shape[0]), np.diff(chosen.indptr))
    item = np.zeros(len(user), np.int64)
    taken = user * chosen.shape[1] + chosen.indices  # one number per pair
    for _ in range(10):
        open_ = np.flatnonzero(item == 0)
        picks = draw.integers(1, chosen.shape[1], len(open_))
        free = ~np.isin(user[open_] * chosen.shape[1] + picks, taken)
        item[open_[free]] = picks[free]
    return user[item > 0], item[item > 0]


def values(rows: Histories, at: Rows, scale: tuple[float, float]) -> Doubles:
    """Return the ratings of some events on their original scale, f64."""
    value = scale[0] + (rows.numbers[at, 0].astype(np.float64) + 1.0) / 2.0 * (scale[1] - scale[0])
    rounded: Doubles = np.round(value, 5)  # the histories hold f32
    return rounded


def rated_before(rows: Histories, positions: Rows, like: Ratings) -> csr_matrix:
    """Return f64 [Q, N + 1]: what the user of each position rated before it.

    If nothing is rated: 1s for what was chosen.
    """
    line, at = rows.earlier(positions)
    counted: Flags = rows.choice[at] & ((rows.numbers[at, 1] > 0) if like.rated else np.bool_(True))
    line, at = line[counted], at[counted]
    value = values(rows, at, like.scale) if like.rated else np.ones(len(at))
    return last_values(line, rows.item[at], value, (len(positions), like.items + 1))


def last_values(row: Rows, column: Rows, value: Doubles, shape: tuple[int, int]) -> csr_matrix:
    """Return a sparse f64 matrix. If a pair occurs twice, the later value counts. Zeros are kept as entries."""
    pair = row * shape[1] + column
    _, last = np.unique(pair[::-1], return_index=True)
    keep = np.sort(len(pair) - 1 - last)
    return csr_matrix((value[keep].astype(np.float64), (row[keep], column[keep])), shape)
