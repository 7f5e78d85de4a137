"""The protocol `reading`: how well a comment's rating is read out of its text, on the test part of a split by users.

Rivals: the best constants, TF-IDF with ridge regression, and a head on the frozen BERT vector. All are fitted to the
training part. What is chosen (penalties, n-grams, the epoch to keep) is chosen by RMSE on the validation part. The test
part is read once.
"""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from typing import Any, Final

import numpy as np

from models.data import DataSet
from models.data.histories import Doubles, Encode
from models.interfaces import ProgressCallback, silent
from models.metrics.errors import error_figures
from models.network.text import TextEncoder
from models.text_rating.ablation import CHOSEN
from models.text_rating.baselines import constant, tfidf_ridge
from models.text_rating.corpus import corpus, split_users
from models.text_rating.head import HeadSettings, read_values
from models.text_rating.learn import Material, best_head, learn
from models.text_rating.tuned import TuneSettings
from stream.core.errors import DataError

NAME: Final = "bert-tuned"
PARTS: Final = ("validation", "test")
"""Parts that are predicted."""


def reading_protocol(
    data: DataSet,
    seeds: Sequence[int] = (0, 1, 2),
    encode: Encode | None = None,
    report: ProgressCallback = silent,
    settings: TuneSettings = CHOSEN,
) -> dict[str, Any]:
    """Run the protocol. Raises DataError if there are too few comments with a rating.

    The split is the same for all seeds. They vary the training, and errors are averaged over them.

    Returns:
        A value that can be written as JSON:
        {"models": {NAME: {"test": {"RMSE", "MAE"}, "validation": {...}, "intervals": {...}, "seconds"}}, ...}.
        intervals are 95 %, bootstrapped over the test users, with the paired difference to bert-tuned
        ("RMSE - bert-tuned").
    """
    if not seeds:
        raise DataError("the protocol `reading` needs at least one seed")
    found = corpus(data)
    material = Material(found, split_users(found), (encode or TextEncoder().encode)(found.texts))
    predicted, chosen = _rivals(material, report)
    for seed in seeds:
        reading = learn(material, settings, seed, report)
        values = {part: reading.values(material.texts(part)) for part in PARTS}
        predicted.add(NAME, reading.seconds / len(seeds), values)
    models = _tables(material, predicted.values)
    for name, value in predicted.seconds.items():
        models[name]["seconds"] = round(value, 2)
    return {
        "data": data.name,
        "protocol": "reading",
        "split": "by user, 55 % training, 20 % validation, 25 % test",
        "seeds": list(seeds),
        "comments": {part: len(rows) for part, rows in zip(material.parts._fields, material.parts, strict=True)},
        "users": {
            part: len(np.unique(found.user[rows]))
            for part, rows in zip(material.parts._fields, material.parts, strict=True)
        },
        "chosen": chosen,
        "models": models,
    }


class _Predictions:
    """What models predict for PARTS, clipped to the scale, and their seconds."""

    def __init__(self, scale: tuple[float, float]) -> None:
        self.values: dict[str, dict[str, list[Doubles]]] = {part: {} for part in PARTS}
        self.seconds: dict[str, float] = {}
        self._scale = scale

    def add(self, name: str, seconds: float, values: Mapping[str, Doubles]) -> None:
        """Add what one fit predicts for each part. Raises DataError if a prediction is not a finite number."""
        self.seconds[name] = self.seconds.get(name, 0.0) + seconds
        for part, value in values.items():
            if not np.isfinite(value).all():
                raise DataError(f"{name}: predictions of the {part} part that are not finite numbers")
            self.values[part].setdefault(name, []).append(np.clip(value, *self._scale))


def _rivals(material: Material, report: ProgressCallback) -> tuple[_Predictions, dict[str, Any]]:
    """Return the predictions of all models but bert-tuned, and the settings that validation chose for them."""
    predicted = _Predictions(material.corpus.scale)
    train = material.values("train")
    for kind in ("mean", "median"):
        began = time.monotonic()
        values = {part: constant(train, kind, len(material.values(part))) for part in PARTS}
        predicted.add(kind, time.monotonic() - began, values)
    began = time.monotonic()
    report("TF-IDF and ridge", 0, 1, "")
    ridge, tries = tfidf_ridge(
        material.texts("train"), train, material.texts("validation"), material.values("validation")
    )
    values = {part: ridge.predict(material.texts(part)) for part in PARTS}
    predicted.add("tfidf-ridge", time.monotonic() - began, values)
    began = time.monotonic()
    head, chosen = best_head(material, HeadSettings())
    values = {part: read_values(head, material.vectors[getattr(material.parts, part)]) for part in PARTS}
    predicted.add("frozen-head", time.monotonic() - began, values)
    return predicted, {"tfidf-ridge": {**ridge.settings, "tries": tries}, "frozen-head": {"penalty": chosen.penalty}}


def _tables(material: Material, predicted: dict[str, dict[str, list[Doubles]]]) -> dict[str, dict[str, Any]]:
    out: dict[str, dict[str, Any]] = {}
    for part, models in predicted.items():
        errors = {name: np.stack(each) - material.values(part) for name, each in models.items()}
        for name, found in error_figures(errors, material.corpus.user[getattr(material.parts, part)], NAME).items():
            entry = out.setdefault(name, {})
            entry[part] = {metric: round(found[metric], 4) for metric in ("RMSE", "MAE")}
            if part == "test":
                entry["intervals"] = found["intervals"]
    return out
