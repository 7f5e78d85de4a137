"""The simplest baseline as a model: the items chosen most often in the training part, the same for every user."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch

from models.data.histories import Floats, Histories, Rows
from models.interfaces import ProgressCallback, Scorer, TrainingData, silent
from models.metrics.popularity import popularity


@dataclass(frozen=True)
class PopularityRanker:
    """Ranks by `counts`, f32 [N + 1]: choices of each row in the training part; 0 in row 0."""

    counts: Floats
    chosen: Mapping[str, Any] = field(default_factory=dict)

    def scorer(self, rows: Histories) -> Scorer:
        """Score by the counts, the same for every user."""
        scores = torch.from_numpy(self.counts)[None]

        def score(positions: Rows) -> torch.Tensor:
            return scores.expand(len(positions), -1)

        return score


@dataclass(frozen=True)
class Popularity:
    """A model without settings."""

    name: str = "popularity"
    family: str = "popularity"
    settings: Mapping[str, Any] = field(default_factory=dict)

    def fit(
        self, training: TrainingData, seed: int, report: ProgressCallback = silent, checkpoint: Path | None = None
    ) -> PopularityRanker:
        """Count the choices, whatever their actions. The seed has no effect."""
        return PopularityRanker(popularity(training.rows, len(training.items), training.use, weighted=False))
