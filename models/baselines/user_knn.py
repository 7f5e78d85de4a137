"""User-kNN with means, by the formula of scikit-surprise's KNNWithMeans, for all items of many positions at once.

The library predicts one pair at a time from one fixed user-by-user matrix. Here, the similarities are those of the
history at the position (prequential, new users included). A test checks that both give the same figures.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

import numpy as np
import torch
from scipy.sparse import csc_matrix, csr_matrix

from models.baselines.interactions import learned_users
from models.baselines.ratings import Ratings, rated_before, ratings
from models.data.histories import Doubles, Histories, Rows
from models.interfaces import ProgressCallback, Scorer, TrainingData, silent
from models.training.tuning import Chosen, Settings, search
from stream.core.errors import DataError

MOST: Final = 2_000_000_000  # most validation positions times training ratings: every position looks at all ratings
TUNED_ON: Final = 2_000  # validation positions per try
BASE: Settings = {"similarity": "msd", "k": 40, "min_k": 1}
CHANGES: tuple[Settings, ...] = (
    {"similarity": "cosine"},
    {"min_k": 5},
    {"min_k": 20},
    {"k": 80},
    {"k": 20},
    {"similarity": "msd"},
    {"min_k": 10},
)


@dataclass(frozen=True)
class UserKnnRanker:
    """Ranks by similar users. `rated` is f64 [U, N + 1], the training ratings."""

    training: TrainingData
    like: Ratings
    rated: csr_matrix
    similarity: str
    k: int
    min_k: int

    def scorer(self, rows: Histories) -> Scorer:
        """Score by mu_u + sum of sim (r_vi - mu_v) / sum of sim, over the k nearest raters with sim > 0."""
        learned_at = learned_users(self.training, rows)
        means = row_means(self.rated)
        left = self.rated.copy()
        left.data -= np.repeat(means, np.diff(left.indptr))
        columns = left.tocsc()

        def score(positions: Rows) -> torch.Tensor:
            had = rated_before(rows, positions, self.like)
            near = similarities(had, self.rated, self.similarity)
            learned = learned_at(positions)
            own = np.flatnonzero(learned >= 0)
            near[own, learned[own]] = 0.0  # a user is not their own neighbour
            sums = neighbour_means(near, columns, self.k, self.min_k)
            return torch.from_numpy((row_means(had)[:, None] + sums).astype(np.float32))

        return score


def similarities(some: csr_matrix, others: csr_matrix, kind: str) -> Doubles:
    """Return the similarities of scikit-surprise, f64 [Q, U], over the items that both rated; 0 if there are none.

    They are the cosine, or 1 / (msd + 1).
    """
    ones, other_ones = _flags(some), _flags(others)
    dot = (some @ others.T).toarray()
    own = (some.power(2) @ other_ones.T).toarray()
    their = (ones @ others.power(2).T).toarray()
    common = (ones @ other_ones.T).toarray()
    if kind == "cosine":
        norm = np.sqrt(own * their)
        cosine: Doubles = np.divide(dot, norm, out=np.zeros_like(dot), where=norm > 0)
        return cosine
    apart = np.divide(own + their - 2 * dot, common, out=np.zeros_like(dot), where=common > 0)
    return np.where(common > 0, 1.0 / (np.maximum(apart, 0.0) + 1.0), 0.0)


def neighbour_means(near: Doubles, left: csc_matrix, k: int, min_k: int) -> Doubles:
    """Return f64 [Q, N + 1]: the weighted mean of `left` over the k nearest raters.

    `left` is f64 [U, N + 1], the ratings minus their user's mean.
    """
    near = np.maximum(near, 0.0)
    count = np.diff(left.indptr)
    few = np.flatnonzero(count <= k)  # all raters count: one product for all such items
    flags = _flags(left)
    out = np.zeros((len(near), left.shape[1]))
    top, low, number = (np.zeros_like(out) for _ in range(3))
    top[:, few] = (left[:, few].T @ near.T).T
    low[:, few] = (flags[:, few].T @ near.T).T
    number[:, few] = (flags[:, few].T @ (near > 0).T.astype(np.float64)).T
    for item in np.flatnonzero(count > k).tolist():
        begin, end = left.indptr[item], left.indptr[item + 1]
        of = torch.from_numpy(near[:, left.indices[begin:end]])
        best, column = of.topk(k, 1)
        top[:, item] = (best * torch.from_numpy(left.data[begin:end])[column]).sum(1).numpy()
        low[:, item] = best.sum(1).numpy()
        number[:, item] = (best > 0).sum(1).numpy()
    enough = (number >= min_k) & (low > 0)
    return np.divide(top, low, out=out, where=enough)


def row_means(matrix: csr_matrix) -> Doubles:
    """Return f64 [rows]: the mean of the entries; 0 if there are none."""
    means: Doubles = np.asarray(matrix.sum(1)).ravel() / np.maximum(np.diff(matrix.indptr), 1)
    return means


def _flags(matrix: Any) -> Any:
    flags = matrix.copy()
    flags.data = np.ones_like(flags.data)
    return flags


@dataclass(frozen=True)
class UserKnn:
    """User-kNN with tuned similarity, number of neighbours, and minimum number of neighbours."""

    name: str = "user-knn"
    family: str = "collaborative"
    settings: Mapping[str, Any] = field(
        default_factory=lambda: {"base": BASE, "changes": CHANGES, "most": MOST, "tuned on": TUNED_ON}
    )

    def fit(
        self, training: TrainingData, seed: int, report: ProgressCallback = silent, checkpoint: Path | None = None
    ) -> Chosen:
        """Fit. The seed draws the zeros if nothing is rated. Raises DataError above MOST."""
        like = ratings(training, seed)
        positions, count = len(training.watched), len(like.value)
        if positions * count > MOST:
            raise DataError(
                f"user-knn: not run: found {positions:,} places times {count:,} training ratings, expected at most {MOST:,}"
            )
        rated = like.matrix()
        return search(
            training, BASE, CHANGES, lambda some: UserKnnRanker(training, like, rated, **some), report, TUNED_ON
        )
