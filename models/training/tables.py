"""Tables that live: neighbours and popularity as they were at any moment of a stream, for judging what learning them is worth.

A frozen table is counted once, from the training part. A streamed one holds, for an event at time t, every choice of every
user whose time is *before* t: choices at the same millisecond are not seen, nor is the event itself, whoever made them.
With epochs of N events, a table holds the first N * floor(n / N) events, where n is the number of events before t. Events
at one time are then in the order of their users.

Sums, pairs and decay are those of the tally (stream.tally), to the unit: of each user, the newest HISTORY choices pair. They
are read as

    weight(a, b) = (ahead[a, b] + back ahead[b, a]) / (sqrt(count_a count_b) + shrink g(now))
    popularity(a) = log(1 + count_a / g(now)), centred as in models.network.blend.log_popularity

where now is the time of the newest event in the table. The landmark is the newest event of the training part. So nothing
depends on later events, which tests prove by changing them.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Final, cast

import numpy as np

from models.data.histories import Doubles, Floats, Histories, Rows
from models.interfaces import TrainingData
from models.network.blend import Neighbours, log_popularity
from models.training.neighbours import DAY, NeighbourSettings
from models.training.regimes import STREAMED, every
from stream.core.errors import DataError
from stream.core.tables import HISTORY, fresh_weight
from stream.core.tally import SHARE_BITS, WEIGHT_BITS, ForwardDecay, PairShape, whole_weight

HALF_LIVES: Final = (3650, 1095, 365, 90)
"""Half-lives in days that are tried, besides none."""
MOST_SPAN: Final = 6
CAP: Final = PairShape.cap
_EXACT: Final = 2.0**53  # up to here doubles hold every integer
_KEPT: Final = 1 << 23  # numbers in the counts that are kept ready, 64 MiB


def require_times(name: str, rows: Histories) -> Rows:
    """Return the times i64 [E]. Raises DataError if there are none."""
    if rows.time is None:
        raise DataError(
            f"{name}: tables that follow the stream need times; the data gives only an order within each user"
        )
    return rows.time


def landmark(training: TrainingData) -> int:
    """Return the time of the newest event that is learned from, in epoch ms; 0 without times."""
    rows = training.rows
    return 0 if rows.time is None or not training.use.any() else int(rows.time[training.use].max())


def half_lives(training: TrainingData) -> tuple[int, ...]:
    """Return those of HALF_LIVES that int64 can count with, in days.

    The validation part may be at most MOST_SPAN half-lives long. This leaves room for a test part of twice its length.
    """
    rows = training.rows
    span = 0 if rows.time is None or not len(rows.time) else int(rows.time.max()) - landmark(training)
    return tuple(days for days in HALF_LIVES if span <= MOST_SPAN * days * DAY)


@dataclass(frozen=True)
class Arrivals:
    """The events of `rows` in the order of their times.

    Attributes:
        times: i64 [E], ascending.
        rank: i64 [E], the place of each event of `rows` in that order.
        every: A table is renewed after this many events.
    """

    times: Rows
    rank: Rows
    every: int

    def seen(self, times: Rows) -> Rows:
        """Return i64 [Q]: how many events, from the first on, the tables hold for an event at each of `times`."""
        return np.searchsorted(self.times, times, side="left") // self.every * self.every

    def now(self, seen: int) -> int:
        """Return the time of the newest of the first `seen` events. The first event's if there is none."""
        return int(self.times[max(seen - 1, 0)])


def arrivals(rows: Histories, tables: str) -> Arrivals:
    """Order the events. Raises DataError if there are no times."""
    time = require_times("tables", rows)
    order = np.argsort(time, kind="stable")
    rank = np.empty(len(order), np.int64)
    rank[order] = np.arange(len(order))
    return Arrivals(time[order], rank, every(tables))


class Counts:
    """How often each item was chosen among the first n events of a stream, for any n."""

    def __init__(self, rows: Histories, at: Arrivals, decay: ForwardDecay, size: int) -> None:
        chosen = np.flatnonzero(rows.choice)
        chosen = chosen[np.argsort(at.rank[chosen])]
        self._at, self._decay, self._size = at, decay, size
        self._rank, self._item = at.rank[chosen], rows.item[chosen]
        self._amount = item_amounts(rows, chosen, decay)
        require_exact(
            float(np.bincount(self._item, self._amount.astype(np.float64), minlength=size).max(initial=0.0)), decay
        )
        self._step = max(256, -(-len(chosen) * size // _KEPT))
        self._ready = np.zeros((len(chosen) // self._step + 1, size), np.int64)
        for number in range(1, len(self._ready)):
            self._ready[number] = self._ready[number - 1] + self._between(
                (number - 1) * self._step, number * self._step
            )

    def of(self, seen: int) -> Rows:
        """Return i64 [N + 1]: the sums of g(t) weight over the choices among the first `seen` events; 0 in row 0."""
        end = int(np.searchsorted(self._rank, seen))
        ready = end // self._step
        found: Rows = self._ready[ready] + self._between(ready * self._step, end)
        return found

    def decayed(self, seen: int) -> Doubles:
        """Return the same as f64: decayed counts at the time of the newest of these events."""
        return self.of(seen) / fresh_weight(self._decay, self._at.now(seen))

    def _between(self, begin: int, end: int) -> Rows:
        return np.bincount(self._item[begin:end], self._amount[begin:end], minlength=self._size).astype(np.int64)


@dataclass(frozen=True)
class Pairs:
    """Every addend to ahead[first, second]: all i64 of one length.

    Attributes:
        event: The position in the rows of the choice with which it is added: the later one of the pair.
        first: Item rows.
        second: Item rows.
        amount: What is added; below 0 what is taken back.
    """

    event: Rows
    first: Rows
    second: Rows
    amount: Rows


def item_amounts(rows: Histories, chosen: Rows, decay: ForwardDecay) -> Rows:
    """Return what the choices at positions `chosen` add to the counts of their items, i64."""
    fresh = _fresh(rows, chosen, decay)
    return fresh if rows.weight is None else fresh * _whole(rows.weight[chosen]) >> WEIGHT_BITS


def pairs_of(rows: Histories, shape: PairShape, decay: ForwardDecay, history: int = 0) -> Pairs:
    """Return what stream.core.tally.UserChoices adds for the choices in `rows`.

    With `history`, only each user's newest choices pair, that many, as in stream.tally.counting: what a choice has added is
    taken back when it is no longer among them.
    """
    chosen = np.flatnonzero(rows.choice)
    item, owner, fresh = rows.item[chosen], rows.owner()[chosen], _fresh(rows, chosen, decay)
    whole = None if rows.weight is None else _whole(rows.weight[chosen])
    found = []
    for distance, share in enumerate(shape.shares(), start=1):
        later = np.flatnonzero(owner[distance:] == owner[:-distance]) + distance
        earlier = later - distance
        amount = fresh[later] * share >> SHARE_BITS
        if whole is not None:
            amount = amount * np.floor(np.sqrt(whole[earlier] * whole[later])).astype(np.int64) >> WEIGHT_BITS
        use = (item[earlier] != item[later]) & (amount > 0)
        earlier, later = earlier[use], later[use]
        found.append(np.stack((later, np.full(len(later), distance), item[earlier], item[later], amount[use])))
    later, distance, first, second, amount = np.concatenate(found, 1)
    order = np.lexsort((distance, later))
    later, distance, first, second, amount = (one[order] for one in (later, distance, first, second, amount))
    if history:
        leaves = later - distance + history  # the user's choice with which the earlier one leaves
        gone = np.flatnonzero((leaves < len(owner)) & (owner[np.minimum(leaves, len(owner) - 1)] == owner[later]))
        later = np.concatenate((later, leaves[gone]))
        first, second = np.concatenate((first, first[gone])), np.concatenate((second, second[gone]))
        amount = np.concatenate((amount, -amount[gone]))
    amount = _capped(owner[later], first, second, later, amount, shape.cap)
    use = amount != 0
    return Pairs(chosen[later[use]], first[use], second[use], amount[use])


def _capped(owner: Rows, first: Rows, second: Rows, at: Rows, amount: Rows, cap: int) -> Rows:
    """Return the amounts of which a user adds at most `cap` times the greatest to a pair, in the order of `at`.

    An amount below 0 takes an earlier one back.
    """
    order = np.lexsort((amount < 0, at, second, first, owner))  # stable
    differs = (np.diff(owner[order]) != 0) | (np.diff(first[order]) != 0) | (np.diff(second[order]) != 0)
    begins = np.concatenate(([0], np.flatnonzero(differs) + 1, [len(order)]))
    added = np.concatenate(([0], np.cumsum(amount[order] > 0)))
    out = amount.copy()
    for group in np.flatnonzero(np.diff(added[begins]) > 1).tolist():
        live: list[int] = []
        total = greatest = before = 0
        for place in order[begins[group] : begins[group + 1]].tolist():
            one = int(amount[place])
            total += one
            if one > 0:
                live.append(one)
                greatest = max(greatest, one)
            else:
                live.remove(-one)
                greatest = max(live, default=0) if -one == greatest else greatest
            now = min(total, cap * greatest)
            out[place], before = now - before, now
    return out


def _fresh(rows: Histories, chosen: Rows, decay: ForwardDecay) -> Rows:
    times = np.zeros(len(chosen), np.int64) if rows.time is None else rows.time[chosen]
    try:
        return decay.weights(times)
    except OverflowError as error:
        raise DataError(f"half-life of {decay.half_life / DAY:g} days: {error}") from None


def _whole(weights: Doubles) -> Rows:
    values, inverse = np.unique(weights, return_inverse=True)
    return np.array([whole_weight(value) for value in values.tolist()], np.int64)[inverse]


def require_exact(total: float, decay: ForwardDecay) -> None:
    """Raise DataError if sums up to `total` are not exact in doubles."""
    if total >= _EXACT:
        raise DataError(
            f"half-life of {decay.half_life / DAY:g} days: sums up to {total:.3g} after the landmark, expected less than "
            f"{_EXACT:.3g}; take a longer one"
        )


@dataclass(frozen=True)
class TableSettings:
    """How tables are counted and read.

    Attributes:
        tables: When they are renewed: see `every`.
        near: How pairs are counted. `near.half_life` is that of pairs and of the counts they are divided by.
        prior: Half-life of popularity in days; 0 for none.
    """

    tables: str = STREAMED
    near: NeighbourSettings = field(default_factory=NeighbourSettings)
    prior: int = 0


@dataclass(frozen=True)
class LiveTables:
    """Tables that follow the events of whatever rows are scored.

    Attributes:
        settings: See TableSettings.
        landmark: Epoch ms of weight 1.
        size: N + 1.
    """

    settings: TableSettings
    landmark: int
    size: int

    def read_with(self, near: NeighbourSettings, prior: int | None = None) -> LiveTables:
        """Return the same tables, counted and read with other settings."""
        old = self.settings
        return replace(self, settings=replace(old, near=near, prior=old.prior if prior is None else prior))

    def of(self, rows: Histories) -> LiveView:
        """Prepare to read the tables before any event of `rows`. Raises DataError if there are no times."""
        return LiveView(self, rows)

    def decay(self, days: int) -> ForwardDecay:
        """Return the decay with that half-life, 0 for none."""
        return ForwardDecay(self.landmark, days * DAY)


class LiveView:
    """The tables as they were before each event of one set of rows."""

    def __init__(self, live: LiveTables, rows: Histories) -> None:
        self._live, self._rows = live, rows
        self._time = require_times("tables", rows)
        self._at = arrivals(rows, live.settings.tables)
        self._pairs: _PairIndex | None = None  # made when neighbours are first asked for

    def seen(self, positions: Rows) -> Rows:
        """Return i64 [Q]: how many events the tables hold before each position."""
        return self._at.seen(self._time[positions])

    @cached_property
    def _counts(self) -> Counts:
        live = self._live
        return Counts(self._rows, self._at, live.decay(live.settings.near.half_life), live.size)

    @cached_property
    def _popular(self) -> Counts:
        live = self._live
        if live.settings.prior == live.settings.near.half_life:
            return self._counts
        return Counts(self._rows, self._at, live.decay(live.settings.prior), live.size)

    def popular(self, positions: Rows) -> Doubles:
        """Return f64 [Q, N + 1]: the decayed counts before each position."""
        seen, which = np.unique(self.seen(positions), return_inverse=True)
        return np.stack([self._popular.decayed(int(one)) for one in seen])[which]

    def log_popularity(self, positions: Rows) -> Floats:
        """Return f32 [Q, N + 1]: log(1 + decayed count), centred, before each position."""
        seen, which = np.unique(self.seen(positions), return_inverse=True)
        return np.stack([log_popularity(self._popular.decayed(int(one)).astype(np.float32)) for one in seen])[which]

    def near(self, positions: Rows, recent: Rows) -> Neighbours:
        """Look up the neighbours of recent choices as they were before each position.

        Args:
            positions: i64 [Q].
            recent: i64 [R, 3] of (index in `positions`, item row, age).

        Returns:
            The neighbours of each recent choice, index i32 and weight f32 [R, keep], in no order.
        """
        if self._pairs is None:
            self._pairs = _PairIndex(self._rows, self._at, self._live)
        settings = self._live.settings.near
        decay = self._live.decay(settings.half_life)
        index = np.zeros((len(recent), settings.keep), np.int32)
        weight = np.zeros((len(recent), settings.keep), np.float32)
        seen = self.seen(positions)[recent[:, 0]]
        order = np.lexsort((recent[:, 1], seen))
        before, known, last = -1, -1, -1
        root, shrink = np.zeros(0), 0.0
        for line in order.tolist():
            now, row = int(seen[line]), int(recent[line, 1])
            if now != before:
                root = np.sqrt(self._counts.of(now).astype(np.float64))
                shrink = settings.shrink * fresh_weight(decay, self._at.now(now))
                before, known = now, -1
            if row == known:
                index[line], weight[line] = index[last], weight[last]
                continue
            others, sums = self._pairs.row(row, now, settings.back)
            found = (sums / (root[row] * root[others] + shrink)).astype(np.float32)
            if len(found) > settings.keep:
                kept = heaviest(found, settings.keep)
                others, found = others[kept], found[kept]
            index[line, : len(others)], weight[line, : len(others)] = others, found
            known, last = row, line
        return Neighbours(cast(Rows, index), weight, by_choice=True)  # i32 takes half the memory


class _PairIndex:
    """The addends of every item row in the order in which they came, both directions."""

    def __init__(self, rows: Histories, at: Arrivals, live: LiveTables) -> None:
        near = live.settings.near
        decay = live.decay(near.half_life)
        pairs = pairs_of(rows, PairShape(near.reach, near.decay, CAP), decay, HISTORY)
        size = live.size
        row = np.concatenate((pairs.first, pairs.second))
        other = np.concatenate((pairs.second, pairs.first))
        rank = np.concatenate((at.rank[pairs.event],) * 2)
        order = np.lexsort((rank, row))
        keys, inverse = np.unique(row * size + other, return_inverse=True)
        key_row = keys // size
        self._other = keys % size
        self._others = np.searchsorted(key_row, np.arange(size + 1))
        self._begin = np.searchsorted(row[order], np.arange(size + 1))
        self._rank = rank[order]
        amount = np.concatenate((pairs.amount,) * 2)
        most = np.bincount(row, np.maximum(amount, 0).astype(np.float64), minlength=size).max(initial=0.0)
        require_exact(float(most), decay)
        self._amount = amount[order].astype(np.float64)
        local = inverse - self._others[row]  # place among the row's others
        local += np.where(np.arange(len(row)) < len(pairs.first), 0, np.diff(self._others)[row])  # backward ones after
        self._local = local[order]

    def row(self, row: int, seen: int, back: float) -> tuple[Rows, Doubles]:
        """Return the other items, ascending, and ahead + back behind of each; 0 where nothing has come yet."""
        begin, end = self._begin[row], self._begin[row + 1]
        end = begin + int(self._rank[begin:end].searchsorted(seen))
        others = self._other[self._others[row] : self._others[row + 1]]
        count = len(others)
        if begin == end:
            return others[:0], np.zeros(0)
        sums = np.bincount(self._local[begin:end], self._amount[begin:end], minlength=2 * count)
        return others, sums[:count] + back * sums[count:]


def heaviest(weight: Floats, keep: int) -> Rows:
    """Return the places of the `keep` greatest of more than `keep` weights; of equal ones the first."""
    ordered = weight.copy()
    ordered.partition(len(weight) - keep)
    least = ordered[len(weight) - keep]
    kept: Rows = (weight >= least).nonzero()[0]
    if len(kept) == keep:
        return kept
    above, equal = (weight > least).nonzero()[0], (weight == least).nonzero()[0]
    return np.concatenate((above, equal[: keep - len(above)]))


def live_tables(training: TrainingData, settings: TableSettings) -> LiveTables:
    """Return tables with the landmark of the training part. Raises DataError if it has no times."""
    require_times("tables", training.rows)
    return LiveTables(settings, landmark(training), len(training.items) + 1)
