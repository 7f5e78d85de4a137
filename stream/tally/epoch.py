"""From sums to the rows and the closing record of an epoch. Pure."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import NamedTuple

from msgspec.structs import replace

from stream.core.tables import EpochClosed, TableRow, hash_of_lines, line_of, nearest, pair_sum, whole_back
from stream.tally.counting import Sums, TableShape


@dataclass(frozen=True)
class TableSettings:
    """What an epoch depends on besides the events.

    Attributes:
        shape: How it is counted.
        back: Weight of the backward direction, a multiple of 2^-10.
        shrink: Added to the denominator of a weight, in choices.
        keep: Most neighbours of a row.
        bundle: Id of the bundle whose settings are used.
    """

    shape: TableShape
    back: float
    shrink: float
    keep: int
    bundle: str


class Epoch(NamedTuple):
    """An epoch.

    Attributes:
        rows: Item -> row, in the order of the ids. `epoch` is that of the closing record.
        lines: Item -> what the hash reads of the row.
        closed: The closing record.
    """

    rows: dict[str, TableRow]
    lines: dict[str, bytes]
    closed: EpochClosed


def close(sums: Sums, settings: TableSettings, offsets: Mapping[str, int], number: int, created: int) -> Epoch:
    """Return the epoch of the sums as they are.

    Args:
        sums: The sums.
        settings: The settings.
        offsets: "topic/partition" -> first source offset that is not in the sums.
        number: Of the epoch.
        created: Epoch ms.
    """
    shape = settings.shape
    closed = EpochClosed(
        epoch=number,
        landmark=shape.near.landmark,
        now=sums.now,
        near_half_life=shape.near.half_life,
        prior_half_life=shape.prior.half_life,
        back=settings.back,
        shrink=settings.shrink,
        keep=settings.keep,
        reach=shape.pairs.reach,
        decay=shape.pairs.decay,
        cap=shape.pairs.cap,
        offsets=dict(sorted(offsets.items())),
        rows=len(sums.items),
        hash="",
        bundle=settings.bundle,
        created=created,
    )
    rows = {row.item: row for row in _rows(sums, closed)}
    lines = {item: line_of(row) for item, row in rows.items()}
    return Epoch(rows, lines, replace(closed, hash=hash_of_lines(lines.values(), closed)))


def _rows(sums: Sums, closed: EpochClosed) -> Iterator[TableRow]:
    """Yield the rows in the order of their ids."""
    back, shrunk = whole_back(closed.back), closed.shrunk
    roots = {item: math.sqrt(one.amount) for item, one in sums.items.items()}
    behind: dict[str, list[str]] = {}
    for first, seconds in sums.ahead.items():
        for second in seconds:
            behind.setdefault(second, []).append(first)
    for item in sorted(sums.items):
        ahead = sums.ahead.get(item, {})
        both = {
            other: total
            for other in dict.fromkeys((*ahead, *behind.get(item, ())))
            if (total := pair_sum(ahead.get(other, 0), sums.pair(other, item), back))
        }
        near = nearest(both, roots[item], roots, shrunk, closed.keep)
        yield TableRow(item, closed.epoch, *sums.items[item], near)
