"""Settings by kind of data, each chosen on validation parts.

sparse: about ten events per user (Amazon Beauty). dense: a hundred and more (MovieLens). docs/models.md shows what was
tried.
"""

from __future__ import annotations

from typing import Any, Final, NamedTuple

import numpy as np

from models.interfaces import TrainingData
from models.network.network import FEATURES
from models.training.trainer import FitSettings

OFF: Final = ("scene",)
"""Features that are read only if requested: they did not help in the measurements (docs/models.md)."""
ON: Final = tuple(name for name in FEATURES if name not in OFF)
SPARSE_BELOW: Final = 30  # events per user in the training part, on average


class Preset(NamedTuple):
    """Arguments of NetworkSize besides items and scenes, and how to fit."""

    network: dict[str, Any]
    fit: FitSettings


PRESETS: Final[dict[str, Preset]] = {
    "sparse": Preset(
        {
            "item": 128,
            "width": 128,
            "dropout": 0.5,
            "item_dropout": 0.5,
            "normalise": True,
            "temperature": 0.07,
            "features": ON,
        },
        FitSettings(epochs=80, length=50, rate=2e-3, average=0.995, patience=6, unknown=0.0, spread=0.3),
    ),
    "dense": Preset(
        {"item": 64, "width": 128, "dropout": 0.2, "item_dropout": 0.2, "features": ON},
        FitSettings(epochs=60, length=64, states=1536, rate=2e-3, average=0.99, patience=4, unknown=0.01),
    ),
}


def suited(training: TrainingData) -> str:
    """Return the name of the preset for this data."""
    return "sparse" if training.use.sum() / max(1, len(training.rows.users)) < SPARSE_BELOW else "dense"


def texts_given(training: TrainingData) -> bool:
    """Return whether any item has a text."""
    return bool(np.any(training.text))
