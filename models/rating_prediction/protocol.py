"""The protocol `rating`: RMSE and MAE, random 5-fold or by time, with intervals. A target's own review is never read.

random: every rating is predicted once per seed, from the four other folds. For every model alike, these include later
ratings of the same user.

time: the last fifth of all ratings is predicted, and models are fitted once at the cut. Models with names that end in
-folded then continue to read: each test rating is known to them once it has passed, as in a live system. They are
compared with each other. Only `freshet` has the same knowledge as the models that are fitted once.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, Final

import numpy as np

from models.data import DataSet
from models.data.histories import Doubles, Encode, Rows
from models.interfaces import ProgressCallback, silent
from models.metrics.errors import error_figures
from models.network.text import TextEncoder
from models.rating_prediction.library import library_predictions
from models.rating_prediction.residual import ResidualModel
from models.rating_prediction.table import (
    FOLDS,
    LATE,
    SPLITS,
    RatingTable,
    folds,
    in_time,
    not_rated,
    rating_table,
)
from stream.core.errors import DataError

LIBRARY: Final = ("mean", "bias", "svd", "svdpp", "user-knn")
FRESHET: Final = ("freshet", "freshet-folded", "bias-folded")
MODELS: Final = (*LIBRARY, *FRESHET)


@dataclass
class _Errors:
    """What one model did.

    Attributes:
        error: Prediction minus rating, for every test rating.
        user: The user of every test rating.
        seconds: Time that fitting and predicting took.
        refused: Why the model did not run; "" if it ran.
    """

    error: list[Doubles] = field(default_factory=list)
    user: list[Rows] = field(default_factory=list)
    seconds: float = 0.0
    refused: str = ""


def rating_protocol(
    data: DataSet,
    split: str = "random",
    models: Sequence[str] = MODELS,
    seeds: Sequence[int] = (0,),
    encode: Encode | None = None,
    report: ProgressCallback = silent,
) -> dict[str, Any]:
    """Run the protocol.

    Names that end in -folded exist only for the time split.

    Raises:
        DataError: A name or the split is unknown, there are too few ratings, or all are equal. For the time split: the
            last ones are not later.

    Returns:
        A value that can be written as JSON: split, seeds, ratings and users of the data set, and per model RMSE, MAE,
        seconds and intervals. intervals: 95 %, bootstrapped over users, of RMSE and MAE and of their paired difference
        to the best library model that ran ("RMSE - svd"). A model that is above its size limit, or has a prediction
        that is not a finite number, has {"not run": why} instead.
    """
    unknown = sorted(set(models) - set(MODELS))
    if unknown:
        raise DataError(f"rating models: found {', '.join(unknown)}, expected some of {', '.join(MODELS)}")
    if split not in SPLITS:
        raise DataError(f"split {split}: expected one of {', '.join(SPLITS)}")
    if not models or not seeds:
        raise DataError("protocol `rating` needs at least one model and one seed")
    table = rating_table(data, encode or TextEncoder().encode)
    if split == "time" and not in_time(table):
        raise DataError(
            f"{data.name}: field `time`: the last {LATE:.0%} of the ratings have the same time as those before them, "
            f"{table.time[-1]} ms; expected later times"
        )
    names = [name for name in models if split == "time" or not name.endswith("-folded")]
    errors = {name: _Errors() for name in names}
    for seed in seeds:
        for fold, (train, test) in enumerate(folds(table, split, seed)):
            for at, name in enumerate(name for name in names if name in LIBRARY):
                report(f"seed {seed} fold {fold + 1}", at, len(names), name)
                _library(errors[name], name, table, train, test, seed)
            if set(names) & set(FRESHET):
                report(f"seed {seed} fold {fold + 1}", len(names) - 1, len(names), "freshet")
                _freshet(errors, table, train, test, causal=split == "time")
    return {
        "data": data.name,
        "protocol": "rating",
        "split": f"random, {FOLDS} folds" if split == "random" else f"time, the last {LATE:.0%} of the ratings",
        "seeds": list(seeds),
        "ratings": len(table.value),
        "users": table.users,
        "left out": [reason._asdict() for reason in not_rated(data)],
        "notes": [],
        "models": _figures(errors),
    }


def _library(out: _Errors, name: str, table: RatingTable, train: Rows, test: Rows, seed: int) -> None:
    if out.refused:
        return
    begun = time.monotonic()
    try:
        predicted = library_predictions(name, table, train, test, seed)
    except DataError as error:
        out.refused = str(error)
        return
    _add(out, predicted, table, test, time.monotonic() - begun)


def _freshet(errors: dict[str, _Errors], table: RatingTable, train: Rows, test: Rows, *, causal: bool) -> None:
    begun = time.monotonic()
    model = ResidualModel(table, train, causal=causal)
    fitted = time.monotonic() - begun
    for folding in (False, True):
        wanted = ("freshet-folded", "bias-folded") if folding else ("freshet",)
        if not set(wanted) & set(errors):
            continue
        begun = time.monotonic()
        for name, predicted in zip(wanted, model.predict(test, folding=folding), strict=False):
            if name in errors:
                _add(errors[name], predicted, table, test, fitted + time.monotonic() - begun)


def _add(out: _Errors, predicted: Doubles, table: RatingTable, test: Rows, seconds: float) -> None:
    if out.refused or not np.isfinite(predicted).all():
        out.refused = out.refused or "predictions that are not finite numbers"
        out.error.clear()
        return
    out.error.append(predicted - table.value[test])
    out.user.append(table.user[test])
    out.seconds += seconds


def _figures(errors: dict[str, _Errors]) -> dict[str, dict[str, Any]]:
    ran = {name: np.concatenate(one.error) for name, one in errors.items() if one.error}
    if not ran:
        return {name: {"not run": one.refused} for name, one in errors.items()}
    best = min((name for name in LIBRARY if name in ran), key=lambda name: float((ran[name] ** 2).mean()), default="")
    user = np.concatenate(errors[next(iter(ran))].user)  # every model that ran has predicted the same ratings
    figures = error_figures({name: error[None] for name, error in ran.items()}, user, best)
    return {
        name: {**figures[name], "seconds": round(one.seconds, 2)} if name in ran else {"not run": one.refused}
        for name, one in errors.items()
    }
