"""Which items' interactions grow: counts of this gateway's users' events, from the states that the replica reads.

A state record names the events that were folded since the record before it, and the user's last 64 events, so the items of
the new ones are known. Each event counts once, as in the state, at the time at which the gateway reads the record. Records
that the changelog had before are not counted: compaction has removed most of them. So counting begins at 0 with each
process, and covers the users of its partitions.
"""

from __future__ import annotations

import time
from collections import Counter, deque
from collections.abc import Callable, Iterable
from heapq import nlargest
from itertools import islice
from typing import Final

from stream.core import state as interest
from stream.core.errors import StateError

PARTS: Final = 12
"""A window moves on by this part of its length."""
MOST_ITEMS: Final = 100_000
"""Different items that are counted in one part of a window."""
MOST_RANKED: Final = 1000
KEPT: Final = 1.0
"""Seconds for which a ranking is used again."""


class Trends:
    """Counts interactions in the last window and in the one before it.

    Args:
        window: Seconds.
        now: Returns the time in seconds, monotonic.
    """

    def __init__(self, window: float, now: Callable[[], float] = time.monotonic) -> None:
        self.window = window
        self._now = now
        self._began = now()
        self._part = 0
        self._late: deque[Counter[str]] = deque([Counter()])  # the last window's parts, the newest last
        self._early: deque[Counter[str]] = deque()
        self._recent: Counter[str] = Counter()
        self._before: Counter[str] = Counter()
        self._ranked: tuple[float, list[tuple[str, int]]] = float("-inf"), []

    def begin(self) -> None:
        """Begin to count."""
        self._began = self._now()
        self._part = 0

    @property
    def seconds(self) -> float:
        """Seconds since counting began."""
        return self._now() - self._began

    @property
    def complete(self) -> bool:
        """Whether both windows are counted from their beginnings."""
        return self.seconds >= 2 * self.window

    def add(self, records: Iterable[bytes | None]) -> None:
        """Count the new events of state records. One that cannot be decoded counts nothing."""
        self._move()
        part = self._late[-1]
        for record in records:
            if record is None:
                continue
            try:
                state = interest.decode(record)
                items = [item for item, _, _ in islice(state.newest(), len(state.folded))]
            except StateError:
                continue
            for item in items:
                if item in part or len(part) < MOST_ITEMS:
                    part[item] += 1
                    self._recent[item] += 1

    def growth(self) -> list[tuple[str, int]]:
        """Return (item, interactions in the last window less those in the one before), of those that grow, the most first."""
        self._move()
        made, ranked = self._ranked
        if self._now() - made >= KEPT:
            grown = ((item, count - self._before[item]) for item, count in self._recent.items())
            ranked = nlargest(
                MOST_RANKED,
                (one for one in grown if one[1] > 0),
                key=lambda one: (one[1], self._recent[one[0]], one[0]),
            )
            self._ranked = self._now(), ranked
        return ranked

    def _move(self) -> None:
        part = int(self.seconds * PARTS / self.window)
        for _ in range(min(part - self._part, 2 * PARTS)):
            self._late.append(Counter())
            if len(self._late) > PARTS:
                left = self._late.popleft()
                _subtract(self._recent, left)
                self._early.append(left)
                self._before.update(left)
            else:
                self._early.append(Counter())
            if len(self._early) > PARTS:
                _subtract(self._before, self._early.popleft())
        self._part = part


def _subtract(total: Counter[str], part: Counter[str]) -> None:
    for item, count in part.items():
        total[item] -= count
        if total[item] <= 0:
            del total[item]
