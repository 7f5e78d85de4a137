"""The simplest baseline as a model: the items chosen most often, the same for every user.

Its table is frozen after the training part, or it follows the stream (models/training/tables.py).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch

from models.data.histories import Floats, Histories, Rows
from models.interfaces import ProgressCallback, Scorer, TrainingData, silent
from models.metrics.popularity import popularity
from models.training.live_popularity import live_popularity
from models.training.regimes import FROZEN, every, named
from models.training.tables import HALF_LIVES
from models.training.tuning import Chosen


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
    """A model without settings. If its table follows the stream, validation chooses a half-life."""

    tables: str = FROZEN
    family: str = "popularity"

    @property
    def name(self) -> str:
        """The model's name on the command line, with its tables."""
        return named("popularity", self.tables)

    @property
    def settings(self) -> Mapping[str, Any]:
        """What decides the result."""
        return {"tables": self.tables, "half-lives": HALF_LIVES}

    def fit(
        self, training: TrainingData, seed: int, report: ProgressCallback = silent, checkpoint: Path | None = None
    ) -> PopularityRanker | Chosen:
        """Count the choices, whatever their actions. The seed has no effect.

        Raises DataError if the table is to follow the stream and there are no times.
        """
        if not every(self.tables):
            return PopularityRanker(popularity(training.rows, len(training.items), training.use, weighted=False))
        return live_popularity(training, self.tables, report)
