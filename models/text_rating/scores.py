"""RMSE and MAE with intervals over users, and paired differences. Every model has the same draws of users."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

import numpy as np

from models.data.histories import Rows
from models.text_rating.corpus import Doubles

DRAWS: Final = 2000


def figures(errors: Mapping[str, Doubles], user: Rows, base: str, draws: int = DRAWS) -> dict[str, dict[str, Any]]:
    """Compute the figures of each model. Squares and sizes are averaged over the seeds.

    Args:
        errors: Model -> f64 [seeds, n], prediction minus truth.
        user: i64 [n].
        base: The model that others are compared with.
        draws: Number of draws.

    Returns:
        Model -> RMSE, MAE and `intervals`: 95 %, of RMSE, MAE and of their differences to `base` ("RMSE - base").
    """
    sums = {name: np.stack(((each**2).mean(0), np.abs(each).mean(0))) for name, each in errors.items()}
    names, place = np.unique(user, return_inverse=True)
    count = np.bincount(place)
    drawn = np.random.default_rng(0).integers(len(names), size=(draws, len(names)))
    total = count[drawn].sum(1)
    spread: dict[str, Doubles] = {}
    for name, each in sums.items():
        by_user = np.stack([np.bincount(place, row) for row in each])
        mean = by_user[:, drawn].sum(2) / total  # [2, draws]
        spread[name] = np.stack((np.sqrt(mean[0]), mean[1]))
    out: dict[str, dict[str, Any]] = {}
    for name, each in sums.items():
        intervals = {metric: ends(spread[name][at]) for at, metric in enumerate(("RMSE", "MAE"))}
        if name != base:
            for at, metric in enumerate(("RMSE", "MAE")):
                intervals[f"{metric} - {base}"] = ends(spread[name][at] - spread[base][at])
        out[name] = {"RMSE": float(np.sqrt(each[0].mean())), "MAE": float(each[1].mean()), "intervals": intervals}
    return out


def ends(values: Doubles) -> list[float]:
    """Return the [2.5 %, 97.5 %] percentiles."""
    return [float(value) for value in np.percentile(values, [2.5, 97.5])]
