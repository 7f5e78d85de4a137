"""Chooses settings on the validation part, with the same budget of tries for every model."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

import numpy as np

from models.data.histories import Histories, Rows
from models.interfaces import ProgressCallback, Ranker, Scorer, TrainingData, silent
from models.metrics.ranks import gains, ranks

TRIES: Final = 8
WATCHED: Final = 10_000
"""Validation positions that are ranked in one try. If there are more, a fixed draw of this many is used."""

Settings = Mapping[str, Any]


@dataclass(frozen=True)
class Chosen:
    """A fitted model with the settings that validation chose.

    Attributes:
        ranker: The fitted model.
        chosen: Its settings.
        tried: All settings that were tried, in order, each with its validation NDCG@10.
    """

    ranker: Ranker
    chosen: Settings
    tried: tuple[tuple[Settings, float], ...] = ()

    def scorer(self, rows: Histories) -> Scorer:
        """Return the chosen ranker's scorer."""
        return self.ranker.scorer(rows)


def watched(training: TrainingData, most: int = WATCHED) -> Rows:
    """Return validation positions for choosing settings: all, or a fixed draw of `most`, in order."""
    if len(training.watched) <= most:
        return training.watched
    return np.sort(np.random.default_rng(0).choice(training.watched, most, replace=False))


def validation_gain(training: TrainingData, ranker: Ranker, most: int = WATCHED) -> float:
    """Return NDCG@10 on the validation positions, without seen items; 0 if there are none."""
    positions = watched(training, most)
    if not len(positions):
        return 0.0
    return float(gains(ranks(training.rows, positions, ranker.scorer(training.rows))).mean())


def search(
    training: TrainingData,
    base: Settings,
    changes: Sequence[Settings],
    fit: Callable[[Settings], Ranker],
    report: ProgressCallback = silent,
    most: int = WATCHED,
    tries: int = TRIES,
) -> Chosen:
    """Search by coordinates: try `base`, then apply each change to the best so far. A change stays if NDCG@10 rises.

    `changes` beyond the budget of `tries` are not tried. Without validation positions, `base` is chosen and nothing is
    tried.
    """
    best: Chosen | None = None
    tried: list[tuple[Settings, float]] = []
    changes = changes[: tries - 1] if len(training.watched) else ()
    highest = -1.0
    for number, change in enumerate([{}, *changes]):
        settings = {**(best.chosen if best else base), **change}
        if any(settings == earlier for earlier, _ in tried):
            continue
        ranker = fit(settings)
        gain = validation_gain(training, ranker, most)
        tried.append((settings, gain))
        if best is None or gain > highest:
            best, highest = Chosen(ranker, settings), gain
        report("tuning", number + 1, len(changes) + 1, f"NDCG@10 {highest:.4f}" if len(training.watched) else "")
    if best is None:
        raise RuntimeError("a search always fits its base: this is a bug")
    return Chosen(best.ranker, best.chosen, tuple(tried))
