"""The simplest baseline: the items that users chose most in the training part, the same for every user."""

from __future__ import annotations

import numpy as np

from models.data.histories import Flags, Floats, Histories


def popularity(train: Histories, items: int, use: Flags | None = None, *, weighted: bool = True) -> Floats:
    """Count how often each row was chosen in `train`, f32 [items + 1].

    If `use` is given, only its events count. Row 0 (UNKNOWN) is 0.

    Args:
        train: The events.
        items: Number of items of the catalogue.
        use: bool [E], the events that count. None: all.
        weighted: Whether a choice counts with the weight of its action. If not, it counts 1.
    """
    chosen = train.choice if use is None else train.choice & use
    weight = train.weight[chosen] if weighted and train.weight is not None else None
    counts = np.bincount(train.item[chosen], weight, minlength=items + 1).astype(np.float32)
    counts[0] = 0.0
    return counts
