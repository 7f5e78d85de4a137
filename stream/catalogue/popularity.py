"""The slate for unknown users: the most popular live items, or those that are trending, published under `*`."""

from __future__ import annotations

from typing import Final

import numpy as np
from msgspec import UNSET, UnsetType
from numpy.typing import NDArray

from stream.core.fold import Catalogue
from stream.core.keys import ANYONE
from stream.core.messages import Recommendation, Scored
from stream.core.rules import NO_RULES, RuleSet
from stream.core.ruling import NEVER, Selection
from stream.core.state import ZERO_CHAIN

TRAINING: Final = "training"
TABLES: Final = "tables"
TRENDING: Final = "trending"
"""Values of the setting `popular_by`."""
NOBODY = b""
"""Stands for the key of the unknown users, for rules."""


def counts_of(
    popularity: NDArray[np.float32], catalogue: Catalogue, by: str = TRAINING
) -> tuple[NDArray[np.float32], int | UnsetType]:
    """Return what items are ranked by, float32 [rows], and the epoch that it is of; UNSET for the training part.

    TABLES: the decayed counts of the catalogue's epoch. TRENDING: its trend, or the counts if it has none. Without an epoch,
    the interactions in the training part.
    """
    tables = catalogue.tables
    found: NDArray[np.float32] = popularity
    epoch: int | UnsetType = UNSET
    if by != TRAINING and tables is not None and tables.counts is not None:
        found = tables.trend if by == TRENDING and tables.trend is not None else tables.counts
        epoch = tables.epoch
    counts = np.zeros(len(catalogue.bias), np.float32)
    counts[: len(found)] = found[: len(counts)]
    return counts, epoch


def popular_items(
    popularity: NDArray[np.float32],
    catalogue: Catalogue,
    k: int,
    selection: Selection | None = None,
    by: str = TRAINING,
) -> list[Scored]:
    """Return the k live items with the highest counts, best first, equal counts by row.

    Args:
        popularity: float32 [N + 1], the counts of the bundle's items. Items that are newer than the bundle count 0.
        catalogue: The items.
        k: Maximum number of items.
        selection: What rules do; None for nothing. A boost multiplies an item's count by its factor.
        by: Which counts: the setting `popular_by`.
    """
    counts, _ = counts_of(popularity, catalogue, by)
    if selection is None:
        live = np.flatnonzero(catalogue.bias == 0)
        best = live[np.argsort(-counts[live], kind="stable")[:k]]
        return [Scored(catalogue.item(int(row)), float(counts[row])) for row in best]
    live = np.flatnonzero(selection.bias > NEVER)
    boosted = counts[live].astype(np.float64) * np.exp(selection.bias[live].astype(np.float64))
    order = np.argsort(-boosted, kind="stable")
    ranked = zip(live[order].tolist(), boosted[order].tolist(), strict=True)
    return [Scored(catalogue.item(row), round(score, 5)) for row, score in selection.arrange(list(ranked), k)]


def popular_slate(
    items: list[Scored],
    catalogue: int,
    bundle: str,
    now: int,
    rules: RuleSet = NO_RULES,
    tables: int | UnsetType = UNSET,
) -> Recommendation:
    """Return the `*` slate. It shows no state, so seq is 0 and it names no events. `now` is in epoch ms."""
    return Recommendation(
        user=ANYONE, slate=f"popular-{now:x}", seq=0, chain=ZERO_CHAIN.hex(), items=items, time=now, latency_ms=-1,
        events=[], applied={}, catalogue=catalogue, bundle=bundle, strategy="popularity", replay=False,
        rules=rules.offset if rules.rules else UNSET, tables=tables,
    )  # fmt: skip
