"""freshet's collaborative part as a model of its own: the neighbours of the last items (models/neighbours.py)."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch

from models.baselines.tuning import Chosen, Settings, search
from models.neighbours import NeighbourSettings, neighbour_scores, neighbours, windows
from models.rows import Floats, Histories, Rows
from models.task import Report, Scorer, Training, silent

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
    """index i64, weight f32 [N + 1, K] as models.neighbours makes them; fade: of the user's `last` last items."""

    index: Rows
    weight: Floats
    fade: float
    last: int = LAST

    def scorer(self, rows: Histories) -> Scorer:
        """Sum over the user's last items of fade^age * weight."""
        index, weight = torch.from_numpy(self.index), torch.from_numpy(self.weight)

        def score(places: Rows) -> torch.Tensor:
            window = torch.from_numpy(windows(rows, places, self.last))
            return neighbour_scores(index, weight, window, self.fade)

        return score


@dataclass(frozen=True)
class SequentialKnn:
    """Tuned: fade of the window, shrinkage, weight of the backward direction, decay by distance."""

    name: str = "sequential-knn"
    family: str = "collaborative"
    settings: Mapping[str, Any] = field(default_factory=lambda: {"base": BASE, "changes": CHANGES, "last": LAST})

    def fit(self, training: Training, seed: int, report: Report = silent, checkpoint: Path | None = None) -> Chosen:
        """Exact: the seed decides nothing."""
        made: dict[NeighbourSettings, tuple[Rows, Floats]] = {}

        def fit(settings: Settings) -> NeighbourRanker:
            shape = NeighbourSettings(decay=settings["decay"], back=settings["back"], shrink=settings["shrink"])
            if shape not in made:
                made[shape] = neighbours(training, shape)
            return NeighbourRanker(*made[shape], settings["fade"])

        return search(training, BASE, CHANGES, fit, report)
