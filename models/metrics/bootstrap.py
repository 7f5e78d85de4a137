"""Bootstraps intervals of means over positions. It draws users, because the positions of one user are not independent.

B. Efron and R. Tibshirani, An Introduction to the Bootstrap, 1993. All compared models share the same draws, so
differences are paired.
"""

from __future__ import annotations

from typing import Final

import numpy as np

from models.data.histories import Doubles, Rows

DRAWS: Final = 2000
AT_ONCE: Final = 50  # draws held in memory at a time


def drawn_means(values: Doubles, owners: Rows, draws: int = DRAWS, seed: int = 0) -> Doubles:
    """Return f64 [draws, M]: column means of `values` f64 [Q, M] over the positions of users drawn with replacement.

    `owners` is i64 [Q], the user of each position. All users with the same number are one unit.
    """
    people, person = np.unique(owners, return_inverse=True)
    total = np.stack([np.bincount(person, column, len(people)) for column in values.T], 1)  # (U, M)
    count = np.bincount(person, minlength=len(people)).astype(np.float64)
    draw = np.random.default_rng(seed)
    out = np.empty((draws, values.shape[1]))
    for at in range(0, draws, AT_ONCE):
        rows = min(AT_ONCE, draws - at)
        picks = draw.integers(len(people), size=(rows, len(people)))
        picks += np.arange(rows)[:, None] * len(people)
        times = np.bincount(picks.ravel(), minlength=rows * len(people)).reshape(rows, -1).astype(np.float64)
        out[at : at + rows] = (times @ total) / (times @ count)[:, None]
    return out


def ends(means: Doubles) -> list[float]:
    """Return the [2.5 %, 97.5 %] percentiles of drawn means."""
    return [float(value) for value in np.percentile(means, [2.5, 97.5])]
