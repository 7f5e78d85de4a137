"""The simplest baseline: the items that users chose most in the training part, the same for every user."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from models.data.histories import Flags, Histories


def popularity(train: Histories, items: int, use: Flags | None = None) -> NDArray[np.float32]:
    """Count how often each row was chosen in `train`, f32 [items + 1].

    Each choice counts with the weight of its action. If `use` is given, only its events count. Row 0 (UNKNOWN) is 0.
    """
    chosen = train.choice if use is None else train.choice & use
    weight = None if train.weight is None else train.weight[chosen]
    counts = np.bincount(train.item[chosen], weight, minlength=items + 1).astype(np.float32)
    counts[0] = 0.0
    return counts
