"""Which events a training that starts from an earlier run learns from: the newest, and a sample of the older ones."""

from __future__ import annotations

from dataclasses import dataclass
from hashlib import sha256
from typing import Final

import numpy as np

from models.data.histories import Histories
from models.network.network import InterestNetwork
from models.training.batching import Pieces

DAYS: Final = 30.0
"""Days that count as new."""
REPLAY: Final = 0.2
"""Share of the older pieces in an epoch."""


@dataclass(frozen=True)
class Start:
    """What a training starts from.

    Attributes:
        network: The network with the rows, scenes and actions of this training.
        since: Pieces of histories with an event from this time on (epoch ms) are learned from in every epoch.
        replay: Share of the other pieces that is learned from in an epoch; each epoch draws its own.
        head: Whether only what is behind the state is learned: query and output vectors.
        rows: Items of the run, which come first. With `head`, the others have no output vector but that of their text.
    """

    network: InterestNetwork
    since: int
    replay: float
    head: bool = False
    rows: int = 0

    def key(self) -> str:
        """Return a hash of everything here."""
        total = sha256(repr((self.since, self.replay, self.head, self.rows)).encode())
        for name, value in sorted(self.network.state_dict().items()):
            total.update(name.encode() + value.numpy().tobytes())
        return total.hexdigest()

    def chosen(self, pieces: Pieces, rows: Histories, draw: np.random.Generator) -> Pieces:
        """Return the pieces to learn from in one epoch. Without times that can be compared, all pieces."""
        if rows.time is None:
            return pieces
        last = pieces.begin + pieces.count - 1  # a user's events are in time order
        keep = (rows.time[last] >= self.since) | (draw.random(len(last)) < self.replay)
        if not keep.any():
            return pieces
        return Pieces(pieces.begin[keep], pieces.count[keep], pieces.ahead[keep])
