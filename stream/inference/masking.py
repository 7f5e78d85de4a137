"""Masking: the finite value that masks an item in the score graph, and the form of a slate's empty places.

The graph cannot use -inf. CUDA's TopK pads its input with -3.4e38 at rows after the last, and returns that padding if
fewer than k scores are higher. So masked items must rank above the padding and below every score. Outside the graph an
empty place has the score -inf on every provider.
"""

from __future__ import annotations

from typing import Final

import numpy as np
from numpy.typing import NDArray

MASKED: Final = np.float32(-1e38)
"""The score of a masked item inside the graph. All other summands are too small to change it."""
LEAST: Final = np.float32(-1e30)
"""A score at or below it is not a recommendation; one at or above -LEAST is an overflow. Real scores are about 10."""


def settle(
    scores: NDArray[np.float32], rows: NDArray[np.int64], items: int
) -> tuple[NDArray[np.float32], NDArray[np.int64]]:
    """Return the graph's answer [B, k] over `items` rows, with score -inf and row 0 at every empty place.

    A place is empty if its score is at or below LEAST or its row is outside 0 .. items - 1. All places of a user are
    empty if one of the user's scores is NaN or has overflowed.
    """
    overflowed = ~(scores < -LEAST).all(axis=1, keepdims=True)
    none = overflowed | (scores <= LEAST) | (rows < 0) | (rows >= items)
    if not none.any():
        return scores, rows
    return np.where(none, np.float32(-np.inf), scores), np.where(none, 0, rows)
