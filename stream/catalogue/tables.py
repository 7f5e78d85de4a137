"""Epochs of the topic `tables` as arrays: rows as they are read, and what score.onnx reads of an epoch. Pure: no Kafka.

`EpochRows` has one writer thread. An epoch that it closes is an `EpochTables`, which never changes: the catalogue makes
`ScoreTables` over its own rows of it (stream.catalogue.catalogue). The formulas are those of stream.core.tables.weights, which
is the reference: it works on rows one by one, this on arrays.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Final, NamedTuple

import numpy as np
from numpy.typing import NDArray

from stream.core.errors import INCOMPLETE, NOT_NEWER, RecordError
from stream.core.score_tables import ScoreTables
from stream.core.tables import (
    BACK_BITS,
    CLOSED_KEY,
    EpochClosed,
    TableRow,
    centred,
    decode_closed,
    decode_row,
    fresh_weight,
    item_of,
)

GROWTH: Final = 1.5
DAY: Final = 86_400_000
MOST: Final = float(np.finfo(np.float32).max)

Floats = NDArray[np.float32]
Numbers = NDArray[np.int32]


class RefusedTable(NamedTuple):
    """A record of the topic `tables` that is not acceptable, or an epoch that is not used.

    Attributes:
        offset: Its offset.
        reason: One of stream.core.errors.REASONS or TABLE_REASONS.
        field: The field; "" for none.
        message: Why, in words.
    """

    offset: int
    reason: str
    field: str
    message: str


@dataclass(frozen=True, eq=False)
class EpochTables:
    """One closed epoch. Items have numbers from 1 on, which stay while a process runs; 0 is none.

    Attributes:
        closed: Its closing record.
        offset: The closing record's offset.
        names: Item of each number below `len(live)`; it may have gone on growing. names[0] is "".
        near: int32 [n, K], numbers of the neighbours.
        weight: float32 [n, K], their weights.
        count: float64 [n], decayed numbers of choices, for popularity.
        usual: float64 [n], the same with the half-life of neighbours.
        live: bool [n], whether the item has a row.
    """

    closed: EpochClosed
    offset: int
    names: Sequence[str] = field(repr=False)
    near: Numbers = field(repr=False)
    weight: Floats = field(repr=False)
    count: NDArray[np.float64] = field(repr=False)
    usual: NDArray[np.float64] = field(repr=False)
    live: NDArray[np.bool_] = field(repr=False)

    def over(self, row_of: Callable[[str], int], size: int) -> ScoreTables:
        """Return the epoch over M rows of a catalogue. Items that the catalogue does not know are left out.

        Args:
            row_of: Item -> row of the catalogue; 0 if it is unknown there.
            size: M.
        """
        rows = np.zeros(len(self.live), np.int32)
        rows[1:] = np.fromiter(map(row_of, self.names[1 : len(rows)]), np.int32, len(rows) - 1)
        rows[~self.live | (rows >= size)] = 0
        known = np.flatnonzero(rows)
        near = np.zeros((size, self.near.shape[1]), np.int32)
        weight = np.zeros(near.shape, np.float32)
        count = np.zeros(size)
        at = rows[known]
        near[at] = rows[self.near[known]]
        weight[at] = self.weight[known]
        weight[near == 0] = 0
        count[at] = self.count[known]
        trend: Floats | None = None
        seconds, closed = 0.0, self.closed
        if 0 < closed.prior_half_life < closed.near_half_life:
            usual = np.zeros(size)
            usual[at] = self.usual[known]
            trend, seconds = rising(count, usual, closed), closed.prior_half_life / 1000
            trend.flags.writeable = False
        tables = ScoreTables(closed.epoch, near, weight, centred(count), count.astype(np.float32), trend, seconds)
        for array in (tables.near, tables.weight, tables.popularity, tables.counts):
            if array is not None:
                array.flags.writeable = False
        return tables


def rising(count: NDArray[np.float64], usual: NDArray[np.float64], closed: EpochClosed) -> Floats:
    """Return by how many choices a day each item is chosen more often lately than usually, float32; 0 if it is not.

    An item that is chosen r times a day has the decayed count r H / ln 2, where H is the half-life in days. So this compares
    the mean over popularity's half-life with that over the neighbours'.
    """
    lately, ever = (math.log(2) * DAY / half_life for half_life in (closed.prior_half_life, closed.near_half_life))
    found: Floats = np.maximum(0.0, count * lately - usual * ever).astype(np.float32)
    return found


class EpochRows:
    """The rows of the topic `tables` as far as they are read. It must have only one writer thread.

    Attributes:
        current: The newest epoch that was closed and is used; None before the first.
        offset: Last applied offset; -1 for none.
        whole: Whether the last record applied closed an epoch, or there was none.
    """

    def __init__(self) -> None:
        self.current: EpochTables | None = None
        self.offset = -1
        self.whole = True
        self._closed: tuple[int, EpochClosed] | None = None  # the last closing record, and its offset
        self._wrong: set[bytes] = set()  # keys whose last record is not acceptable
        self._numbers: dict[str, int] = {}
        self._names = [""]
        self._near = np.zeros((1, 0), np.int32)
        self._sums = np.zeros((1, 0))
        self._roots = np.zeros(1)
        self._popular = np.zeros(1)
        self._live = np.zeros(1, np.bool_)

    def apply(
        self, records: Sequence[tuple[int, bytes | None, bytes | None]], *, close: bool = True
    ) -> list[RefusedTable]:
        """Apply records (offset, key, value) in the order of the topic. Return what is refused.

        Of several epochs that end among them the last one becomes `current`. With `close` = False none does: `end` is called
        later.
        """
        refused: list[RefusedTable] = []
        ends = [at for at, (_, key, _) in enumerate(records) if key == CLOSED_KEY]
        for at, (offset, key, value) in enumerate(records):
            self.offset = offset
            try:
                self._take(offset, key, value)
            except RecordError as error:
                refused.append(RefusedTable(offset, error.reason, error.field, str(error)))
                if _is_known(key):  # a record under any other key says nothing of an epoch
                    self._wrong.add(key or b"")
            else:
                if self.whole and close and at == ends[-1]:
                    refused += self.end()
        return refused

    def end(self) -> list[RefusedTable]:
        """Make the epoch that was closed last `current`. Return why it is not used, if it is not."""
        if self._closed is None:
            return []
        offset, closed = self._closed
        rows = int(self._live.sum())
        if self.current is not None and closed.epoch <= self.current.closed.epoch:
            if offset == self.current.offset:
                return []
            message = f"epoch {closed.epoch} follows epoch {self.current.closed.epoch}, expected a greater number"
            return [RefusedTable(offset, NOT_NEWER, "epoch", message)]
        if not self.whole or self._wrong or rows != closed.rows:
            message = (
                f"epoch {closed.epoch} is not used: {rows} rows, expected {closed.rows}; "
                f"{len(self._wrong)} records are not acceptable"
            )
            return [RefusedTable(offset, INCOMPLETE, "rows", message)]
        frozen = self._frozen(offset, closed)
        if not (np.isfinite(frozen.weight).all() and frozen.count.max() <= MOST):
            message = f"epoch {closed.epoch} is not used: a weight or a count of it is above what a float32 holds"
            return [RefusedTable(offset, "out_of_range", "near", message)]
        self.current = frozen
        return []

    def _take(self, offset: int, key: bytes | None, value: bytes | None) -> None:
        self.whole = False
        item = item_of(key)
        if item is None:
            self._closed = offset, decode_closed(value)
            self.whole = True
        elif value is None:
            number = self._numbers.get(item, 0)
            if number:
                self._live[number] = False
        else:
            self._put(decode_row(key, value))
        self._wrong.discard(key or b"")

    def _put(self, row: TableRow) -> None:
        try:
            sums = np.array([total for _, total in row.near], np.float64)
            root, popular = float(np.sqrt(float(row.count))), float(row.popular)
        except OverflowError:
            raise RecordError("validate", "out_of_range", "near", "a sum is above what a float64 holds") from None
        number = self._number(row.item)
        known = self._numbers.get
        numbers = [known(other) or self._number(other) for other, _ in row.near]
        self._make_room(len(numbers))
        self._near[number], self._sums[number] = 0, 0.0
        self._near[number, : len(numbers)], self._sums[number, : len(numbers)] = numbers, sums
        self._roots[number], self._popular[number], self._live[number] = root, popular, True

    def _number(self, item: str) -> int:
        number = self._numbers.get(item)
        if number is None:
            number = self._numbers[item] = len(self._names)
            self._names.append(item)
        return number

    def _make_room(self, width: int) -> None:
        """Grow the arrays to the items that have numbers, and to `width` neighbours."""
        size, (have, wide) = len(self._names), self._near.shape
        if size <= have and width <= wide:
            return
        more = (0, int(size * GROWTH) + 64 - have) if size > have else (0, 0)
        beside = (0, max(0, width - wide))
        self._near, self._sums = np.pad(self._near, (more, beside)), np.pad(self._sums, (more, beside))
        self._roots, self._popular = np.pad(self._roots, more), np.pad(self._popular, more)
        self._live = np.pad(self._live, more)

    def _frozen(self, offset: int, closed: EpochClosed) -> EpochTables:
        size = len(self._names)
        near = self._near[:size, : closed.keep].copy()
        below = self._roots[near]
        below *= self._roots[:size, None]
        below += closed.shrunk
        above = self._sums[:size, : closed.keep] / (1 << BACK_BITS)
        with np.errstate(over="ignore"):
            weight = np.divide(above, below, out=np.zeros(near.shape), where=below > 0).astype(np.float32)
        count = self._popular[:size] / fresh_weight(closed.prior_decay, closed.now)
        usual = self._roots[:size] ** 2 / fresh_weight(closed.near_decay, closed.now)
        return EpochTables(closed, offset, self._names, near, weight, count, usual, self._live[:size].copy())


def _is_known(key: bytes | None) -> bool:
    try:
        item_of(key)
    except RecordError:
        return False
    return True
