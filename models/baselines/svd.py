"""SVD and SVD++ from scikit-surprise as rankers: they order items by the rating predicted for them.

Y. Koren, Factorization meets the neighborhood, KDD 2008. N. Hug, Surprise, JOSS 5 (52), 2020. They are made to predict
ratings, not to rank, and are in a ranking table only for reference.

Users are folded in. A learned vector p_u serves if interactions.learned_users allows it. If not, p_u is the ridge
solution over the items rated before the position, (Q'Q + FOLD I) p = Q'(r - mu - b_u - b_i), where b_u is their shrunken
mean residual. The y_j of SVD++ are always summed over the user's items before the position.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

import numpy as np
import surprise
import torch

from models.baselines.interactions import learned_users
from models.baselines.ratings import Ratings, rated_before, ratings
from models.data.histories import Doubles, Histories, Rows
from models.interfaces import ProgressCallback, Scorer, TrainingData, silent
from models.rating_prediction.library import require_pairs
from models.training.tuning import Chosen, Settings, search

FOLD: Final = 2.0  # ridge of the fold-in
BIAS_FOLD: Final = 5.0  # pull of a new user's bias to 0, counted in ratings
PAIRS: Final = 300_000_000
"""Most pairs of ratings of one user (the sum of squared counts) on which SVD++ is fitted: its time grows with them."""

SVD_BASE: Settings = {"n_factors": 100, "n_epochs": 20, "reg_all": 0.02, "lr_all": 0.005}
SVD_CHANGES: tuple[Settings, ...] = (
    {"n_factors": 20},
    {"n_epochs": 40},
    {"reg_all": 0.1},
    {"lr_all": 0.01},
    {"n_factors": 50},
    {"n_epochs": 10},
    {"reg_all": 0.05},
)
SVDPP_BASE: Settings = {"n_factors": 20, "n_epochs": 20, "reg_all": 0.02, "lr_all": 0.007}
SVDPP_CHANGES: tuple[Settings, ...] = ({"reg_all": 0.1}, {"n_factors": 10}, {"n_epochs": 10})


@dataclass(frozen=True)
class SvdRanker:
    """Ranks with the library's arrays over the rows of the training part.

    `implicit` is y_j f64 [N + 1, F] of SVD++; None for SVD.
    """

    training: TrainingData
    like: Ratings
    mean: float
    users: Doubles
    items: Doubles
    item_bias: Doubles
    implicit: Doubles | None = None

    def scorer(self, rows: Histories) -> Scorer:
        """Score by b_i + q_i . (p_u + |I|^-1/2 sum of y_j). mu and b_u are the same for all items and are left out."""
        learned_at = learned_users(self.training, rows)

        def score(positions: Rows) -> torch.Tensor:
            had = rated_before(rows, positions, self.like)
            learned = learned_at(positions)
            count = np.diff(had.indptr)
            added = np.zeros((len(positions), self.items.shape[1]))
            if self.implicit is not None:
                had_flags = had.copy()
                had_flags.data[:] = 1.0
                added = (had_flags @ self.implicit) / np.sqrt(np.maximum(count, 1))[:, None]
            users = self.users[np.maximum(learned, 0)].copy()
            for at in np.flatnonzero(learned < 0):
                begin, end = had.indptr[at], had.indptr[at + 1]
                users[at] = self._fold(had.indices[begin:end], had.data[begin:end], added[at])
            return torch.from_numpy(((users + added) @ self.items.T + self.item_bias).astype(np.float32))

        return score

    def _fold(self, item: Rows, value: Doubles, added: Doubles) -> Doubles:
        vectors = self.items[item]  # (n, F)
        left = value - self.mean - self.item_bias[item] - vectors @ added
        left = left - left.sum() / (len(left) + BIAS_FOLD)
        inner = vectors.T @ vectors + FOLD * np.eye(vectors.shape[1])
        solved: Doubles = np.linalg.solve(inner, vectors.T @ left)
        return solved


@dataclass(frozen=True)
class Svd:
    """SVD with tuned factors, epochs, regularisation, and learning rate."""

    name: str = "svd"
    family: str = "collaborative"
    settings: Mapping[str, Any] = field(default_factory=lambda: {"base": SVD_BASE, "changes": SVD_CHANGES})

    def fit(
        self, training: TrainingData, seed: int, report: ProgressCallback = silent, checkpoint: Path | None = None
    ) -> Chosen:
        """Fit. The seed draws the first factors, and the zeros if nothing is rated."""
        like = ratings(training, seed)
        trainset = like.trainset()

        def fit(settings: Settings) -> SvdRanker:
            model = surprise.SVD(**settings, random_state=seed).fit(trainset)
            return SvdRanker(training, like, trainset.global_mean, model.pu, model.qi, model.bi)

        return search(training, SVD_BASE, SVD_CHANGES, fit, report)


@dataclass(frozen=True)
class SvdPp:
    """SVD++ with tuned regularisation, factors, and epochs.

    It has half the tries of the others, since one fit takes many times as long.
    """

    name: str = "svdpp"
    family: str = "collaborative"
    settings: Mapping[str, Any] = field(
        default_factory=lambda: {"base": SVDPP_BASE, "changes": SVDPP_CHANGES, "pairs": PAIRS}
    )

    def fit(
        self, training: TrainingData, seed: int, report: ProgressCallback = silent, checkpoint: Path | None = None
    ) -> Chosen:
        """Fit as `Svd` does. Raises DataError above PAIRS."""
        like = ratings(training, seed)
        require_pairs(like.user, PAIRS)
        trainset = like.trainset()

        def fit(settings: Settings) -> SvdRanker:
            model = surprise.SVDpp(**settings, random_state=seed, cache_ratings=True).fit(trainset)
            return SvdRanker(training, like, trainset.global_mean, model.pu, model.qi, model.bi, model.yj)

        return search(training, SVDPP_BASE, SVDPP_CHANGES, fit, report)
