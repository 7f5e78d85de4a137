"""Epochs of the topic `tables`: what slates were scored with, computed once more, and which epochs a worker may have named.

The rows, their hash and the weights are read here from the JSON, without code of the tally or the worker.
"""

from __future__ import annotations

import json
import math
from collections import defaultdict
from collections.abc import Callable, Collection, Iterable, Mapping
from dataclasses import dataclass, field
from hashlib import sha256
from typing import Any, Final, NamedTuple

import numpy as np
from numpy.typing import NDArray

from deploy.clients.log_reader import Log
from stream.core.score_tables import ScoreTables

CLOSED: Final = b"e"
ROW: Final = b"i:"
UNTOLD: Final = ("epoch", "created", "hash")
ONE: Final = 1 << 20
"""A choice of weight 1 at the landmark."""
STEPS: Final = 1024
"""Parts of a half-life."""
SUM: Final = 1 << 10
"""Sums of both directions are in units of ONE / SUM."""
FURTHEST: Final = 1000.0
"""Half-lives behind the landmark that a float64 holds."""
MILLISECONDS: Final = 86_400_000
"""Of a day."""
CLOCKS: Final = 60_000
"""Milliseconds by which the clocks of two brokers may differ."""

Row = Mapping[str, Any]


class Epoch(NamedTuple):
    """One epoch. rows: Item -> its row, as JSON has it. closed: Its closing record."""

    rows: Mapping[str, Row]
    closed: Mapping[str, Any]


@dataclass
class Epochs:
    """What the topic says.

    Attributes:
        found: Number -> epoch, of those wanted whose rows are all still there.
        newest: The greatest number that was closed; 0 for none.
        appended: Number -> when its closing record was appended, epoch ms, of those whose record is still there.
    """

    found: dict[int, Epoch] = field(default_factory=dict)
    newest: int = 0
    appended: dict[int, int] = field(default_factory=dict)
    _tables: dict[tuple[int, int], ScoreTables] = field(default_factory=dict)

    def over(self, number: int, offset: int, row_of: Callable[[str], int], size: int) -> ScoreTables:
        """Return the tables of a found epoch over the items at an offset of the items topic. size: Number of rows."""
        made = self._tables.get((number, offset))
        if made is None:
            made = self._tables[number, offset] = tables_of(number, self.found[number], row_of, size)
        return made

    def impossible(self, number: int, time: int) -> str:
        """Return why a slate of this time (epoch ms) cannot have been made with an epoch; "" if it can."""
        if number > self.newest:
            return f"it names epoch {number} of the tables, but the newest is {self.newest}"
        appended = self.appended.get(number, 0)
        if appended > time + CLOCKS:
            return (
                f"it names epoch {number} of the tables, which was closed {appended - time} ms after the slate was made"
            )
        return ""


def follow(log: Log, topic: str, wanted: Collection[int]) -> Epochs:
    """Read the tables topic. Keep those of the `wanted` epochs whose rows have the hash of their closing record.

    Once the rows of an epoch have changed and compaction has removed the earlier ones, its hash no longer fits.
    """
    epochs = Epochs()
    rows: dict[str, Row] = {}
    for record in log.records(topic, log.spans([topic])):
        key = record.key or b""
        body = _parsed(record.value)
        if key == CLOSED:
            number = body.get("epoch") if body else None
            if body and isinstance(number, int):
                epochs.newest = max(epochs.newest, number)
                epochs.appended[number] = record.timestamp
                if number in wanted and _hash(rows, body) == body.get("hash"):
                    epochs.found[number] = Epoch(dict(rows), body)
        elif key.startswith(ROW):
            name = key[len(ROW) :].decode(errors="replace")
            if body is None:
                rows.pop(name, None)
            else:
                rows[name] = body
    return epochs


def _parsed(value: bytes | None) -> dict[str, Any] | None:
    try:
        body = json.loads(value) if value is not None else None
    except (ValueError, RecursionError):
        return None
    return body if isinstance(body, dict) else None


def _hash(rows: Mapping[str, Row], closed: Mapping[str, Any]) -> str:
    digest = sha256()
    for name in sorted(rows):
        told = {field: value for field, value in rows[name].items() if field != "epoch"}
        digest.update(_canonical(told) + b"\n")
    ended = {
        field: repr(value) if isinstance(value, float) else value
        for field, value in closed.items()
        if field not in UNTOLD
    }
    digest.update(_canonical(ended))
    return digest.hexdigest()


def _canonical(body: Mapping[str, Any]) -> bytes:
    return json.dumps(body, sort_keys=True, separators=(",", ":"), ensure_ascii=False).encode()


def _fresh(closed: Mapping[str, Any], half_life: int) -> float:
    """Return what a choice at the time of the epoch's newest event weighs, in units of a count; at least one unit."""
    if not half_life:
        return float(ONE)
    steps = (closed["now"] - closed["landmark"]) * STEPS // half_life
    return float(max(1, math.floor(ONE * 2.0 ** min(steps / STEPS, FURTHEST))))


def tables_of(number: int, epoch: Epoch, row_of: Callable[[str], int], size: int) -> ScoreTables:
    """Return what score.onnx reads of an epoch (docs/tables.md).

    Args:
        number: Its number.
        epoch: The epoch.
        row_of: Item -> its row; 0 if it is unknown.
        size: Number of rows.
    """
    rows, closed = epoch
    most = max((len(row["near"]) for row in rows.values()), default=0)
    near, weight = np.zeros((size, most), np.int32), np.zeros((size, most), np.float32)
    counts = np.zeros(size)
    shrunk = closed["shrink"] * _fresh(closed, closed["near_half_life"])
    fresh = _fresh(closed, closed["prior_half_life"])
    for name, row in rows.items():
        at = row_of(name)
        if not at:
            continue
        counts[at] = row["popular"] / fresh
        for place, (other, total) in enumerate(row["near"][: closed["keep"]]):
            if other in rows and (other_at := row_of(other)):
                below = math.sqrt(row["count"]) * math.sqrt(rows[other]["count"]) + shrunk
                near[at, place], weight[at, place] = other_at, total / SUM / below if below else 0.0
    any_of = counts > 0
    logs = np.log1p(counts)
    popularity = np.where(any_of, logs - (logs[any_of].mean() if any_of.any() else 0.0), 0.0)
    return ScoreTables(number, near, weight, popularity.astype(np.float32))


def counts_of(epoch: Epoch, row_of: Callable[[str], int], size: int, *, trending: bool) -> NDArray[np.float64]:
    """Return what the slate for unknown users ranks by, f64 [size]: decayed counts, or with `trending` the trend if there is one.

    See docs/tables.md. The arguments are those of `tables_of`.
    """
    rows, closed = epoch
    short, long = closed["prior_half_life"], closed["near_half_life"]
    lately, ever = _fresh(closed, short), _fresh(closed, long)
    out = np.zeros(size)
    for name, row in rows.items():
        if at := row_of(name):
            out[at] = row["popular"] / lately
            if trending and 0 < short < long:
                daily = math.log(2.0) * MILLISECONDS
                out[at] = max(0.0, out[at] * daily / short - row["count"] / ever * daily / long)
    return out


class Made(NamedTuple):
    """Which epoch a slate names. tables: The number; 0 for none. claim: Of the worker that made it."""

    partition: int
    claim: int
    offset: int
    tables: int
    key: bytes
    seq: int


def gone_back(slates: Iterable[Made]) -> list[tuple[Made, int]]:
    """Return each slate whose epoch is older than one that the same worker named before, with that one."""
    by_worker: dict[tuple[int, int], list[Made]] = defaultdict(list)
    for slate in slates:
        by_worker[slate.partition, slate.claim].append(slate)
    found = []
    for of_worker in by_worker.values():
        newest = 0
        for slate in sorted(of_worker, key=lambda one: one.offset):
            if slate.tables < newest:
                found.append((slate, newest))
            newest = max(newest, slate.tables)
    return found
