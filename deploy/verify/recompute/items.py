"""Which items were live at an offset of the items topic, and their vectors."""

from __future__ import annotations

import math
from array import array
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any
from zlib import crc32

import jsonschema_rs
import numpy as np
from numpy.typing import NDArray

from deploy.clients.log_reader import Log, Record
from deploy.clients.schema import parse, schema
from stream.core.features import UNKNOWN, item_text
from stream.inference.bundle import Bundle
from stream.inference.text_encoder import Encoder

Vector = NDArray[np.float32]


@dataclass(frozen=True, eq=False)
class LiveItems:
    """The items as they were at one offset of the items topic. The bundle's rows come first, then later ones.

    Attributes:
        matrix: The items' vectors, one per row: what the step graph reads.
        score_items: What the score graph reads of each row: its output vector if the bundle has such vectors, else its vector,
            and its projected text if the bundle has a text term.
        bias: float32 [rows], 0 for a live item, -inf for any other.
        later: Item that the bundle lacks -> its row.
        categories: Row -> categories of its item, for items that have any.
        whole: Whether nothing before was compacted away, so that this is what a worker saw.
        bodies: Row -> the item's message; empty if they are not kept.
    """

    matrix: Vector
    score_items: Vector
    bias: Vector
    later: dict[str, int]
    categories: dict[int, frozenset[str]]
    whole: bool
    bodies: dict[int, dict[str, Any]] = field(default_factory=dict)


class Items:
    """Follows the items topic, without code of the worker."""

    def __init__(self, bundle: Bundle, encoder: Encoder) -> None:
        self.trained = {item: row for row, item in enumerate(bundle.item_ids, start=1)}
        self.names = ["", *bundle.item_ids]
        self._encoder = encoder
        self._rows = [bundle.score_items]
        self._inputs = [bundle.items]
        self._width = bundle.items.shape[1]
        self._apart = bundle.outputs is not None
        self._bias = np.full(len(bundle.items), -np.inf, np.float32).tolist()
        self._later: dict[str, tuple[int, str]] = {}
        self._categories: dict[int, frozenset[str]] = {}
        self._crcs = array("I")
        self.keep_bodies = False
        """Whether the messages are kept: rules need them."""
        self._bodies: dict[int, dict[str, Any]] = {}
        self._validator = jsonschema_rs.validator_for(schema("item"))

    def take(self, record: Record) -> None:
        """Apply one record of the topic. A record that is not acceptable changes nothing."""
        try:
            item = (record.key or b"").decode()
            body = parse(record.value) if record.value is not None else None
        except ValueError:
            return
        if not item:
            return
        if body is None:
            self._bias[self._row(item)] = -math.inf
            self._bodies.pop(self._row(item), None)
            self._categories.pop(self._row(item), None)
            self._later.pop(item, None)
        elif self._validator.is_valid(body) and body["item"] == item:
            if item not in self.trained and not self._make(item, body):
                return
            self._bias[self._row(item)] = 0.0 if body.get("available", True) else -math.inf
            self._categories[self._row(item)] = frozenset(body.get("categories") or ())
            if self.keep_bodies:
                self._bodies[self._row(item)] = body

    def freeze(self, whole: bool) -> LiveItems:
        """Return the items as they are now. whole: Whether nothing before was compacted away."""
        if len(self._rows) > 1:
            self._rows = [np.concatenate(self._rows)]
            self._inputs = [np.concatenate(self._inputs)]
        later = {item: row for item, (row, _) in self._later.items()}
        bias = np.array(self._bias, np.float32)
        rows = self._rows[0]
        return LiveItems(self._inputs[0], rows, bias, later, dict(self._categories), whole, dict(self._bodies))

    def row(self, live: LiveItems, item: str) -> int:
        return self.trained.get(item) or live.later.get(item, UNKNOWN)

    def named(self, hashes: NDArray[np.uint32], rows: int) -> list[int]:
        """Return those of the first `rows` rows whose item's crc32 is among `hashes`."""
        for name in self.names[len(self._crcs) :]:
            self._crcs.append(crc32(name.encode()))
        found: list[int] = np.flatnonzero(np.isin(np.array(self._crcs[:rows], np.uint32), hashes)).tolist()
        return found

    def follow(self, log: Log, topic: str, wanted: Iterable[int]) -> dict[int, LiveItems]:
        """Read the items topic. Return the items as they were at each of the `wanted` offsets."""
        found: dict[int, LiveItems] = {}
        expected = 0
        holes = False
        left = sorted(wanted, reverse=True)
        for record in log.records(topic, log.spans([topic])):
            while left and left[-1] < record.offset:
                at = left.pop()
                found[at] = self.freeze(not (holes or at >= expected))
            holes = holes or record.offset != expected
            expected = record.offset + 1
            self.take(record)
        for at in left:
            found[at] = self.freeze(not (holes or at >= expected))
        return found

    def _row(self, item: str) -> int:
        return self.trained.get(item) or self._later.get(item, (UNKNOWN, ""))[0]

    def _make(self, item: str, body: dict[str, Any]) -> bool:
        """Make a row for an item that the bundle lacks; a new text gets a new row. False: its vector is not finite."""
        text = item_text(body["title"], body.get("text"), body.get("categories"))
        if self._later.get(item, (UNKNOWN, None))[1] == text:
            return True
        vector = self._encoder.item_vectors([text])
        if not np.isfinite(vector).all():
            return False
        self._bias[self._row(item)] = -math.inf
        self._later[item] = len(self._bias), text
        self._inputs.append(vector[:, : self._width])
        self._rows.append(vector[:, self._width :] if self._apart else vector)
        self._bias.append(-math.inf)
        self.names.append(item)
        return True
