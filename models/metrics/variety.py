"""How varied each of some lists is, and how close its categories are to those of its user's own choices."""

from __future__ import annotations

from typing import Final

import numpy as np
from numpy.typing import NDArray

from models.data.histories import Doubles, Floats, Rows

DISTANCE: Final = "ILD"
CATEGORIES: Final = "ILD of categories"
COVERED: Final = "category coverage"
DIVERGENCE: Final = "calibration KL"
VARIETY: Final = (DISTANCE, CATEGORIES, COVERED, DIVERGENCE)
SMOOTHING: Final = 0.01
AT_ONCE: Final = 512

Labels = NDArray[np.integer]


def variety(lists: Rows, vectors: Floats, categories: Labels, own: Rows, line: Rows) -> dict[str, Doubles]:
    """Compute every metric of VARIETY, f64 [Q]. NaN where a list or the data cannot give it.

    ILD: 1 - the mean cosine of all pairs of the list's items, by their vectors. C.-N. Ziegler et al., WWW 2005.
    ILD of categories: 1 - the mean Jaccard index of all pairs of the list's items that have categories.
    category coverage: the share of all categories that the list's items have.
    calibration KL: the Kullback-Leibler divergence of the list's mix of categories from that of the user's own choices,
    in nats, 0 if they are equal. H. Steck, Calibrated recommendations, RecSys 2018, with alpha .01.

    Args:
        lists: i64 [Q, k], item rows; 0 for none.
        vectors: f32 [N + 1, D].
        categories: i32 [N + 1, M], numbers of each item's categories, each once; 0 for none.
        own: i64 [R], rows of the users' own choices.
        line: i64 [R], ascending: for which list.
    """
    held = _shares(categories)
    out = {name: np.full(len(lists), np.nan) for name in VARIETY}
    length = np.linalg.norm(vectors, axis=1, keepdims=True)
    unit = np.divide(vectors, length, out=np.zeros_like(vectors), where=length > 0)
    ends = np.searchsorted(line, np.arange(len(lists) + 1))
    for at in range(0, len(lists), AT_ONCE):
        end = min(at + AT_ONCE, len(lists))
        some = lists[at:end]
        out[DISTANCE][at:end] = _distance(unit[some], (some > 0) & (length[some, 0] > 0))
        mine = slice(ends[at], ends[end])
        mix = np.zeros((end - at, held.shape[1]))
        np.add.at(mix, line[mine] - at, held[own[mine]])
        by_category = _categories(held[some], mix)
        for name, values in by_category.items():
            out[name][at:end] = values
    return out


def _shares(categories: Labels) -> Doubles:
    """Return f64 [N + 1, C]: each item's categories, with equal shares that sum to 1, or 0 if there are none."""
    out = np.zeros((len(categories), int(categories.max(initial=0)) + 1))
    row, column = np.nonzero(categories)
    out[row, categories[row, column]] = 1.0
    shares: Doubles = out / np.maximum(out.sum(1, keepdims=True), 1.0)
    return shares


def _distance(unit: Floats, has: NDArray[np.bool_]) -> Doubles:
    count = has.sum(1)
    total = np.square((unit * has[:, :, None]).sum(1, dtype=np.float64)).sum(1) - count
    return np.where(count > 1, 1.0 - total / np.maximum(count * (count - 1), 1), np.nan)


def _categories(shares: Doubles, mix: Doubles) -> dict[str, Doubles]:
    sets = shares > 0  # [q, k, C]
    number = sets.sum(2)
    common = np.matmul(sets.astype(np.float32), np.swapaxes(sets, 1, 2).astype(np.float32))
    union = number[:, :, None] + number[:, None] - common
    index = common / np.maximum(union, 1)
    has = number > 0
    count = has.sum(1)
    pairs = (index * (has[:, :, None] & has[:, None])).sum((1, 2)) - count
    shown = shares.sum(1)
    total, own = shown.sum(1, keepdims=True), mix.sum(1, keepdims=True)
    shown, mix = shown / np.maximum(total, 1e-12), mix / np.maximum(own, 1e-12)
    smooth = (1 - SMOOTHING) * shown + SMOOTHING * mix
    ratio = np.divide(mix, smooth, out=np.ones_like(mix), where=mix > 0)
    divergence = (mix * np.log(ratio)).sum(1)
    both = (total[:, 0] > 0) & (own[:, 0] > 0)
    return {
        CATEGORIES: np.where(count > 1, 1.0 - pairs / np.maximum(count * (count - 1), 1), np.nan),
        COVERED: np.where(count > 0, sets.any(1).sum(1) / max(1, sets.shape[2] - 1), np.nan),
        DIVERGENCE: np.where(both, divergence, np.nan),
    }
