"""The honest floor: the items that most users took in the training part, the same for everyone."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from models.data.histories import Flags, Histories


def popularity(train: Histories, items: int, use: Flags | None = None) -> NDArray[np.float32]:
    """f32 [items + 1]: how often each row was chosen in `train`, in the events of `use` where given, each choice with the weight
    of its action; row 0 (UNKNOWN) is 0."""
    chosen = train.choice if use is None else train.choice & use
    weight = None if train.weight is None else train.weight[chosen]
    counts = np.bincount(train.item[chosen], weight, minlength=items + 1).astype(np.float32)
    counts[0] = 0.0
    return counts
