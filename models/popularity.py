"""The honest floor: the items that most users took in the training part, the same for everyone."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from models.rows import Histories


def popularity(train: Histories, items: int) -> NDArray[np.float32]:
    """f32 [items + 1]: how often each row was chosen in `train`; row 0 (UNKNOWN) is 0."""
    counts = np.bincount(train.item[train.choice], minlength=items + 1).astype(np.float32)
    counts[0] = 0.0
    return counts
