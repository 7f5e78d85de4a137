"""What each option of the reader does, on the validation part: base settings, and the same with one thing changed."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any, Final

import numpy as np

from models.data import DataSet
from models.data.histories import Doubles, Encode
from models.interfaces import ProgressCallback, silent
from models.metrics.errors import error_figures
from models.network.text import TextEncoder
from models.text_rating.corpus import corpus, split_users
from models.text_rating.head import HeadSettings, RatingHead, read_values
from models.text_rating.learn import Material, best_head, learn
from models.text_rating.tuned import TuneSettings

BASE: Final = "frozen up to 4"
START: Final = TuneSettings(head=HeadSettings(penalty=3e-4))
CHOSEN: Final = replace(START, frozen=2)
"""By the table of docs/decisions/0006: what is trained, evaluated on the test part, and served."""

VARIANTS: Final[dict[str, TuneSettings]] = {
    BASE: START,
    "frozen up to 5": replace(START, frozen=5),
    "frozen up to 2": CHOSEN,
    "nothing frozen": replace(START, frozen=0, rate=5e-5),
    "class-balanced loss": replace(START, head=replace(START.head, balanced=True)),
    "regression output": replace(START, head=replace(START.head, output="regression")),
    "10 % of words dropped": replace(START, words=0.1),
    "sentences shuffled": replace(START, sentences=True),
    "no early stopping": replace(START, keep_last=True),
}


def reading_ablation(
    data: DataSet, seeds: Sequence[int] = (0, 1), encode: Encode | None = None, report: ProgressCallback = silent
) -> dict[str, Any]:
    """Measure RMSE and MAE of each variant on the validation part.

    All have 95 % intervals over users, and so has the difference to BASE. The result can be written as JSON.
    """
    found = corpus(data)
    material = Material(found, split_users(found), (encode or TextEncoder().encode)(found.texts))
    truth, texts = material.values("validation"), material.texts("validation")
    users = found.user[material.parts.validation]
    predicted: dict[str, list[Doubles]] = {}
    seconds: dict[str, float] = {}
    head, _ = best_head(material, HeadSettings())
    predicted["head on the frozen vector"] = [_of(head, material)] * len(seeds)
    balanced, _ = best_head(material, HeadSettings(balanced=True))
    predicted["head on the frozen vector, class-balanced"] = [_of(balanced, material)] * len(seeds)
    for name, settings in VARIANTS.items():
        made = [
            learn(material, settings, seed, lambda stage, *rest, name=name: report(f"{name}, {stage}", *rest))
            for seed in seeds
        ]
        predicted[name] = [one.values(texts) for one in made]
        seconds[name] = float(np.mean([one.seconds for one in made]))
    errors = {name: np.stack(each) - truth for name, each in predicted.items()}
    table = error_figures(errors, users, BASE)
    for name, value in seconds.items():
        table[name]["seconds"] = value
    return {"data": data.name, "part": "validation", "comments": len(truth), "seeds": list(seeds), "variants": table}


def _of(head: RatingHead, material: Material) -> Doubles:
    return read_values(head, material.vectors[material.parts.validation])
