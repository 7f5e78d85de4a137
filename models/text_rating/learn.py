"""Learns to read ratings, with one set of settings on one split.

The result is kept on disk under a hash of everything that decides it.
"""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass, replace
from hashlib import sha256
from pathlib import Path
from typing import Final

import numpy as np

from models.data.histories import Doubles, Floats
from models.interfaces import ProgressCallback, silent
from models.network.text import MAX_TOKENS
from models.text_rating.corpus import Corpus, Parts
from models.text_rating.head import HeadSettings, RatingHead, fit_head, read_values
from models.text_rating.reading import Reading, load_reading, save_reading
from models.text_rating.tuned import TuneSettings, tune
from stream.core.errors import DataError

CACHE: Final = Path(".cache/reading")
PENALTIES: Final = (3e-5, 1e-4, 3e-4, 1e-3, 3e-3)
VERSION: Final = 1  # increase it when the code below gives other results for the same settings


@dataclass(frozen=True)
class Material:
    """A corpus, its split, and the frozen BERT vectors f32 [R, T] of its texts."""

    corpus: Corpus
    parts: Parts
    vectors: Floats

    def values(self, part: str) -> Doubles:
        """Return the ratings of `train`, `validation` or `test`."""
        values: Doubles = self.corpus.value[getattr(self.parts, part)]
        return values

    def texts(self, part: str) -> list[str]:
        """Return the texts of a part."""
        return self.corpus.some(getattr(self.parts, part))


def best_head(material: Material, settings: HeadSettings) -> tuple[RatingHead, HeadSettings]:
    """Fit a head on the frozen vectors, its penalty chosen by RMSE on the validation part.

    Raises DataError if one diverges.
    """
    train, watched, _ = material.parts
    corpus, vectors = material.corpus, material.vectors
    found: list[tuple[float, int, RatingHead, HeadSettings]] = []
    for penalty in PENALTIES:
        chosen = replace(settings, penalty=penalty)
        head = fit_head(vectors[train], corpus.value[train], corpus.scale, chosen)
        error = ((read_values(head, vectors[watched]) - corpus.value[watched]) ** 2).mean()
        if not np.isfinite(error):
            raise DataError(
                f"reading: a head with penalty {penalty:g} diverged: RMSE {error:g} on the validation part; expected a finite one"
            )
        found.append((float(error), len(found), head, chosen))
    _, _, head, chosen = min(found, key=lambda one: one[:2])
    return head, chosen


def learn(
    material: Material,
    settings: TuneSettings,
    seed: int = 0,
    report: ProgressCallback = silent,
    cache: Path | None = CACHE,
) -> Reading:
    """Fine-tune on the training part and stop by the validation part. It does not look at the test part."""
    folder = cache and cache / _key(material, settings, seed)
    if folder and (folder / "reading.json").exists():
        try:
            return load_reading(folder)
        except DataError:
            pass  # damaged by an earlier crash: learn again
    corpus, train = material.corpus, material.parts.train
    made = tune(
        material.texts("train"), material.values("train"), material.texts("validation"), material.values("validation"),
        corpus.scale, settings, material.vectors[train], seed, report,
    )  # fmt: skip
    reading = Reading(
        reader=made.reader,
        settings=settings,
        classes=tuple(sorted(set(material.values("train").tolist()))),
        scale=corpus.scale,
        curve=made.curve,
        epochs=made.epochs,
        seconds=round(made.seconds, 1),
        data={"name": corpus.name, "sha256": corpus.fingerprint(), "comments": len(train), "seed": seed},
    )
    if folder:
        save_reading(reading, folder)
    return reading


def _key(material: Material, settings: TuneSettings, seed: int) -> str:
    parts = [sha256(part.tobytes()).hexdigest() for part in material.parts[:2]]
    about = [VERSION, material.corpus.fingerprint(), parts, asdict(settings), seed, MAX_TOKENS]
    return sha256(json.dumps(about).encode()).hexdigest()[:32]
