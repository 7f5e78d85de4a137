"""Whether a re-ranked slate is right: docs/diversity.md computed once more for one user, without code of the worker."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

Doubles = NDArray[np.float64]

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


def wrong_place(shown: Sequence[int], pool: Pool, own: Sequence[frozenset[str]], strength: float) -> tuple[int, float]:
    """Return the first place of a slate whose item is not the best one there, and by how much; (-1, 0.0) if none is.

    Args:
        shown: Indices into the pool, in the order of the slate.
        pool: The candidates.
        own: The categories of the user's last choices.
        strength: That of the slate.
    """
    inside = pool.scores[: pool.size]
    border = inside[-1] if len(pool.scores) > pool.size else -math.inf
    spread = float(inside.std()) or 1.0
    weight = (1.0 - strength) / spread
    relevance = weight * (pool.scores - inside[0])
    certain = pool.scores > border + SCORE
    possible = pool.scores >= border - SCORE
    room = NEAR + weight * SCORE
    share = 0.5 if any(pool.categories[: pool.size]) else 0.0
    mix = _mix(own)
    length = np.linalg.norm(pool.vectors.astype(np.float64), axis=1)
    unit = pool.vectors / np.where(length > 0, length, 1.0)[:, None]
    kept: list[int] = []
    columns: list[Doubles] = []
    taken: list[int] = []
    for place, item in enumerate(shown):
        left = _left(kept, columns, len(unit))
        calibration = np.array([-_divergence(mix, [pool.categories[one] for one in (*taken, each)])
                                for each in range(len(unit))])  # fmt: skip
        worth = relevance + strength * (np.log(np.maximum(left, LEAST)) + CALIBRATION * calibration)
        free = certain.copy()
        free[taken] = False
        best = float(worth[free].max(initial=-math.inf))
        if not possible[item] or worth[item] < best - room:
            return place, best - float(worth[item])
        taken.append(item)
        if left[item] >= LEAST:
            kept.append(item)
            columns.append((1 - share) * (unit @ unit[item]) + share * _jaccard(pool.categories, item))
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
