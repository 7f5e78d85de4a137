"""What rules do to a ranking: a bias per item before the best are chosen, then caps and pins. Pure.

A boost by a factor adds its natural logarithm to an item's score. Scores are logits (of the softmax over the catalogue, by
which the models are trained), so that multiplies the item's odds by the factor, whatever the score's sign.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Final, NamedTuple, Protocol

import numpy as np
from numpy.typing import NDArray

from stream.core.filters import Columns
from stream.core.rules import BLOCK, BOOST, CAP, EVERYBODY, KINDS, NO_RULES, ONLY, PIN, Active, RuleSet

Floats = NDArray[np.float32]
NEVER: Final = np.float32(-np.inf)
MOST_SELECTIONS: Final = 64
ANY: Final = 1 << 30
"""More items of a category than a slate has."""
ENOUGH: Final = 4
"""Times the slate's size: so many candidates are scored first if some may be left out by caps."""


class Ruled(Protocol):
    """A view of the catalogue with what rules ask of its items."""

    @property
    def bias(self) -> Floats: ...

    @property
    def columns(self) -> Columns: ...

    def row(self, item: str) -> int: ...


class Cap(NamedTuple):
    """At most `most` items of a category; of each one if it is None."""

    category: str | None
    most: int


@dataclass(frozen=True, eq=False)
class Selection:
    """What the rules that apply to a slate do to it.

    Attributes:
        bias: float32 [N]: the catalogue's, -inf for items that rules leave out, plus the logarithms of boosts.
        pins: (place from 0, row), by place; only of items that are not left out.
        caps: The caps.
        columns: The categories of the items.
    """

    bias: Floats
    pins: tuple[tuple[int, int], ...]
    caps: tuple[Cap, ...]
    columns: Columns

    @property
    def arranges(self) -> bool:
        """Whether `arrange` may change more than the length."""
        return bool(self.caps or self.pins)

    def candidates(self, k: int) -> int:
        """Return how many of the best items are needed for a slate of k, at first."""
        return k + len(self.pins) if not self.caps else ENOUGH * (k + len(self.pins))

    def arrange(
        self, ranked: Sequence[tuple[int, float]], k: int, hidden: Collection[int] = ()
    ) -> list[tuple[int, float]]:
        """Return at most k of the ranked (row, score), within the caps and with the pins at their places.

        A pinned item has the score of the next item that is not pinned, at the end that of the last one before, so that
        scores stay in order. Pinned items count for the caps and
        are never left out by them.

        Args:
            ranked: Best first.
            k: The slate's size.
            hidden: Rows that must not be pinned.
        """
        pins = [(place, row) for place, row in self.pins if place < k and row not in hidden]
        pinned = {row for _, row in pins}
        counts: dict[str, int] = {}
        for row in pinned:
            self._count(row, counts)
        slate: list[tuple[int, float]] = []
        for row, score in ranked:
            if len(slate) == k:
                break
            if row not in pinned and self._fits(row, counts):
                self._count(row, counts)
                slate.append((row, score))
        if not pins:
            return slate
        for place, row in pins:
            slate.insert(min(place, len(slate)), (row, 0.0))
        del slate[k:]
        score = next((score for row, score in reversed(slate) if row not in pinned), 0.0)
        for place in range(len(slate) - 1, -1, -1):
            row = slate[place][0]
            score = score if row in pinned else slate[place][1]
            slate[place] = row, score
        return slate

    def pinned(self, k: int) -> list[int]:
        """Return the rows that are pinned in a slate of k, except for users from whom they are hidden."""
        return [row for place, row in self.pins if place < k]

    def limits(self, number: Callable[[str], int], size: int) -> NDArray[np.int64]:
        """Return int64 [size]: how many items of each category a slate may show. 0 stands for no category.

        Args:
            number: Returns the number of a category; 0: no item has it.
            size: One more than the largest number.
        """
        limits = np.full(size, ANY, np.int64)
        for cap in self.caps:
            if cap.category is None:
                np.minimum(limits, cap.most, out=limits)
            elif (own := number(cap.category)) < size:
                limits[own] = min(limits[own], cap.most)
        limits[0] = ANY
        return limits

    def _categories(self, row: int) -> tuple[str, ...]:
        facts = self.columns.facts(row)
        return () if facts is None else facts.categories

    def _fits(self, row: int, counts: Mapping[str, int]) -> bool:
        if not self.caps:
            return True
        return all(
            counts.get(category, 0) < cap.most
            for category in self._categories(row)
            for cap in self.caps
            if cap.category is None or cap.category == category
        )

    def _count(self, row: int, counts: dict[str, int]) -> None:
        if self.caps:
            for category in set(self._categories(row)):
                counts[category] = counts.get(category, 0) + 1


def select(catalogue: Ruled, rules: Sequence[Active]) -> Selection:
    """Return what rules do to a slate of this catalogue."""
    columns = catalogue.columns
    allowed = np.ones(len(catalogue.bias), np.bool_)
    boost = np.zeros(len(catalogue.bias), np.float64)
    for rule in rules:
        if rule.filtered is None:
            continue
        mask = columns.mask(rule.filtered)
        if rule.kind == BLOCK:
            allowed &= ~mask
        elif rule.kind == ONLY:
            allowed &= mask
        elif rule.kind == BOOST:
            boost += np.where(mask, math.log(rule.factor), 0.0)
    bias = np.where(allowed, catalogue.bias + boost.astype(np.float32), NEVER)
    pins = {rule.place: catalogue.row(rule.item) for rule in rules if rule.kind == PIN}
    return Selection(
        bias=bias,
        pins=tuple((place, row) for place, row in sorted(pins.items()) if row and bias[row] > NEVER),
        caps=tuple(Cap(rule.category, rule.most) for rule in rules if rule.kind == CAP),
        columns=columns,
    )


class Selections:
    """Selections of one set of rules, kept for as long as the catalogue is the same. One thread at a time may use it."""

    def __init__(self) -> None:
        self._rules = NO_RULES
        self._found: dict[tuple[int, tuple[int, ...]], tuple[Ruled, Selection]] = {}

    def of(self, rules: RuleSet, indices: tuple[int, ...], catalogue: Ruled) -> Selection | None:
        """Return what these of the rules do to a slate of this catalogue; None if there are none."""
        if not indices:
            return None
        if rules is not self._rules:
            self._rules, self._found = rules, {}
        key = id(catalogue), indices
        kept = self._found.get(key)
        if kept is None:
            if len(self._found) >= MOST_SELECTIONS:
                self._found.clear()
            kept = self._found[key] = catalogue, select(catalogue, [rules.rules[index] for index in indices])
        return kept[1]


class _Holding(NamedTuple):
    """The rules of the moment and scene.

    Attributes:
        indices: Theirs among all rules.
        particular: Whether one of them does not apply to everybody.
    """

    indices: tuple[int, ...]
    particular: bool


@dataclass(frozen=True)
class Ruling:
    """The rules for slates of one moment and scene.

    Attributes:
        rules: The rules in force.
        scene: The scene of the slates; None for none.
        now_ms: Epoch ms.
        selections: What was computed before.
        kinds: Kinds of rules that are applied.
    """

    rules: RuleSet
    scene: str | None
    now_ms: int
    selections: Selections
    kinds: tuple[str, ...] = KINDS

    def of(self, user: bytes, seq: int, catalogue: Ruled) -> Selection | None:
        """Return what the rules do to a user's slate; None: nothing. `user` is the key; b"": nobody's."""
        holding = self._holding
        if not holding.particular:
            return self.selections.of(self.rules, holding.indices, catalogue)
        rules = self.rules.rules
        indices = tuple(index for index in holding.indices if rules[index].audience.has(user, seq))
        return self.selections.of(self.rules, indices, catalogue)

    @cached_property
    def _holding(self) -> _Holding:
        rules = self.rules.rules
        indices = self.rules.holding(self.scene, self.now_ms, self.kinds)
        return _Holding(indices, any(rules[index].audience != EVERYBODY for index in indices))
