"""Item-kNN from the library implicit: it weights all items of a user equally and ignores their order.

B. Sarwar et al., Item-based collaborative filtering, WWW 2001; the weightings are implicit's (cosine, TF-IDF, BM25).
"""

from __future__ import annotations

import warnings
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from implicit.nearest_neighbours import BM25Recommender, CosineRecommender, TFIDFRecommender
from implicit.utils import ParameterWarning
from scipy.sparse import csr_matrix

from models.baselines.interactions import interactions, taken
from models.data.histories import Histories, Rows
from models.interfaces import ProgressCallback, Scorer, TrainingData, silent
from models.training.tuning import Chosen, Settings, search

KINDS: Mapping[str, Any] = {"cosine": CosineRecommender, "tfidf": TFIDFRecommender, "bm25": BM25Recommender}
BASE: Settings = {"weighting": "cosine", "neighbours": 50}
CHANGES: tuple[Settings, ...] = (
    {"weighting": "tfidf"},
    {"weighting": "bm25"},
    {"neighbours": 20},
    {"neighbours": 100},
    {"neighbours": 200},
    {"weighting": "cosine"},
    {"neighbours": 400},
)


@dataclass(frozen=True)
class ItemKnnRanker:
    """Ranks by `similarity`, the library's f32 [N + 1, N + 1]. Row i holds the neighbours of item i."""

    similarity: csr_matrix

    def scorer(self, rows: Histories) -> Scorer:
        """Score by the sum of the similarities to all items that the user chose before."""
        similarity = self.similarity

        def score(positions: Rows) -> torch.Tensor:
            return torch.from_numpy((taken(rows, positions, similarity.shape[0] - 1) @ similarity).toarray())

        return score


@dataclass(frozen=True)
class ItemKnn:
    """Item-kNN with tuned weighting and number of neighbours."""

    name: str = "item-knn"
    family: str = "collaborative"
    settings: Mapping[str, Any] = field(default_factory=lambda: {"base": BASE, "changes": CHANGES})

    def fit(
        self, training: TrainingData, seed: int, report: ProgressCallback = silent, checkpoint: Path | None = None
    ) -> Chosen:
        """Fit exactly; the seed has no effect."""
        matrix = interactions(training)

        def fit(settings: Settings) -> ItemKnnRanker:
            model = KINDS[settings["weighting"]](K=settings["neighbours"], num_threads=1)
            with warnings.catch_warnings():
                warnings.simplefilter(
                    "ignore", ParameterWarning
                )  # the library warns about the format of its own weighted matrix
                model.fit(matrix, show_progress=False)
            return ItemKnnRanker(model.similarity.astype("float32"))

        return search(training, BASE, CHANGES, fit, report)
