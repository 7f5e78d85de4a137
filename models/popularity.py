"""The honest floor: the items that most users took in the training part, the same for everyone."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from models.rows import Flags, Histories


def popularity(train: Histories, items: int, use: Flags | None = None) -> NDArray[np.float32]:
    """f32 [items + 1]: how often each row was chosen in `train`, in the events of `use` where given; row 0 (UNKNOWN) is 0."""
    chosen = train.choice if use is None else train.choice & use
    counts = np.bincount(train.item[chosen], minlength=items + 1).astype(np.float32)
    counts[0] = 0.0
    return counts
