"""The slate for unknown users: the most popular live items, published under `*`."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from stream.core.fold import Catalogue
from stream.core.messages import Recommendation, Scored
from stream.core.state import ZERO_CHAIN

ANYONE = "*"


def popular_items(popularity: NDArray[np.float32], catalogue: Catalogue, k: int) -> list[Scored]:
    """Return the k live items with the most interactions in the training part, best first, equal counts by row.

    `popularity` is float32 [N + 1], the counts of the bundle's items. Items that are newer than the bundle count 0.
    """
    live = np.flatnonzero(catalogue.bias == 0)
    counts = np.zeros(len(catalogue.bias), np.float32)
    counts[: len(popularity)] = popularity[: len(counts)]
    best = live[np.argsort(-counts[live], kind="stable")[:k]]
    return [Scored(catalogue.item(int(row)), float(counts[row])) for row in best]


def popular_slate(items: list[Scored], catalogue: int, bundle: str, now: int) -> Recommendation:
    """Return the `*` slate. It shows no state, so seq is 0 and it names no events. `now` is in epoch ms."""
    return Recommendation(
        user=ANYONE, slate=f"popular-{now:x}", seq=0, chain=ZERO_CHAIN.hex(), items=items, time=now, latency_ms=-1,
        events=[], applied={}, catalogue=catalogue, bundle=bundle, strategy="popularity", replay=False,
    )  # fmt: skip
