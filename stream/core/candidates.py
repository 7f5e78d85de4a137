"""Re-ranks the best items of a batch of users, who have the same rules (docs/diversity.md). Pure.

Rules decide first which items may be candidates: none that `block` or `only` leaves out, none that is pinned, and none of a
category of which the pinned items already show as many as a cap allows. The scores include boosts. Then each slate is
chosen among its candidates within the caps. If caps leave fewer candidates than the slate has places, the next best items
that fit follow. Last, `Selection.arrange` puts the pinned items to their places.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from typing import NamedTuple, Protocol

import numpy as np
from numpy.typing import NDArray

from stream.core.diversity import Diversity, Items, reranked
from stream.core.ruling import NEVER, Selection

Floats = NDArray[np.float32]
Rows = NDArray[np.int64]


class Categorised(Protocol):
    """A catalogue, as far as re-ranking reads it. See stream.catalogue.catalogue."""

    @property
    def items(self) -> Floats: ...

    @property
    def categories(self) -> NDArray[np.int32]: ...

    def category(self, name: str) -> int: ...


class Choice(NamedTuple):
    """What one user's slate is made of.

    Attributes:
        ranked: (row, score): the candidates that were chosen, in order, then what may follow if caps have left too few.
        full: Whether there are as many candidates as are re-ranked.
        whole: Whether all items that may be in the slate were among those scored.
    """

    ranked: list[tuple[int, float]]
    full: bool
    whole: bool

    def done(self, length: int, k: int) -> bool:
        """Return whether more scores could not change the slate, which has this length of k."""
        return self.whole or (self.full and length == k)


def plain(
    scores: Floats, rows: Rows, own: Rows, catalogue: Categorised, k: int, strength: float
) -> tuple[Floats, Rows]:
    """Re-rank the candidates of B users without rules and return the first k.

    Args:
        scores: float32 [B, n], best first.
        rows: int64 [B, n], the items.
        own: The users' last choices, as `stream.core.fold.recent_choices` returns them.
        catalogue: The items.
        k: Length of the slates.
        strength: From 0 to 1.
    """
    order = reranked(scores, _items(rows, own, catalogue), strength, min(k, scores.shape[1]))
    return np.take_along_axis(scores, order, 1), np.take_along_axis(rows, order, 1)


def ruled(
    scores: Floats,
    rows: Rows,
    own: Rows,
    catalogue: Categorised,
    k: int,
    diversity: Diversity,
    selection: Selection,
    hidden: Sequence[Collection[int]],
) -> list[Choice]:
    """Re-rank the candidates of B users under rules.

    Args:
        scores: float32 [B, n], best first, with boosts.
        rows: int64 [B, n], the items.
        own: As for `plain`.
        catalogue: The items.
        k: Length of the slates.
        diversity: The strength, and how many candidates there are.
        selection: The rules.
        hidden: For each user, rows that must not be pinned.
    """
    size = max(k, diversity.candidates)
    real = np.isfinite(scores)
    pinned = selection.pinned(k)
    out = ~real | np.isin(rows, pinned)
    room = _room(rows, catalogue, selection, pinned, hidden) if selection.caps else None
    if room is not None:
        out |= (room <= 0).any(2)
    order = np.argsort(out, axis=1, kind="stable")
    best = order[:, :size]
    scored = np.where(np.take_along_axis(out, best, 1), NEVER, np.take_along_axis(scores, best, 1))
    room = None if room is None else np.take_along_axis(room, best[:, :, None], 1)
    items = _items(np.take_along_axis(rows, best, 1), own, catalogue)
    chosen = reranked(scored, items, diversity.strength, min(k, best.shape[1]), room=room)
    left = (~out).sum(1)
    found = []
    for user, places in enumerate(chosen.tolist()):
        taken = [int(best[user, place]) for place in places if place >= 0 and scored[user, place] > NEVER]
        if room is not None and len(taken) < k:
            taken += order[user, size : left[user]].tolist()
        ranked = [(int(rows[user, place]), float(scores[user, place])) for place in taken]
        found.append(Choice(ranked, bool(left[user] >= size), not real[user].all()))
    return found


def _items(rows: Rows, own: Rows, catalogue: Categorised) -> Items:
    categories = catalogue.categories
    return Items(catalogue.items[rows], categories[rows], categories[own[:, 1]], own[:, 0])


def _room(
    rows: Rows, catalogue: Categorised, selection: Selection, pinned: list[int], hidden: Sequence[Collection[int]]
) -> Rows:
    """Return int64 [B, n, M]: how many more items of each category of an item a slate may show beside the pinned ones."""
    categories = catalogue.categories
    each, of_pinned = categories[rows], categories[np.array(pinned, np.int64)]
    size = int(max(each.max(initial=0), of_pinned.max(initial=0))) + 1
    limits = np.tile(selection.limits(catalogue.category, size), (len(rows), 1))
    limits -= np.bincount(of_pinned.ravel(), minlength=size)
    for user, rows_of_user in enumerate(hidden):
        for row in rows_of_user:
            if row in pinned:
                limits[user] += np.bincount(categories[row], minlength=size)
    room: Rows = limits[np.arange(len(rows))[:, None, None], each]
    return room
