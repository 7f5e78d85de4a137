"""freshet's collaborative part as a separate model: neighbours of the last items (models/training/neighbours.py)."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import numpy as np
import torch

from models.data.histories import Histories, Rows
from models.interfaces import ProgressCallback, Scorer, TrainingData, silent
from models.network.blend import Blend, Neighbours, blend_scores, recent_choices
from models.training.neighbours import NeighbourSettings, neighbours
from models.training.regimes import FROZEN, UNDECAYED, every, named
from models.training.tables import HALF_LIVES, LiveTables, TableSettings, half_lives, live_tables
from models.training.tuning import TRIES, WATCHED, Chosen, Settings, search

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
LATER: tuple[Settings, ...] = tuple({"half_life": days} for days in HALF_LIVES)
"""Tried after CHANGES if the data has times. Decay makes counts smaller, so what is added to them is tried again."""
AGAIN: tuple[Settings, ...] = ({"shrink": 2.0}, {"shrink": 5.0}, {"shrink": 20.0})
REACHES: tuple[Settings, ...] = ({"reach": 5}, {"reach": 20})
"""Tried last where asked for. How far choices pair decides the cost of a tally, too (docs/tables.md)."""
LAST = 20
LIVE_WATCHED: Final = 5_000
"""Validation positions that are ranked in one try if the tables follow the stream, which takes longer."""
SHAPE: Final = ("decay", "back", "shrink", "half_life", "reach")


@dataclass(frozen=True)
class NeighbourRanker:
    """Scores items by the neighbours of the user's `last` last items. `fade` is the factor per step of age."""

    neighbours: Neighbours
    fade: float
    last: int = LAST

    def scorer(self, rows: Histories) -> Scorer:
        """Score by the sum of fade^age * weight over the user's last items."""
        return _scorer(
            rows, len(self.neighbours.index), self.last, self.fade, lambda positions, recent: self.neighbours
        )


@dataclass(frozen=True)
class LiveNeighbourRanker:
    """The same with neighbours as they were before each event. See models.interfaces.Ranker for what it looks at."""

    live: LiveTables
    fade: float
    last: int = LAST

    def scorer(self, rows: Histories) -> Scorer:
        """Score by the sum of fade^age * weight over the user's last items."""
        return _scorer(rows, self.live.size, self.last, self.fade, self.live.of(rows).near)


def _scorer(rows: Histories, size: int, last: int, fade: float, near: Callable[[Rows, Rows], Neighbours]) -> Scorer:
    """Return a scorer by neighbours alone. near: (positions, recent choices) -> the neighbours at these positions."""
    blend, unpopular = Blend(last, fade, neighbour=1.0), np.zeros(size, np.float32)

    def score(positions: Rows) -> torch.Tensor:
        begins = rows.begins(positions)
        recent = recent_choices(rows, begins, positions, last)
        plain = torch.zeros(len(positions), size)
        return blend_scores(plain, recent, positions - begins, blend, near(positions, recent), unpopular)

    return score


@dataclass(frozen=True)
class SequentialKnn:
    """A model with tuned fade of the window, shrinkage, weight of the backward direction, and decay by distance.

    With times it also chooses a half-life, unless `tables` is UNDECAYED. For `tables` see models.training.regimes.every.
    With `reaches` it also tries how far ahead choices pair.
    """

    tables: str = FROZEN
    reaches: bool = False
    family: str = "collaborative"

    @property
    def name(self) -> str:
        """The model's name on the command line, with its tables."""
        return named("sequential-knn", self.tables)

    @property
    def settings(self) -> Mapping[str, Any]:
        """What decides the result."""
        found = {"base": BASE, "changes": CHANGES, "last": LAST, "tables": self.tables, "later": LATER, "again": AGAIN}
        return found | ({"reaches": REACHES} if self.reaches else {})

    def fit(
        self, training: TrainingData, seed: int, report: ProgressCallback = silent, checkpoint: Path | None = None
    ) -> Chosen:
        """Fit exactly; the seed has no effect. Raises DataError if tables are to follow the stream and there are no times."""
        made: dict[NeighbourSettings, Neighbours] = {}
        live = live_tables(training, TableSettings(self.tables)) if every(self.tables) else None

        def fit(settings: Settings) -> NeighbourRanker | LiveNeighbourRanker:
            shape = shape_of(settings)
            if live is not None:
                return LiveNeighbourRanker(live.read_with(shape), settings["fade"])
            if shape not in made:
                made[shape] = Neighbours(*neighbours(training, shape))
            return NeighbourRanker(made[shape], settings["fade"])

        timed = training.rows.time is not None and self.tables != UNDECAYED
        countable = half_lives(training) if every(self.tables) else HALF_LIVES
        later = tuple(change for change in LATER if change["half_life"] in countable)
        changes = (*CHANGES, *later, *AGAIN) if timed else CHANGES
        reaches = REACHES if self.reaches else ()
        most = WATCHED if live is None else LIVE_WATCHED
        tries = TRIES + len(LATER) + len(AGAIN) + len(reaches)
        return search(training, BASE, (*changes, *reaches), fit, report, most, tries)


def shape_of(settings: Settings) -> NeighbourSettings:
    """Return how neighbours are counted by what was chosen."""
    return NeighbourSettings(**{name: settings[name] for name in SHAPE if name in settings})
