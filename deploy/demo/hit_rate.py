"""Hit rate: was the user's next item in the slate before it? Compared with popularity. Pure.

Both leave out seen items, with the same filter. Popularity ranks by the counts of the training part, in the same order
for everyone. The interval is for the paired difference (the same events for both), bootstrapped over users because the
events of one user are not independent.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Collection, Sequence
from typing import Final, NamedTuple

import numpy as np

from models.metrics.bootstrap import drawn_means, ends
from stream.core.state import MAX_RECENT, MAX_SEEN, item_hash

K: Final = 10


class Seen:
    """The items that a user has interacted with, as a state record remembers them: the first 4,096 and the last 64."""

    def __init__(self) -> None:
        self._first: set[int] = set()
        self._last: deque[int] = deque(maxlen=MAX_RECENT)

    def add(self, item: str) -> None:
        seen = item_hash(item)
        self._last.append(seen)
        if len(self._first) < MAX_SEEN:
            self._first.add(seen)

    def __contains__(self, item: str) -> bool:
        seen = item_hash(item)
        return seen in self._first or (len(self._first) >= MAX_SEEN and seen in self._last)


class HitRate(NamedTuple):
    """Shares of counted events whose item was in the slate.

    Attributes:
        counted: Number of counted events.
        freshet: Share of hits in freshet's slates.
        popularity: Share of hits in the slates of popularity.
        low: Lower end of the 95 % interval of `freshet - popularity`.
        high: Upper end of that interval.
    """

    counted: int
    freshet: float
    popularity: float
    low: float
    high: float


class HitCounter:
    """Counts hits. popular: items by training count, best first."""

    def __init__(self, popular: Sequence[str]) -> None:
        self._popular = popular
        self._seen: dict[str, Seen] = {}
        self._people: dict[str, int] = {}
        self._owners: list[int] = []
        self._hits: list[bool] = []
        self._floor: list[bool] = []

    def had(self, user: str, item: str) -> None:
        """Record an event of the user, counted or not. Popularity will not show the item again."""
        self._seen.setdefault(user, Seen()).add(item)

    def popular_slate(self, user: str) -> list[str]:
        """Return what popularity shows the user now."""
        seen: Collection[str] | Seen = self._seen.get(user, ())
        slate: list[str] = []
        for item in self._popular:
            if item not in seen:
                slate.append(item)
                if len(slate) == K:
                    break
        return slate

    def count(self, user: str, item: str, slate: Sequence[str]) -> bool:
        """Count an event: the user chose `item` while `slate` was the newest -> whether it was in the slate.

        Call this before `had`.
        """
        hit = item in slate[:K]
        self._owners.append(self._people.setdefault(user, len(self._people)))
        self._hits.append(hit)
        self._floor.append(item in self.popular_slate(user))
        return hit

    def rate(self, draws: int = 2000) -> HitRate:
        """Return the hit rate so far. draws: number of draws of the seeded bootstrap."""
        if not self._hits:
            return HitRate(0, 0.0, 0.0, 0.0, 0.0)
        hits, floor = np.array(self._hits, np.float64), np.array(self._floor, np.float64)
        low, high = ends(drawn_means((hits - floor)[:, None], np.array(self._owners), draws))
        return HitRate(len(hits), float(hits.mean()), float(floor.mean()), low, high)


def by_count(items: Sequence[str], counts: Sequence[float]) -> list[str]:
    """Sort items by falling count; items with equal counts keep their order. counts: as long as `items`."""
    order = np.argsort(-np.asarray(counts, np.float64), kind="stable")
    return [items[row] for row in order]
