"""How the parts of a score add up: recurrent interest, neighbours of the last items, and popularity while little is known.

score(user, item) = query(h) . item
                  + neighbour * sum over the user's last `last` items j of fade^age(j) * weight(j, item)
                  + prior * evidence / (evidence + n) * log-popularity(item)

age: 0 for the newest event; n: events of the user so far; weight: models/neighbours.py; log-popularity: centred, row 0 and
items unseen in training have 0. Long term is the state, short term the last items; which counts how much is chosen on validation.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray


@dataclass(frozen=True)
class Blend:
    """The five numbers of the sum above. neighbour = prior = 0: the recurrent score alone."""

    last: int = 20
    fade: float = 0.6
    neighbour: float = 0.0
    prior: float = 0.0
    evidence: float = 2.0


def log_popularity(counts: NDArray[np.float32]) -> NDArray[np.float32]:
    """Interactions f32 [N + 1] -> log(1 + count) less its mean over the rows that have any; 0 elsewhere and in row 0."""
    out = np.log1p(counts.astype(np.float64))
    had = counts > 0
    had[0] = False
    out = np.where(had, out - (out[had].mean() if had.any() else 0.0), 0.0)
    return out.astype(np.float32)
