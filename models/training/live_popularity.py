"""Popularity that follows the stream (models/training/tables.py), and the half-life that suits it."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
import torch

from models.data.histories import Histories, Rows
from models.interfaces import ProgressCallback, Scorer, TrainingData, silent
from models.training.neighbours import NeighbourSettings
from models.training.tables import LiveTables, TableSettings, half_lives, live_tables
from models.training.tuning import Chosen, Settings, search


@dataclass(frozen=True)
class LivePopularityRanker:
    """Ranks by the decayed counts before each event. See models.interfaces.Ranker for what it looks at."""

    live: LiveTables

    def scorer(self, rows: Histories) -> Scorer:
        """Score by the counts, whatever the actions: the same for every user."""
        view = self.live.of(replace(rows, weight=None))

        def score(positions: Rows) -> torch.Tensor:
            return torch.from_numpy(view.popular(positions).astype(np.float32))

        return score


def live_popularity(training: TrainingData, tables: str, report: ProgressCallback = silent) -> Chosen:
    """Return popularity with the half-life that validation chose: `chosen["half_life"]` in days, 0 for none.

    Raises DataError if the data has no times.
    """
    live = live_tables(training, TableSettings(tables))

    def fit(settings: Settings) -> LivePopularityRanker:
        return LivePopularityRanker(live.read_with(NeighbourSettings(), settings["half_life"]))

    return search(training, {"half_life": 0}, [{"half_life": days} for days in half_lives(training)], fit, report)
