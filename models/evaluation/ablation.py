"""freshet with one part left out, or with one that is off by default.

The distance to freshet shows what a part is worth.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

import numpy as np

from models.interfaces import ProgressCallback, TrainingData, silent
from models.network.network import FEATURES
from models.training.sequential.freshet import BlendRanker, Freshet
from models.training.sequential.presets import OFF, ON, texts_given
from stream.core.errors import DataError

PARTS: Final = (*FEATURES, "text", "text-term", "neighbours")
"""What can be left out: each feature besides the item; the items' text, in the network and in the sum; the sum's text term
alone; and all of the sum's addends besides the network."""


class Changed(Freshet):
    """freshet without one of PARTS, or with it if it is off by default.

    Everything else is as in freshet, also the preset.
    """

    def __init__(self, part: str, preset: str = "auto", fit: Mapping[str, Any] | None = None) -> None:
        network: dict[str, Any] = {}
        if part == "text":
            network["item_text"] = False
        elif part in FEATURES:
            network["features"] = tuple(name for name in FEATURES if (name in ON) != (name == part))
        term = part not in ("text", "text-term")
        super().__init__(preset, network, fit, row_name(part), collaborative=part != "neighbours", text_term=term)
        self._part = part

    def fit(  # type: ignore[override]
        self, training: TrainingData, seed: int, report: ProgressCallback = silent, checkpoint: Path | None = None
    ) -> BlendRanker:
        """See models.interfaces.Model.

        Raises DataError if the data does not have the part: the result would be freshet's.
        """
        if not has(training, self._part):
            raise DataError(f"the data has no {self._part} to read")
        return super().fit(training, seed, report, checkpoint)


def row_name(part: str) -> str:
    """Return `with-` and the part if it is off by default, else `without-` and the part."""
    return f"with-{part}" if part in OFF else f"without-{part}"


def has(training: TrainingData, part: str) -> bool:
    """Return whether the training events have that part: more than one value of it, or any text."""
    rows, use = training.rows, training.use
    read: dict[str, Any] = {
        "behaviour": rows.behaviour,
        "scene": rows.scene,
        "value": rows.numbers[:, 0],
        "gap": rows.numbers[:, 2],
        "action": np.zeros(len(use), np.int64) if rows.action is None else rows.action,
    }
    if part in read:
        return len(np.unique(read[part][use])) > 1
    if part == "comment":
        return bool(rows.vectors[rows.comment[use]].any())
    return texts_given(training) if part in ("text", "text-term") else True
