"""Whether a re-ranked slate is right: docs/diversity.md computed once more for one user, without code of the worker."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

Doubles = NDArray[np.float64]
Mask = NDArray[np.bool_]

CALIBRATION: Final = 0.5
SMOOTHING: Final = 0.01
LEAST: Final = 1e-4
NEAR: Final = 5e-3
"""Sums closer than this count as equal: near what an item leaves of its like, the last bits decide."""
SCORE: Final = 1e-3
"""Scores closer than this count as equal."""


@dataclass(frozen=True, eq=False)
class Pool:
    """The items that a slate may show, best first.

    Attributes:
        scores: f64 [m]. More than `size`, so that items near the border are among them.
        vectors: [m, D].
        categories: The categories of each.
        size: How many of them are re-ranked.
    """

    scores: Doubles
    vectors: NDArray[np.float32]
    categories: Sequence[frozenset[str]]
    size: int


class Walk:
    """The places of a slate, one after the other: which item is the best one there.

    Args:
        pool: The candidates.
        own: The categories of the user's last choices.
        strength: That of the slate.
    """

    def __init__(self, pool: Pool, own: Sequence[frozenset[str]], strength: float) -> None:
        inside = pool.scores[: pool.size]
        border = inside[-1] if len(pool.scores) > pool.size else -math.inf
        weight = (1.0 - strength) / (float(inside.std() if len(inside) else 0.0) or 1.0)
        self._categories = pool.categories
        self._strength = strength
        self._relevance = weight * (pool.scores - pool.scores[:1])
        self._certain = pool.scores > border + SCORE
        self._possible = pool.scores >= border - SCORE
        self._room = NEAR + weight * SCORE
        self._share = 0.5 if any(pool.categories[: pool.size]) else 0.0
        self._mix = _mix(own)
        length = np.linalg.norm(pool.vectors.astype(np.float64), axis=1)
        self._unit = pool.vectors / np.where(length > 0, length, 1.0)[:, None]
        self._kept: list[int] = []
        self._columns: list[Doubles] = []
        self._taken: list[int] = []

    def possible(self, item: int) -> bool:
        """Return whether an item may be among those that are re-ranked."""
        return bool(self._possible[item])

    def left(self, fits: Mask | None = None) -> bool:
        """Return whether one of the items that are certainly re-ranked is left; fits: [m], which may still be shown."""
        return bool(self._free(fits).any())

    def short(self, item: int, fits: Mask | None = None) -> float:
        """Return by how much another item is better at the next place; 0.0 if none is by more than rounding explains."""
        left = self._left()
        calibration = np.array([-_divergence(self._mix, [self._categories[one] for one in (*self._taken, each)])
                                for each in range(len(left))])  # fmt: skip
        worth = self._relevance + self._strength * (np.log(np.maximum(left, LEAST)) + CALIBRATION * calibration)
        best = float(worth[self._free(fits)].max(initial=-math.inf))
        return best - float(worth[item]) if worth[item] < best - self._room else 0.0

    def take(self, item: int) -> None:
        """Go on to the next place, after an item."""
        left = self._left()[item]
        self._taken.append(item)
        if left >= LEAST:
            self._kept.append(item)
            cosine = self._unit @ self._unit[item]
            self._columns.append((1 - self._share) * cosine + self._share * _jaccard(self._categories, item))

    def _left(self) -> Doubles:
        return _left(self._kept, self._columns, len(self._unit))

    def _free(self, fits: Mask | None) -> Mask:
        free: Mask = self._certain.copy() if fits is None else self._certain & fits
        free[self._taken] = False
        return free


def wrong_place(shown: Sequence[int], pool: Pool, own: Sequence[frozenset[str]], strength: float) -> tuple[int, float]:
    """Return the first place of a slate whose item is not the best one there, and by how much; (-1, 0.0) if none is.

    Args:
        shown: Indices into the pool, in the order of the slate.
        pool: The candidates.
        own: The categories of the user's last choices.
        strength: That of the slate.
    """
    walk = Walk(pool, own, strength)
    for place, item in enumerate(shown):
        short = walk.short(item)
        if not walk.possible(item) or short:
            return place, short
        walk.take(item)
    return -1, 0.0


def _left(kept: list[int], columns: list[Doubles], size: int) -> Doubles:
    """Return what the kept items leave of each: the Schur complement of their similarities."""
    if not kept:
        return np.ones(size)
    towards = np.stack(columns)  # [kept, m]
    among = towards[:, kept].copy()
    np.fill_diagonal(among, 1.0)
    left: Doubles = 1.0 - (towards * np.linalg.solve(among, towards)).sum(0)
    return left


def _jaccard(categories: Sequence[frozenset[str]], item: int) -> Doubles:
    own = categories[item]
    return np.array([len(own & one) / len(own | one) if own or one else 0.0 for one in categories])


def _mix(own: Sequence[frozenset[str]]) -> dict[str, float]:
    found: dict[str, float] = {}
    for one in own:
        for name in one:
            found[name] = found.get(name, 0.0) + 1 / len(one)
    total = sum(found.values())
    return {name: weight / total for name, weight in found.items()}


def _divergence(mix: dict[str, float], shown: Sequence[frozenset[str]]) -> float:
    part: dict[str, float] = {}
    for one in shown:
        for name in one:
            part[name] = part.get(name, 0.0) + 1 / len(one) / len(shown)
    smooth: dict[str, Any] = {
        name: (1 - SMOOTHING) * part.get(name, 0.0) + SMOOTHING * weight for name, weight in mix.items()
    }
    return sum(weight * math.log(weight / smooth[name]) for name, weight in mix.items())
