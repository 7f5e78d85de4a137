"""freshet's collaborative part as a separate model: neighbours of the last items (models/training/neighbours.py)."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch

from models.data.histories import Histories, Rows
from models.interfaces import ProgressCallback, Scorer, TrainingData, silent
from models.network.blend import Blend, Neighbours, blend_scores, recent_choices
from models.training.neighbours import NeighbourSettings, neighbours
from models.training.tuning import Chosen, Settings, search

BASE: Settings = {"decay": 0.8, "back": 0.5, "shrink": 5.0, "fade": 0.6}
CHANGES: tuple[Settings, ...] = (
    {"shrink": 20.0},
    {"shrink": 60.0},
    {"fade": 0.8},
    {"fade": 0.4},
    {"back": 1.0},
    {"back": 0.2},
    {"decay": 0.9},
)
LAST = 20


@dataclass(frozen=True)
class NeighbourRanker:
    """Scores items by the neighbours of the user's `last` last items. `fade` is the factor per step of age."""

    neighbours: Neighbours
    fade: float
    last: int = LAST

    def scorer(self, rows: Histories) -> Scorer:
        """Score by the sum of fade^age * weight over the user's last items."""
        size, blend = len(self.neighbours.index), Blend(self.last, self.fade, neighbour=1.0)

        def score(positions: Rows) -> torch.Tensor:
            begins = rows.begins(positions)
            recent = recent_choices(rows, begins, positions, self.last)
            plain = torch.zeros(len(positions), size)
            return blend_scores(plain, recent, positions - begins, blend, self.neighbours, np.zeros(size, np.float32))

        return score


@dataclass(frozen=True)
class SequentialKnn:
    """A model with tuned fade of the window, shrinkage, weight of the backward direction, and decay by distance."""

    name: str = "sequential-knn"
    family: str = "collaborative"
    settings: Mapping[str, Any] = field(default_factory=lambda: {"base": BASE, "changes": CHANGES, "last": LAST})

    def fit(
        self, training: TrainingData, seed: int, report: ProgressCallback = silent, checkpoint: Path | None = None
    ) -> Chosen:
        """Fit exactly; the seed has no effect."""
        made: dict[NeighbourSettings, Neighbours] = {}

        def fit(settings: Settings) -> NeighbourRanker:
            shape = NeighbourSettings(decay=settings["decay"], back=settings["back"], shrink=settings["shrink"])
            if shape not in made:
                made[shape] = Neighbours(*neighbours(training, shape))
            return NeighbourRanker(made[shape], settings["fade"])

        return search(training, BASE, CHANGES, fit, report)
