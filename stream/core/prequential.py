"""What slates gain when they are judged by what their users do next (stream.pipeline.prequential). Pure.

With place p in the slate, counted from 0, a choice gives a hit, a gain of 1 / log2(p + 2) (NDCG with one relevant item) and
a reciprocal rank of 1 / (p + 1). All are 0 if the item is not there.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Final, NamedTuple

FRESHET: Final = "freshet"
POPULARITY: Final = "popularity"
JUDGED: Final = (FRESHET, POPULARITY)
"""What is judged: the slates, and the most popular items in their place."""
KNOWN: Final = "known"
NEW: Final = "new"
AGAIN: Final = "again"
KINDS: Final = (KNOWN, NEW, AGAIN)
"""Items of choices: known to training, new since, or among the user's remembered events already."""


class Place(NamedTuple):
    """What a choice adds, by what was judged, its behaviour and its kind of item."""

    judged: str
    behaviour: int
    kind: str


@dataclass
class Gains:
    """What the choices of some micro-batches add up to.

    Attributes:
        choices: (behaviour, kind) -> choices.
        hits: Those whose item was in the slate.
        gain: Sums of 1 / log2(place + 2).
        reciprocal: Sums of 1 / (place + 1).
    """

    choices: dict[tuple[int, str], int] = field(default_factory=dict)
    hits: dict[Place, int] = field(default_factory=dict)
    gain: dict[Place, float] = field(default_factory=dict)
    reciprocal: dict[Place, float] = field(default_factory=dict)

    def add(self, behaviour: int, kind: str, places: Iterable[tuple[str, int | None]]) -> None:
        """Add a choice: for each of JUDGED its place in the slate, None if it is not there."""
        self.choices[behaviour, kind] = self.choices.get((behaviour, kind), 0) + 1
        for judged, place in places:
            if place is not None:
                at = Place(judged, behaviour, kind)
                self.hits[at] = self.hits.get(at, 0) + 1
                self.gain[at] = self.gain.get(at, 0.0) + 1 / math.log2(place + 2)
                self.reciprocal[at] = self.reciprocal.get(at, 0.0) + 1 / (place + 1)
