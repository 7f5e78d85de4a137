"""The live items as the models see them: a matrix with spare capacity, swapped as immutable snapshots. Pure: no Kafka.

Rows 0..N belong to the bundle (row 0 is UNKNOWN) and keep their places. Items unseen in training get rows after them,
with vectors computed from their text. A row never changes once a snapshot shows it: a new text gets a new row, and the
old row is retired until the matrix is next copied. So a reader needs no lock: it takes `Catalogue.snapshot` once and
uses that.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from hashlib import blake2b
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from stream.catalogue.categories import Categories, Labels
from stream.catalogue.tables import EpochTables
from stream.core.envelopes import explained_item
from stream.core.errors import InternalError, RecordError
from stream.core.features import UNKNOWN, item_text
from stream.core.filters import Columns, Facts, Filter, facts_of
from stream.core.json_body import JsonDecoder
from stream.core.messages import Item
from stream.core.score_tables import ScoreTables
from stream.core.state import item_hash
from stream.inference.bundle import Bundle

Vectors = NDArray[np.float32]
Rows = NDArray[np.int64]
ItemVectors = Callable[[list[str]], Vectors]
DEAD = np.float32(-np.inf)
GROWTH = 1.5


class Rejected(NamedTuple):
    """A record of the items topic that is not acceptable, and the reason."""

    offset: int
    key: bytes | None
    value: bytes | None
    error: RecordError


@dataclass(frozen=True, slots=True, eq=False)
class Snapshot:
    """One view of the catalogue.

    Attributes:
        offset: Last applied offset of the items topic, -1 for none.
        items: float32 [rows, D], what step.onnx reads of the rows.
        score_items: float32 [rows, D + P], what score.onnx reads of the rows: the output vectors, or `items`, which is a view of
            it then, and the projected texts. P is 0 for a bundle without a text term.
        bias: float32 [rows], 0 for a live item, -inf for row 0 and for rows that are removed, unavailable or retired.
        live: How many items can be recommended.
        known: How many items can be read as input.
        columns: What filters can ask of the rows.
        categories: int32 [rows, M], numbers of each row's categories, each once; 0 for none.
        tables: Neighbours and log-popularity of the rows; None if the bundle's score graph has them inside.
    """

    offset: int
    items: Vectors = field(repr=False)
    score_items: Vectors = field(repr=False)
    bias: Vectors = field(repr=False)
    live: int
    known: int
    columns: Columns = field(repr=False)
    categories: Labels = field(repr=False)
    tables: ScoreTables | None = field(repr=False)
    _numbers: Mapping[str, int] = field(repr=False)
    _trained: Mapping[str, int] = field(repr=False)
    _new: Mapping[str, int] = field(repr=False)
    _ids: Sequence[str] = field(repr=False)
    _hashes: NDArray[np.uint32] = field(repr=False)
    _hash_rows: Rows = field(repr=False)

    def row(self, item: str) -> int:
        """Return the item's row; UNKNOWN if neither the bundle nor the catalogue has it. Not every known item is live."""
        return self._trained.get(item) or self._new.get(item, UNKNOWN)

    def rows_of(self, items: Sequence[str]) -> list[int]:
        """Return the rows of items, as `row` does."""
        try:
            return list(map(self._trained.__getitem__, items))
        except KeyError:
            return list(map(self.row, items))

    def item(self, row: int) -> str:
        """Return the item of a row; "" for UNKNOWN."""
        return self._ids[row]

    def items_of(self, rows: Rows) -> list[str]:
        """Return the items of rows, int64 [n]."""
        return list(map(self._ids.__getitem__, rows.tolist()))

    def category(self, name: str) -> int:
        """Return the number of a category in `categories`; 0 if no item has ever named it."""
        return self._numbers.get(name, 0)

    def where(self, filtered: Filter) -> Snapshot:
        """Return a view of the items for which a filter holds; the others are not live in it."""
        return replace(self, bias=np.where(self.columns.mask(filtered), self.bias, DEAD))

    def hidden_rows(self, hashes: NDArray[np.uint32]) -> tuple[Rows, Rows]:
        """Return all live items whose crc32 is among `hashes` (uint32). Items may share a hash.

        Returns:
            The index of the hash and the item's row, int64 [S] each, in the order of `hashes`.
        """
        first = np.searchsorted(self._hashes, hashes, "left")
        count = np.searchsorted(self._hashes, hashes, "right") - first
        if count.max(initial=0) > 1:
            places = np.repeat(np.arange(len(hashes)), count)
            first = np.repeat(first, count) + np.arange(len(places)) - np.repeat(np.cumsum(count) - count, count)
        else:
            places = np.flatnonzero(count)
            first = first[places]
        rows = self._hash_rows[first]
        live = self.bias[rows] == 0
        return places[live], rows[live]


class _Accepted(NamedTuple):
    """The last acceptable record of one item in a batch; `message` is None for a tombstone."""

    record: tuple[int, bytes | None, bytes | None]
    message: Item | None


class Catalogue:
    """Applies the items topic to snapshots. It must have only one writer thread; another one may call `use`.

    Args:
        bundle: The bundle. Its own items keep their trained vectors, whatever their text is.
        item_vectors: Texts -> float32 [n, row_width] (stream.inference.bundle.Bundle), for items that the bundle lacks.
    """

    def __init__(self, bundle: Bundle, item_vectors: ItemVectors) -> None:
        self._item_vectors = item_vectors
        self._decoder = JsonDecoder(Item)
        self._trained = {item: row for row, item in enumerate(bundle.item_ids, start=1)}
        self._new: dict[str, int] = {}
        self._digests: dict[str, bytes] = {}  # hash of the text from which each new item's vector was computed
        self._matrix = bundle.score_items
        self._inputs = bundle.items if bundle.own_inputs else None
        self._row_width = bundle.row_width
        self._width = bundle.items.shape[1]
        self._size = len(bundle.items)
        self._bias = np.full(self._size, DEAD)
        self._ids = ["", *bundle.item_ids]
        self._facts: list[Facts | None] = [None] * self._size
        self._categories = Categories(self._size)
        self._offset = -1
        self._hashes: NDArray[np.uint32]
        self._hash_rows: Rows
        self._own = bundle.tables
        self._epoch: EpochTables | None = None
        self._moved = False  # whether an item has got another row, or none, since the last snapshot
        self._swap = threading.Lock()
        self._index(1)
        self.snapshot = self._snap(self._own)

    def apply(self, records: Sequence[tuple[int, bytes | None, bytes | None]]) -> list[Rejected]:
        """Apply records (offset, key, value) in the order of the topic, then swap the snapshot once.

        Returns the records that are not acceptable; they change nothing. A null value removes the item. An item with
        `available: false` is not recommended. Text is encoded only if it is new.
        """
        rejected: list[Rejected] = []
        accepted: dict[str, _Accepted] = {}
        for record in records:
            try:
                item, message = self._decode(record[1], record[2])
            except RecordError as error:
                rejected.append(Rejected(*record, error))
            else:
                accepted[item] = _Accepted(record, message)
        # the snapshot keeps the old ones
        self._bias, self._new, self._facts = self._bias.copy(), dict(self._new), list(self._facts)
        self._encode_new(accepted, rejected)
        for item, (_, message) in accepted.items():
            if message is None:
                row = self._forget(item)
                self._bias[row], self._facts[row] = DEAD, None
                self._categories.put(row, ())
            else:
                row = self._trained.get(item) or self._new[item]
                self._bias[row], self._facts[row] = 0.0 if message.available else DEAD, facts_of(message)
                self._categories.put(row, message.categories or ())
        self._offset = max((record[0] for record in records), default=self._offset)
        with self._swap:
            snapshot = self._snap(self.snapshot.tables)
            self.snapshot = self._tabled(snapshot) if self._moved else snapshot
            self._moved = False
        return rejected

    def use(self, epoch: EpochTables) -> None:
        """Swap the snapshot for one with the tables of an epoch. Nothing happens if the bundle takes none."""
        with self._swap:
            if self._own is not None:
                self._epoch = epoch
                self.snapshot = self._tabled(self.snapshot)

    def _tabled(self, snapshot: Snapshot) -> Snapshot:
        """Return a snapshot with the tables of the epoch in use, over its own rows."""
        if self._epoch is None:
            return snapshot
        return replace(snapshot, tables=self._epoch.over(snapshot.row, len(snapshot.bias)))

    def _decode(self, key: bytes | None, value: bytes | None) -> tuple[str, Item | None]:
        if key is None:
            raise RecordError("key", "null_key", "item", "the key is null; expected the item id in UTF-8")
        try:
            item = str(key, "utf-8")
        except UnicodeDecodeError as error:
            raise RecordError("key", "bad_key", "item", f"the key is not UTF-8 at byte {error.start}") from None
        if not item:
            raise RecordError("key", "bad_key", "item", "the key is empty; expected the item id in UTF-8")
        if value is None:
            return item, None
        try:
            message = self._decoder.decode(value)
        except RecordError as error:
            raise explained_item(error, value) from None
        if message.item != item:
            raise RecordError("key", "key_mismatch", "item", "the key is not the body's item in UTF-8")
        return item, message

    def _forget(self, item: str) -> int:
        """Forget an item after a tombstone. Return its row; UNKNOWN if there is none."""
        self._digests.pop(item, None)
        if row := self._trained.get(item, UNKNOWN):
            return row
        self._moved = True
        return self._new.pop(item, UNKNOWN)

    def _encode_new(self, accepted: dict[str, _Accepted], rejected: list[Rejected]) -> None:
        """Add rows for the new items of a batch and for items whose text has changed."""
        texts: dict[str, list[str]] = {}
        for item, (_, message) in accepted.items():
            if message is not None and item not in self._trained:
                text = item_text(message.title, message.text, message.categories)
                if self._digests.get(item) != _digest(text):
                    texts.setdefault(text, []).append(item)
        if not texts:
            return
        vectors = self._item_vectors(list(texts))
        if vectors.shape != (len(texts), self._row_width):
            raise InternalError(f"item vectors of shape {vectors.shape} for {len(texts)} texts: this is a bug")
        self._make_room(sum(map(len, texts.values())))
        first, self._moved = self._size, True
        for (text, items), vector in zip(texts.items(), vectors, strict=True):
            finite = bool(np.isfinite(vector).all())
            for item in items:
                if finite:
                    self._append(item, vector, _digest(text))
                else:
                    error = RecordError("catalogue", "out_of_range", "text", "the text's vector is not finite")
                    rejected.append(Rejected(*accepted.pop(item).record, error))
        self._index(first)

    def _append(self, item: str, vector: Vectors, digest: bytes) -> None:
        old = self._new.get(item, UNKNOWN)
        self._bias[old] = DEAD
        if self._inputs is None:
            self._matrix[self._size] = vector
        else:
            self._inputs[self._size] = vector[: self._width]
            self._matrix[self._size] = vector[self._width :]
        self._ids.append(item)
        self._new[item] = self._size
        self._digests[item] = digest
        self._size += 1

    def _make_room(self, count: int) -> None:
        """If `count` more rows do not fit, copy the matrix to a larger one without the retired rows."""
        if self._size + count > len(self._matrix):
            kept = len(self._trained) + 1
            rows = np.fromiter((*range(kept), *self._new.values()), np.int64, kept + len(self._new))
            room = int((len(rows) + count) * GROWTH) + 64
            self._ids = [self._ids[row] for row in rows.tolist()]
            self._new = {item: row for row, item in enumerate(self._new, start=kept)}
            self._bias = self._bias[rows]
            self._facts = [self._facts[row] for row in rows.tolist()]
            self._categories.keep(rows)
            self._matrix = _moved(self._matrix, rows, room)
            if self._inputs is not None:
                self._inputs = _moved(self._inputs, rows, room)
            self._size = len(rows)
            self._index(1)
        self._facts = [*self._facts[: self._size], *[None] * count]
        self._categories.resize(self._size + count)
        bias = np.full(self._size + count, DEAD)
        bias[: self._size] = self._bias[: self._size]
        self._bias = bias

    def _index(self, first: int) -> None:
        """Merge the rows from `first` on into the hash index, or rebuild it from row 1.

        The index also contains rows that are not live; a lookup leaves them out.
        """
        hashes = np.fromiter(map(item_hash, self._ids[first:]), np.uint32, len(self._ids) - first)
        order = np.argsort(hashes, kind="stable")
        hashes, rows = hashes[order], order.astype(np.int64) + first
        if first > 1:
            positions = np.searchsorted(self._hashes, hashes, "right")
            hashes, rows = np.insert(self._hashes, positions, hashes), np.insert(self._hash_rows, positions, rows)
        self._hashes, self._hash_rows = hashes, rows

    def _snap(self, tables: ScoreTables | None) -> Snapshot:
        trained, new = self._trained, self._new
        bias = self._bias[: self._size]
        live = bias == 0
        return Snapshot(
            offset=self._offset,
            items=self._matrix[: self._size, : self._width] if self._inputs is None else self._inputs[: self._size],
            score_items=self._matrix[: self._size],
            bias=bias,
            live=int(live.sum()),
            known=len(self._trained) + len(self._new),
            columns=Columns(self._facts, live, lambda item: trained.get(item) or new.get(item, UNKNOWN)),
            categories=self._categories.rows(self._size),
            tables=tables,
            _numbers=self._categories.numbers,
            _trained=self._trained,
            _new=self._new,
            _ids=self._ids,
            _hashes=self._hashes,
            _hash_rows=self._hash_rows,
        )


def _moved(matrix: Vectors, rows: Rows, room: int) -> Vectors:
    """Return a matrix of `room` rows that begins with some rows of another one."""
    made = np.zeros((room, matrix.shape[1]), np.float32)
    made[: len(rows)] = matrix[rows]
    return made


def _digest(text: str) -> bytes:
    return blake2b(text.encode("utf-8", "replace"), digest_size=16).digest()
