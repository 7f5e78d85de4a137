"""RMSE and MAE with intervals over users, and paired differences. Every model has the same draws of users."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from models.data.histories import Doubles, Rows
from models.metrics.bootstrap import DRAWS, drawn_means, ends


def error_figures(
    errors: Mapping[str, Doubles], user: Rows, base: str, draws: int = DRAWS
) -> dict[str, dict[str, Any]]:
    """Compute the figures of each model. Squared and absolute errors are averaged over the seeds.

    Args:
        errors: Model -> f64 [seeds, n], prediction minus truth.
        user: i64 [n].
        base: The model that others are compared with; "" if there is none.
        draws: Number of draws.

    Returns:
        Model -> RMSE, MAE and `intervals`: 95 %, of RMSE, MAE and of their differences to `base` ("RMSE - base").
    """
    drawn = drawn_errors(errors, user, draws)
    out: dict[str, dict[str, Any]] = {}
    for name, each in errors.items():
        square, absolute = squares_and_sizes(each)
        intervals = {metric: ends(of) for metric, of in drawn[name].items()}
        if base and name != base:
            intervals |= {f"{metric} - {base}": ends(of - drawn[base][metric]) for metric, of in drawn[name].items()}
        out[name] = {"RMSE": float(np.sqrt(square.mean())), "MAE": float(absolute.mean()), "intervals": intervals}
    return out


def drawn_errors(errors: Mapping[str, Doubles], user: Rows, draws: int = DRAWS) -> dict[str, dict[str, Doubles]]:
    """Return model -> RMSE and MAE, f64 [draws] each, of users drawn with replacement. Arguments: `error_figures`."""
    if not errors:
        return {}
    columns = np.concatenate([squares_and_sizes(each) for each in errors.values()])  # [2 models, n]
    means = drawn_means(columns.T, user, draws).T
    return {name: {"RMSE": np.sqrt(means[2 * at]), "MAE": means[2 * at + 1].copy()} for at, name in enumerate(errors)}


def squares_and_sizes(each: Doubles) -> Doubles:
    """Return f64 [2, n]: the squared and the absolute errors of `each`, f64 [seeds, n], averaged over the seeds."""
    return np.stack(((each**2).mean(0), np.abs(each).mean(0)))
