"""Content only: items are ranked by how much their text resembles that of the user's last items.

It uses BERT vectors and no collaborative signal.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch

from models.data.histories import Floats, Histories, Rows
from models.interfaces import ProgressCallback, Scorer, TrainingData, silent
from models.training.neighbours import windows
from models.training.tuning import Chosen, Settings, search
from stream.core.errors import DataError

BASE: Settings = {"fade": 0.8, "centred": True, "last": 20}
CHANGES: tuple[Settings, ...] = (
    {"fade": 0.6},
    {"fade": 0.9},
    {"fade": 1.0},
    {"last": 5},
    {"last": 50},
    {"centred": False},
    {"fade": 0.4},
)


def unit_texts(text: Floats, *, centred: bool) -> Floats:
    """Scale the texts to unit length, f32 [N + 1, X]. Rows of zeros stay zeros.

    With `centred` the mean text, which all items share, is subtracted first.
    """
    had = np.abs(text).sum(1) > 0
    out = text - text[had].mean(0) * had[:, None] if centred and had.any() else text
    length = np.linalg.norm(out, axis=1, keepdims=True)
    unit: Floats = np.divide(out, length, out=np.zeros_like(out), where=length > 0).astype(np.float32)
    return unit


def require_texts(training: TrainingData, name: str) -> None:
    """Raise DataError if no item has a text."""
    if not np.any(training.text):
        raise DataError(f"{name}: not run: no item texts")


@dataclass(frozen=True)
class ContentRanker:
    """Ranks by texts f32 [N + 1, X] of unit length.

    The user is the weighted mean of the last items, the newest weighing most.
    """

    texts: Floats
    fade: float
    last: int

    def scorer(self, rows: Histories) -> Scorer:
        """Score by the cosine of user and item."""
        texts = torch.from_numpy(self.texts)
        age = torch.full((self.last,), self.fade).pow(torch.arange(self.last))

        def score(positions: Rows) -> torch.Tensor:
            window = torch.from_numpy(windows(rows, positions, self.last))
            user = (texts[window] * age[None, :, None]).sum(1)  # (Q, X)
            return torch.nn.functional.normalize(user, dim=1) @ texts.T

        return score


@dataclass(frozen=True)
class Content:
    """A content model with tuned fade and length of the window, and centring of the vectors."""

    name: str = "content"
    family: str = "content"
    settings: Mapping[str, Any] = field(default_factory=lambda: {"base": BASE, "changes": CHANGES})

    def fit(
        self, training: TrainingData, seed: int, report: ProgressCallback = silent, checkpoint: Path | None = None
    ) -> Chosen:
        """Choose the settings; nothing else is learned. Raises DataError if no item has a text."""
        require_texts(training, self.name)

        def fit(settings: Settings) -> ContentRanker:
            texts = unit_texts(training.text, centred=settings["centred"])
            return ContentRanker(texts, settings["fade"], settings["last"])

        return search(training, BASE, CHANGES, fit, report)
