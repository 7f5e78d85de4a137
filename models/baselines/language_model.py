"""A language model without training.

MiniLM reads the titles of the user's last items as one text, compared to item texts.
"""

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

MOST: Final = 30_000  # most evaluated positions that are encoded; about 10 ms each
TUNED_ON: Final = 500  # validation positions per try
BASE: Settings = {"titles": 5}
CHANGES: tuple[Settings, ...] = ({"titles": 1}, {"titles": 2}, {"titles": 3}, {"titles": 8})


@dataclass(frozen=True)
class LanguageRanker:
    """Ranks by the similarity of texts.

    Attributes:
        titles: [N + 1], the titles of the rows.
        texts: f32 [N + 1, X], unit length.
        last: Number of titles in a text, the newest first, since MiniLM reads only the first 64 tokens.
        encoder: Encodes the texts.
    """

    titles: tuple[str, ...]
    texts: Floats
    last: int
    encoder: TextEncoder

    def scorer(self, rows: Histories) -> Scorer:
        """Score by the cosine of "title. title. title" and the item.

        Raises DataError if more than MOST positions are evaluated.
        """
        count = int(rows.judged.sum())
        if count > MOST:
            raise DataError(
                f"language-model: not run: found {count:,} judged places to encode, expected at most {MOST:,}"
            )
        texts = torch.from_numpy(self.texts)

        def score(positions: Rows) -> torch.Tensor:
            window = windows(rows, positions, self.last)
            read = [". ".join(self.titles[row] for row in line if self.titles[row]) for line in window.tolist()]
            return torch.from_numpy(self.encoder.encode(read)) @ texts.T

        return score


@dataclass(frozen=True)
class LanguageModel:
    """A language model with a tuned number of titles, on at most TUNED_ON positions.

    The default encoder is TextEncoder().
    """

    encoder: TextEncoder | None = None
    name: str = "language-model"
    family: str = "language model"
    settings: Mapping[str, Any] = field(
        default_factory=lambda: {"base": BASE, "changes": CHANGES, "most": MOST, "tuned on": TUNED_ON}
    )

    def fit(
        self, training: TrainingData, seed: int, report: ProgressCallback = silent, checkpoint: Path | None = None
    ) -> Chosen:
        """Choose the settings; nothing is learned.

        Raises DataError if no item has a text, or above MOST validation positions.
        """
        require_texts(training, self.name)
        if len(training.watched) > MOST:
            raise DataError(
                f"{self.name}: not run: found {len(training.watched):,} validation places to encode, expected at most {MOST:,}"
            )
        titles = ("", *(item.title for item in training.items))
        texts = unit_texts(np.asarray(training.text), centred=False)
        encoder = self.encoder or TextEncoder()

        def fit(settings: Settings) -> LanguageRanker:
            return LanguageRanker(titles, texts, settings["titles"], encoder)

        return search(training, BASE, CHANGES, fit, report, TUNED_ON)
