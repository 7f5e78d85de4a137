"""What is no recommendation: the finite value that masks an item in the score graph, and what a slate's places must be.

Why not -inf inside the graph: CUDA's TopK pads its input with -3.4e38 at rows behind the last, and gives that padding back where
fewer than k scores are better. Masked items must rank above the padding and below every score; outside the graph a place
that holds none has the score -inf, whatever runs it.
"""

from __future__ import annotations

from typing import Final

import numpy as np
from numpy.typing import NDArray

MASKED: Final = np.float32(-1e38)
"""The score of a masked item inside the graph. What else is added to it is too small to change it."""
LEAST: Final = np.float32(-1e30)
"""A score at or below it is no recommendation; one at or above its negative is an overflow. Real ones are some 10."""


def settle(
    scores: NDArray[np.float32], rows: NDArray[np.int64], items: int
) -> tuple[NDArray[np.float32], NDArray[np.int64]]:
    """The graph's answer [B, k] over `items` rows -> the same, score -inf and row 0 at every place that holds none.

    None: a score at or below LEAST, a row outside 0 .. items - 1, and every place of a user with a score that is NaN or has
    overflowed.
    """
    overflowed = ~(scores < -LEAST).all(axis=1, keepdims=True)
    none = overflowed | (scores <= LEAST) | (rows < 0) | (rows >= items)
    if not none.any():
        return scores, rows
    return np.where(none, np.float32(-np.inf), scores), np.where(none, 0, rows)
