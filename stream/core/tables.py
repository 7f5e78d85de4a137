"""The topic `tables`: numbered epochs of item counts and neighbours that are learnt from the stream (docs/tables.md). Pure.

One epoch is one Kafka transaction: the rows that have changed since the epoch before, then the record that closes it. A
reader of committed records that has read to the end therefore holds exactly one closed epoch, compacted or not.

    key b"i:" + item id     TableRow; no value: the row is gone
    key b"e"                EpochClosed

Sums are integers in the units of stream.core.tally. They are read as

    weight(a, b) = (sum / 2^BACK_BITS) / (sqrt(count_a) sqrt(count_b) + shrink g(now))
    popularity(a) = log(1 + popular_a / g'(now)), centred over the items that have any

where g and g' are the forward decay with the half-life of the neighbours and with that of popularity.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping
from hashlib import sha256
from typing import Annotated, Final, NamedTuple

import msgspec
import numpy as np
from msgspec import Meta, Struct
from numpy.typing import NDArray

from stream.core.errors import RecordError
from stream.core.json_body import JsonDecoder
from stream.core.messages import MAX_TIME, Id
from stream.core.tally import ForwardDecay

ROW: Final = b"i:"
CLOSED_KEY: Final = b"e"
BACK_BITS: Final = 10
"""`back` is a number of parts of 2^-BACK_BITS, so that a sum of both directions is an integer."""
HISTORY: Final = 1024
"""A user's newest choices from which pairs are counted. docs/tables.md has what fewer would cost."""
MOST_REACH: Final = 64
MOST_KEPT: Final = 1000
UNTOLD: Final = ("epoch", "created", "hash")
"""Fields of the closing record that its hash leaves out. What is left follows from the events and the settings alone."""

Sum = Annotated[int, Meta(ge=0)]
Moment = Annotated[int, Meta(ge=0, le=MAX_TIME)]
HalfLife = Annotated[int, Meta(ge=0, le=MAX_TIME)]


class TableRow(Struct, frozen=True):
    """One item as it is at an epoch.

    Attributes:
        item: Its id.
        epoch: The epoch in which the row last changed.
        count: The decayed sum of its choices' weights, with the half-life of the neighbours.
        popular: The same with the half-life of popularity.
        touched: The number of its choices.
        near: (other item, sum of both directions), the heaviest weight first, equal ones by id; at most `keep`.
    """

    item: Id
    epoch: Annotated[int, Meta(ge=1)]
    count: Sum
    popular: Sum
    touched: Sum
    near: Annotated[tuple[tuple[Id, Sum], ...], Meta(max_length=MOST_KEPT)]


class EpochClosed(Struct, frozen=True):
    """The record that closes an epoch.

    Attributes:
        epoch: Its number, from 1. 0 is what a bundle brings.
        landmark: Epoch ms of weight 1.
        now: Epoch ms of the newest event in it.
        near_half_life: Of neighbours and `count`, in ms; 0: none.
        prior_half_life: Of `popular`, in ms; 0: none.
        back: Weight of the backward direction, a multiple of 2^-BACK_BITS.
        shrink: Added to the denominator of a weight, in choices.
        keep: Most neighbours of a row.
        reach: How many choices ahead pair with a choice.
        decay: Factor per choice of distance.
        cap: The most that one user counts in a pair, in times of the greatest single addend.
        offsets: "topic/partition" -> first source offset that is not in it.
        rows: Number of rows.
        hash: `hash_of` the rows and this record.
        bundle: Id of the bundle whose settings are used.
        created: When it was written, epoch ms.
    """

    epoch: Annotated[int, Meta(ge=1)]
    landmark: Moment
    now: Moment
    near_half_life: HalfLife
    prior_half_life: HalfLife
    back: Annotated[float, Meta(ge=0, le=1000)]
    shrink: Annotated[float, Meta(ge=0, le=1e9)]
    keep: Annotated[int, Meta(ge=1, le=MOST_KEPT)]
    reach: Annotated[int, Meta(ge=1, le=MOST_REACH)]
    decay: Annotated[float, Meta(ge=0, le=1)]
    cap: Annotated[int, Meta(ge=1, le=1_000_000)]
    offsets: dict[str, Annotated[int, Meta(ge=0)]]
    rows: Annotated[int, Meta(ge=0)]
    hash: Annotated[str, Meta(pattern="^[0-9a-f]{64}$")]
    bundle: str
    created: Moment

    @property
    def near_decay(self) -> ForwardDecay:
        """g, of neighbours and counts."""
        return ForwardDecay(self.landmark, self.near_half_life)

    @property
    def prior_decay(self) -> ForwardDecay:
        """g', of popularity."""
        return ForwardDecay(self.landmark, self.prior_half_life)

    @property
    def shrunk(self) -> float:
        """What is added to the denominator of a weight: shrink g(now)."""
        return self.shrink * fresh_weight(self.near_decay, self.now)


_ROWS: Final = JsonDecoder(TableRow, texts=True)
_FAST: Final = msgspec.json.Decoder(TableRow)
_CLOSED: Final = JsonDecoder(EpochClosed, texts=True)
_encode: Final = msgspec.json.Encoder().encode
_sorted: Final = msgspec.json.Encoder(order="sorted").encode


def row_key(item: str) -> bytes:
    """Return the key of an item's row."""
    return ROW + item.encode()


def item_of(key: bytes | None) -> str | None:
    """Return the item whose row has this key; None for the closing record's. Raises RecordError for any other key."""
    if key == CLOSED_KEY:
        return None
    if key is None:
        raise RecordError("key", "null_key", "item", "there is no key; expected i: and the item's id, or e")
    try:
        name = str(key.removeprefix(ROW), "utf-8")
    except UnicodeDecodeError as error:
        raise RecordError("key", "bad_key", "item", f"the key is not UTF-8 at byte {error.start}") from None
    if not key.startswith(ROW) or not name:
        raise RecordError("key", "bad_key", "item", f"found the key {key!r:.60}, expected i: and the item's id, or e")
    return name


def encode_row(row: TableRow) -> bytes:
    """Return the value of a row's record."""
    return _encode(row)


def decode_row(key: bytes | None, value: bytes | None) -> TableRow:
    """Return the row in a record with a value. Raises RecordError, which names the field."""
    try:
        row = _FAST.decode(
            value or b""
        )  # a row has too many brackets for the look at their depth, several times as slow
    except (msgspec.DecodeError, RecursionError):
        row = _ROWS.decode(value)
    if item_of(key) != row.item:
        raise RecordError("key", "key_mismatch", "item", "the key is not i: and the body's item in UTF-8")
    return row


def encode_closed(closed: EpochClosed) -> bytes:
    """Return the value of a closing record."""
    return _encode(closed)


def decode_closed(value: bytes | None) -> EpochClosed:
    """Return the closing record in a value. Raises RecordError, which names the field."""
    closed = _CLOSED.decode(value)
    if closed.back * (1 << BACK_BITS) % 1:
        raise RecordError(
            "validate", "out_of_range", "back", f"found {closed.back!r}, expected a multiple of 2^-{BACK_BITS}"
        )
    return closed


def line_of(row: TableRow) -> bytes:
    """Return a row as the hash reads it: JSON without spaces and without `epoch`, the names in order, and a line feed."""
    fields = {
        "count": row.count, "item": row.item, "near": row.near, "popular": row.popular, "touched": row.touched,
    }  # fmt: skip
    return _encode(fields) + b"\n"


def hash_of(rows: Iterable[TableRow], closed: EpochClosed) -> str:
    """Return the hash of an epoch: `hash_of_lines` of its rows in the order of their ids."""
    return hash_of_lines((line_of(row) for row in sorted(rows, key=lambda row: row.item)), closed)


def hash_of_lines(lines: Iterable[bytes], closed: EpochClosed) -> str:
    """Return the hex sha256 of the lines of all rows, in the order of their ids, and of the closing record.

    The record is JSON without spaces, its names in order and its numbers with a point as texts (Python's repr), without
    UNTOLD. So two tallies that have read the same events have the same hash, however they numbered their epochs.
    """
    digest = sha256()
    for line in lines:
        digest.update(line)
    fields = {name: getattr(closed, name) for name in closed.__struct_fields__ if name not in UNTOLD}
    digest.update(_sorted({name: repr(one) if isinstance(one, float) else one for name, one in fields.items()}))
    return digest.hexdigest()


def fresh_weight(decay: ForwardDecay, now: int) -> int:
    """Return g(now), at least 1: so far before the landmark that it is 0, no sum is above 0 either."""
    return max(1, decay.weight(now))


def whole_back(back: float) -> int:
    """Return `back` in units of 2^-BACK_BITS."""
    return round(back * (1 << BACK_BITS))


def pair_sum(ahead: int, behind: int, back: int) -> int:
    """Return the sum of both directions. `back` is in units of 2^-BACK_BITS."""
    return (ahead << BACK_BITS) + back * behind


def weight(total: int, root: float, other_root: float, shrunk: float) -> float:
    """Return the weight of a pair; 0 if both counts and `shrunk` are 0.

    Args:
        total: The pair's sum.
        root: Square root of an item's count.
        other_root: Of the other's.
        shrunk: shrink g(now).
    """
    below = root * other_root + shrunk
    return total / (1 << BACK_BITS) / below if below else 0.0


def nearest(
    sums: Mapping[str, int], root: float, roots: Mapping[str, float], shrunk: float, keep: int
) -> tuple[tuple[str, int], ...]:
    """Return the neighbours of an item as its row has them.

    Args:
        sums: Other item -> `pair_sum`, above 0.
        root: Square root of the item's count.
        roots: The same of every other item.
        shrunk: shrink g(now).
        keep: How many are kept.
    """
    weights = {other: weight(total, root, roots.get(other, 0.0), shrunk) for other, total in sums.items()}
    order = sorted(sums, key=lambda other: (-weights[other], other))[:keep]
    return tuple((other, sums[other]) for other in order)


class TableArrays(NamedTuple):
    """An epoch as score.onnx reads it, for M rows of a catalogue.

    Attributes:
        near: i32 [M, keep]: rows of the neighbours, the heaviest first; 0 at unused positions.
        weight: f32 [M, keep]: their weights; 0 at unused positions.
        popularity: f32 [M]: log(1 + decayed count), centred; 0 for row 0 and for items without choices.
    """

    near: NDArray[np.int32]
    weight: NDArray[np.float32]
    popularity: NDArray[np.float32]


def weights(rows: Mapping[str, TableRow], closed: EpochClosed, row_of: Callable[[str], int], size: int) -> TableArrays:
    """Return an epoch as arrays. Items that the catalogue does not know are left out.

    Args:
        rows: Item -> row.
        closed: The closing record.
        row_of: Item -> row of the catalogue, from 1; 0 if it is unknown there.
        size: M.
    """
    index = np.zeros((size, closed.keep), np.int32)
    weight_of = np.zeros((size, closed.keep), np.float32)
    counts = np.zeros(size)
    shrunk, fresh = closed.shrunk, fresh_weight(closed.prior_decay, closed.now)
    place = {item: at for item in rows if 0 < (at := row_of(item)) < size}
    roots = {item: math.sqrt(row.count) for item, row in rows.items()}
    for item, at in place.items():
        row, root = rows[item], roots[item]
        counts[at] = row.popular / fresh
        near = [
            (other_at, weight(total, root, roots.get(other, 0.0), shrunk))
            for other, total in row.near[: closed.keep]
            if (other_at := place.get(other, 0))
        ]
        if near:
            index[at, : len(near)], weight_of[at, : len(near)] = zip(*near, strict=True)
    return TableArrays(index, weight_of, centred(counts))


def centred(counts: NDArray[np.float64]) -> NDArray[np.float32]:
    """Return log(1 + count) minus its mean over the rows that have any, as models.network.blend.log_popularity."""
    counts = counts.astype(np.float32).astype(np.float64)
    out, had = np.log1p(counts), counts > 0
    return np.where(had, out - (out[had].mean() if had.any() else 0.0), 0.0).astype(np.float32)
