"""Counts which items follow which, and how often each is chosen, while choices arrive: exact sums in any order. Pure.

A choice at time t weighs g(t) = 2^((t - landmark) / half-life), and keeps this weight for ever (forward decay: G. Cormode,
V. Shkapenyuk, D. Srivastava and B. Xu, ICDE 2009). Only ratios are read: a sum divided by g(now) is the decayed count.
Therefore nothing is rescaled while time passes, and a choice that arrives late weighs what it would have weighed in time.

For every choice s_j of a user and every i with j - reach <= i < j:
    ahead[s_i, s_j] += g(t_j) w decay^(j - i - 1)          count[s_j] += g(t_j) weight_j          w = sqrt(weight_i weight_j)
    weight(a, b) = (ahead[a, b] + back ahead[b, a]) / (sqrt(count_a count_b) + shrink g(now))
as in models/training/neighbours.py. j is the order in which the user's choices arrive. Of one user, a pair counts at most
`cap` times the greatest single addend.

All sums are of integers, in units of 2^-BITS of a choice at the landmark. They do not depend on the order of users or
partitions, they are the same on every machine, and a user's choices can be subtracted exactly: `UserChoices` gives the
same changes when it reads them again.

Limits: a choice more than BITS half-lives before the landmark weighs 0. Python's integers have no upper limit. An int64
holds a sum of n choices of weight 1 until 63 - BITS - log2(n) half-lives after the landmark (23 for a million choices).
`Tally.moved` moves the landmark by whole half-lives. It rounds down each sum, so everybody who is to have the same sums
must move at the same place in the stream.
"""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Hashable, Iterable
from dataclasses import dataclass, field
from decimal import Context, Decimal
from functools import cache
from typing import Final, NamedTuple

import numpy as np
from numpy.typing import NDArray

BITS: Final = 20
"""A choice at the landmark weighs 2^BITS."""
STEPS: Final = 1024
"""Parts of a half-life that g tells apart: an error of at most 0.07 %."""
SHARE_BITS: Final = 12
WEIGHT_BITS: Final = 10
MOST_AHEAD: Final = 63 - BITS - 1 - SHARE_BITS
"""Half-lives after the landmark from which on products of int64 overflow."""

Times = NDArray[np.int64]
Amounts = NDArray[np.int64]


@cache
def _steps() -> tuple[int, ...]:
    """Return 2^(k / STEPS) for k from 0 to STEPS - 1, in units of 2^-BITS. Decimal gives the same on every machine."""
    context = Context(prec=30)
    return tuple(
        int(context.power(Decimal(2), context.divide(Decimal(k), Decimal(STEPS))) * 2**BITS) for k in range(STEPS)
    )


@dataclass(frozen=True)
class ForwardDecay:
    """The weight of a choice by its time.

    Attributes:
        landmark: Epoch ms of weight 1.
        half_life: In ms. 0: every choice weighs 1.
    """

    landmark: int = 0
    half_life: int = 0

    def weight(self, time: int) -> int:
        """Return g(time) in units of 2^-BITS, rounded down. `time` is in epoch ms."""
        if not self.half_life:
            return 1 << BITS
        whole, rest = divmod(time - self.landmark, self.half_life)
        step = _steps()[rest * STEPS // self.half_life]
        return step << whole if whole >= 0 else step >> -whole

    def weights(self, times: Times) -> Amounts:
        """Return `weight` of each time, i64. Raises OverflowError MOST_AHEAD half-lives after the landmark or later."""
        if not self.half_life:
            return np.full(len(times), 1 << BITS, np.int64)
        whole, rest = np.divmod(times - self.landmark, self.half_life)
        if len(whole) and whole.max() >= MOST_AHEAD:
            raise OverflowError(
                f"a time {int(whole.max())} half-lives after the landmark; expected at most {MOST_AHEAD - 1}"
            )
        step = np.array(_steps(), np.int64)[rest * STEPS // self.half_life]
        moved: Amounts = np.where(whole >= 0, step << np.maximum(whole, 0), step >> np.clip(-whole, 0, 63))
        return moved


@dataclass(frozen=True)
class PairShape:
    """Which pairs count, and how much.

    Attributes:
        reach: How many of the user's choices before a choice pair with it.
        decay: Factor per choice of distance.
        cap: The most that one user counts in a pair, in times of the greatest single addend.
    """

    reach: int = 10
    decay: float = 0.8
    cap: int = 3

    def shares(self) -> list[int]:
        """Return decay^(distance - 1) of the distances 1 to reach, in units of 2^-SHARE_BITS."""
        return [round(self.decay**step * (1 << SHARE_BITS)) for step in range(self.reach)]


def whole_weight(weight: float) -> int:
    """Return the weight of an action, above 0, in units of 2^-WEIGHT_BITS; at least 1."""
    return max(1, round(weight * (1 << WEIGHT_BITS)))


class PairChange(NamedTuple):
    """What is added to ahead[first, second]."""

    first: Hashable
    second: Hashable
    amount: int


class Changes(NamedTuple):
    """What one choice adds: `amount` to the count of `item`, and to pairs. Amounts are 0 or above."""

    item: Hashable
    amount: int
    pairs: tuple[PairChange, ...]


class UserChoices:
    """The choices of one user in the order in which they arrive, and what they add."""

    def __init__(self, shape: PairShape, decay: ForwardDecay) -> None:
        self._shares, self._cap, self._decay = shape.shares(), shape.cap, decay
        self._recent: deque[tuple[Hashable, int]] = deque(maxlen=shape.reach)  # newest first
        self._added: dict[tuple[Hashable, Hashable], tuple[int, int]] = {}  # sum without the cap, greatest addend

    def choose(self, item: Hashable, time: int, weight: float = 1.0) -> Changes:
        """Add a choice at `time` (epoch ms), with the weight of its action, and return what it changes."""
        own, fresh = whole_weight(weight), self._decay.weight(time)
        changes: dict[Hashable, int] = {}
        for (first, other), share in zip(self._recent, self._shares, strict=False):
            amount = (fresh * share >> SHARE_BITS) * math.isqrt(other * own) >> WEIGHT_BITS
            if first != item and amount:
                changes[first] = changes.get(first, 0) + self._capped((first, item), amount)
        self._recent.appendleft((item, own))
        pairs = tuple(PairChange(first, item, amount) for first, amount in changes.items() if amount)
        return Changes(item, fresh * own >> WEIGHT_BITS, pairs)

    def _capped(self, pair: tuple[Hashable, Hashable], amount: int) -> int:
        """Return by how much the user's part in a pair rises."""
        total, greatest = self._added.get(pair, (0, 0))
        self._added[pair] = now = (total + amount, max(greatest, amount))
        return min(now[0], self._cap * now[1]) - min(total, self._cap * greatest)


@dataclass
class Tally:
    """Sums over all users. Pairs and items whose sum is 0 are absent.

    Attributes:
        count: Item -> sum of g(t) weight.
        ahead: First item -> second item -> sum.
        behind: The same sums by second item, then first.
    """

    count: dict[Hashable, int] = field(default_factory=dict)
    ahead: dict[Hashable, dict[Hashable, int]] = field(default_factory=dict)
    behind: dict[Hashable, dict[Hashable, int]] = field(default_factory=dict)

    def add(self, changes: Changes, times: int = 1) -> None:
        """Add what a choice changes; with `times` = -1 subtract it."""
        _add(self.count, changes.item, times * changes.amount)
        for first, second, amount in changes.pairs:
            self._add_pair(first, second, times * amount)

    def merge(self, other: Tally) -> None:
        """Add the sums of another part of the stream."""
        for item, amount in other.count.items():
            _add(self.count, item, amount)
        for first, seconds in other.ahead.items():
            for second, amount in seconds.items():
                self._add_pair(first, second, amount)

    def moved(self, half_lives: int) -> Tally:
        """Return the tally with a landmark that many half-lives later: each sum over 2^half_lives, rounded down."""
        out = Tally()
        for item, amount in self.count.items():
            _add(out.count, item, amount >> half_lives)
        for first, seconds in self.ahead.items():
            for second, amount in seconds.items():
                out._add_pair(first, second, amount >> half_lives)
        return out

    def near(self, item: Hashable, back: float, shrink: float, fresh: int) -> dict[Hashable, float]:
        """Return weight(item, b) of every b that shares a pair with it. `fresh` is g(now)."""
        ahead, behind = self.ahead.get(item, {}), self.behind.get(item, {})
        root = math.sqrt(self.count.get(item, 0))
        return {
            other: (ahead.get(other, 0) + back * behind.get(other, 0))
            / (root * math.sqrt(self.count.get(other, 0)) + shrink * fresh)
            for other in dict.fromkeys((*ahead, *behind))
        }

    def _add_pair(self, first: Hashable, second: Hashable, amount: int) -> None:
        for table, of, to in ((self.ahead, first, second), (self.behind, second, first)):
            row = table.setdefault(of, {})
            _add(row, to, amount)
            if not row:
                del table[of]


def tally_of(users: Iterable[Iterable[tuple[Hashable, int, float]]], shape: PairShape, decay: ForwardDecay) -> Tally:
    """Return the tally of whole histories. Each user's choices are (item, epoch ms, weight) as they arrived."""
    tally = Tally()
    for choices in users:
        user = UserChoices(shape, decay)
        for item, time, weight in choices:
            tally.add(user.choose(item, time, weight))
    return tally


def _add(sums: dict[Hashable, int], key: Hashable, amount: int) -> None:
    if total := sums.get(key, 0) + amount:
        sums[key] = total
    else:
        sums.pop(key, None)
