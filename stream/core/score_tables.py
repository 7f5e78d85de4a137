"""What the score reads of neighbours and popularity: the bundle's own tables, or those of an epoch from the stream. Pure."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

import numpy as np
from msgspec import UNSET, UnsetType
from numpy.typing import NDArray


@dataclass(frozen=True, eq=False, slots=True)
class ScoreTables:
    """One set of tables over M item rows, never changed. Rows from M on have no neighbours and log-popularity 0.

    Attributes:
        epoch: Its number; 0 for the bundle's own.
        near: int32 [M, K], rows of each row's neighbours; 0 at unused positions and in row 0.
        weight: float32 [M, K], their weights; 0 at unused positions and in row 0.
        popularity: float32 [M], centred log-popularity (models.network.blend.log_popularity); 0 for row 0 and for items that
            nobody has chosen.
        counts: float32 [M], decayed numbers of choices, with the half-life of popularity; None for the bundle's own.
        trend: float32 [M], by how many choices a day an item is chosen more often over the half-life of popularity than over
            that of neighbours; 0 if it is not. None if the former is not the shorter one, or for the bundle's own.
        trend_seconds: The half-life of popularity in seconds, if there is a trend.
    """

    epoch: int
    near: NDArray[np.int32]
    weight: NDArray[np.float32]
    popularity: NDArray[np.float32]
    counts: NDArray[np.float32] | None = None
    trend: NDArray[np.float32] | None = None
    trend_seconds: float = 0.0


class Tabled(Protocol):
    """A view of the catalogue."""

    @property
    def tables(self) -> ScoreTables | None: ...


def epoch_of(catalogue: Tabled) -> int | UnsetType:
    """Return what a slate of this catalogue says of its tables: the epoch; nothing for the bundle's own."""
    return catalogue.tables.epoch or UNSET if catalogue.tables is not None else UNSET
