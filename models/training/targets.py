"""What a state shall predict: its user's next choice, and with a share of the probability that choice's neighbours.

A user who chose one item might as well have chosen one that others choose next to it, and where an item has few choices, they
say little about which users want it. So the target is softened towards what co-occurs with it, not evenly as label smoothing
does (C. Szegedy et al., Rethinking the Inception Architecture, CVPR 2016).
"""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from models.interfaces import TrainingData
from models.training.neighbours import NeighbourSettings, neighbours


class SpreadTargets:
    """Spreads targets over their neighbours.

    Args:
        training: The data that neighbours are counted in. Only what is trained on counts.
        share: The probability that goes to the neighbours together, in proportion to their weights. An item without neighbours
            keeps all of its own.
        count: Number of neighbours that an item shares with, at most.
        device: Where the targets are.
    """

    def __init__(self, training: TrainingData, share: float, count: int, device: torch.device | None = None) -> None:
        near, weight = neighbours(training, NeighbourSettings(keep=count))
        total = weight.sum(1, keepdims=True)
        parts = np.divide(share * weight, total, out=np.zeros_like(weight), where=total > 0)
        own = np.arange(len(near))[:, None]
        self._items = torch.from_numpy(np.concatenate((own, near), 1)).to(device)
        self._shares = torch.from_numpy(np.concatenate((1 - parts.sum(1, keepdims=True), parts), 1)).to(device)

    def of(self, targets: Tensor) -> tuple[Tensor, Tensor]:
        """Map targets i64 [M] to items i64 [M, 1 + count] and their shares f32 [M, 1 + count], the target itself first."""
        return self._items[targets], self._shares[targets]
