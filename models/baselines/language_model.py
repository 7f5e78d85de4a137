"""A language model without training: the titles of the user's last items, read by MiniLM as one text, against item texts."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

import numpy as np
import torch

from models.baselines.content import require_texts, unit_texts
from models.data.histories import Floats, Histories, Rows
from models.interfaces import ProgressCallback, Scorer, TrainingData, silent
from models.network.text import TextEncoder
from models.training.neighbours import windows
from models.training.tuning import Chosen, Settings, search
from stream.core.errors import DataError

MOST: Final = 30_000  # judged places that are encoded; about 10 ms each
TUNED_ON: Final = 500  # validation places per try
BASE: Settings = {"titles": 5}
CHANGES: tuple[Settings, ...] = ({"titles": 1}, {"titles": 2}, {"titles": 3}, {"titles": 8})


@dataclass(frozen=True)
class LanguageRanker:
    """titles: of the rows, [N + 1]; texts: f32 [N + 1, X], unit length; last: titles in a text, the newest first, since
    MiniLM reads the first 64 tokens only."""

    titles: tuple[str, ...]
    texts: Floats
    last: int
    encoder: TextEncoder

    def scorer(self, rows: Histories) -> Scorer:
        """Cosine of "title. title. title" and item. Raises DataError where more than MOST places are judged."""
        judged = int(rows.judged.sum())
        if judged > MOST:
            raise DataError(f"language-model: not run: {judged:,} judged places to encode, more than {MOST:,}")
        texts = torch.from_numpy(self.texts)

        def score(places: Rows) -> torch.Tensor:
            window = windows(rows, places, self.last)
            read = [". ".join(self.titles[row] for row in line if self.titles[row]) for line in window.tolist()]
            return torch.from_numpy(self.encoder.encode(read)) @ texts.T

        return score


@dataclass(frozen=True)
class LanguageModel:
    """Tuned: the number of titles, on at most TUNED_ON places. encoder: default TextEncoder()."""

    encoder: TextEncoder | None = None
    name: str = "language-model"
    family: str = "language model"
    settings: Mapping[str, Any] = field(
        default_factory=lambda: {"base": BASE, "changes": CHANGES, "most": MOST, "tuned on": TUNED_ON}
    )

    def fit(
        self, training: TrainingData, seed: int, report: ProgressCallback = silent, checkpoint: Path | None = None
    ) -> Chosen:
        """Nothing is learned. Raises DataError where no item has a text, or above MOST validation places."""
        require_texts(training, self.name)
        if len(training.watched) > MOST:
            raise DataError(
                f"{self.name}: not run: {len(training.watched):,} validation places to encode, more than {MOST:,}"
            )
        titles = ("", *(item.title for item in training.items))
        texts = unit_texts(np.asarray(training.text), centred=False)
        encoder = self.encoder or TextEncoder()

        def fit(settings: Settings) -> LanguageRanker:
            return LanguageRanker(titles, texts, settings["titles"], encoder)

        return search(training, BASE, CHANGES, fit, report, TUNED_ON)
