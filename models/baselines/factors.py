"""ALS and BPR from the library implicit.

Users are folded in: their vectors are solved from their items before the position.

Y. Hu, Y. Koren and C. Volinsky, Collaborative filtering for implicit feedback datasets, ICDM 2008 (ALS).
S. Rendle et al., BPR: Bayesian personalized ranking from implicit feedback, UAI 2009.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from implicit.cpu.als import AlternatingLeastSquares
from implicit.cpu.bpr import BayesianPersonalizedRanking
from threadpoolctl import threadpool_limits  # type: ignore[import-untyped]

from models.baselines.interactions import interactions, learned_users, taken
from models.data.histories import Floats, Histories, Rows
from models.interfaces import ProgressCallback, Scorer, TrainingData, silent
from models.training.tuning import Chosen, Settings, search

ALS_BASE: Settings = {"factors": 64, "regularization": 0.1, "alpha": 20.0, "iterations": 15}
ALS_CHANGES: tuple[Settings, ...] = (  # the slow ones come last
    {"alpha": 60.0},
    {"alpha": 5.0},
    {"regularization": 1.0},
    {"regularization": 5.0},
    {"factors": 32},
    {"factors": 128},
    {"factors": 256},
)
BPR_BASE: Settings = {"factors": 64, "learning_rate": 0.05, "regularization": 0.01, "iterations": 100}
BPR_CHANGES: tuple[Settings, ...] = (
    {"iterations": 300},
    {"regularization": 0.003},
    {"regularization": 0.03},
    {"factors": 128},
    {"learning_rate": 0.1},
    {"learning_rate": 0.02},
    {"factors": 32},
)


@dataclass(frozen=True)
class AlsRanker:
    """Ranks with the library's model. Every user's vector is recalculated from the items before the position."""

    model: AlternatingLeastSquares

    def scorer(self, rows: Histories) -> Scorer:
        """Score by x_u(position) . y_i."""
        items: Floats = np.asarray(self.model.item_factors)

        def score(positions: Rows) -> torch.Tensor:
            had = taken(rows, positions, len(items) - 1)
            with threadpool_limits(1, "blas"):  # many small systems: BLAS threads would only cost time
                users = self.model.recalculate_user(np.arange(len(positions)), had)
            return torch.from_numpy(users @ items.T)

        return score


@dataclass(frozen=True)
class BprRanker:
    """Ranks with learned user vectors, or with folded-in ones.

    A learned user vector serves if interactions.learned_users allows it. If not, the vector is folded in: implicit's
    ALS step for one user (target 1 for the items chosen before, 0 for all others) over the item vectors. The bias
    weight stays 1.

    Attributes:
        training: What the vectors were learned from.
        users: f32 [U, F + 1].
        items: f32 [N + 1, F + 1]; the last column is the items' bias.
    """

    training: TrainingData
    users: Floats
    items: Floats

    def scorer(self, rows: Histories) -> Scorer:
        """Score by x_u . y_i + b_i."""
        with threadpool_limits(1, "blas"):  # the library warns if BLAS may use more
            fold = AlternatingLeastSquares(factors=self.items.shape[1] - 1, regularization=1.0, num_threads=1)
        learned_at = learned_users(self.training, rows)
        fold.item_factors = np.ascontiguousarray(self.items[:, :-1])

        def score(positions: Rows) -> torch.Tensor:
            learned = learned_at(positions)
            users = self.users[np.maximum(learned, 0)].copy()
            new = np.flatnonzero(learned < 0)
            if len(new):
                had = taken(rows, positions[new], len(self.items) - 1)
                with threadpool_limits(1, "blas"):
                    users[new, :-1] = fold.recalculate_user(np.arange(len(new)), had)
                users[new, -1] = 1.0
            return torch.from_numpy(users @ self.items.T)

        return score


@dataclass(frozen=True)
class Als:
    """ALS with tuned confidence of a choice (alpha), number of factors, and regularisation."""

    name: str = "als"
    family: str = "collaborative"
    settings: Mapping[str, Any] = field(default_factory=lambda: {"base": ALS_BASE, "changes": ALS_CHANGES})

    def fit(
        self, training: TrainingData, seed: int, report: ProgressCallback = silent, checkpoint: Path | None = None
    ) -> Chosen:
        """Fit. The seed draws the first factors."""
        matrix = interactions(training)

        def fit(settings: Settings) -> AlsRanker:
            with threadpool_limits(1, "blas"):  # otherwise the library's threads and those of BLAS slow each other down
                model = AlternatingLeastSquares(**settings, random_state=seed, num_threads=1)
                model.fit(matrix, show_progress=False)
            return AlsRanker(model)

        return search(training, ALS_BASE, ALS_CHANGES, fit, report)


@dataclass(frozen=True)
class Bpr:
    """BPR with tuned epochs, regularisation, factors, and learning rate.

    One thread: with more, no two fits are the same.
    """

    name: str = "bpr"
    family: str = "collaborative"
    settings: Mapping[str, Any] = field(default_factory=lambda: {"base": BPR_BASE, "changes": BPR_CHANGES})

    def fit(
        self, training: TrainingData, seed: int, report: ProgressCallback = silent, checkpoint: Path | None = None
    ) -> Chosen:
        """Fit. The seed draws the first factors and the pairs."""
        matrix = interactions(training)

        def fit(settings: Settings) -> BprRanker:
            model = BayesianPersonalizedRanking(**settings, random_state=seed, num_threads=1)
            model.fit(matrix, show_progress=False)
            return BprRanker(training, np.asarray(model.user_factors), np.asarray(model.item_factors))

        return search(training, BPR_BASE, BPR_CHANGES, fit, report)
