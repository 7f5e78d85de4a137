"""The records of the topic `tables`, the hash of an epoch, and the weights that a reader makes of it."""

from __future__ import annotations

import hashlib
import json
import math
from typing import Any

import msgspec
import numpy as np
import pytest

from models.network.blend import log_popularity
from stream.core import tables
from stream.core.errors import RecordError
from stream.core.tables import EpochClosed, TableRow
from stream.core.tally import ForwardDecay, PairShape, tally_of

DAY = 86_400_000


def closed(**changed: Any) -> EpochClosed:
    values: dict[str, Any] = {
        "epoch": 3, "landmark": 0, "now": 40 * DAY, "near_half_life": 30 * DAY, "prior_half_life": 0, "back": 0.5,
        "shrink": 5.0, "keep": 2, "reach": 10, "decay": 0.8, "cap": 3, "offsets": {"clicks/0": 7, "clicks/1": 0},
        "rows": 2, "hash": "0" * 64, "bundle": "b", "created": 5,
    }  # fmt: skip
    return EpochClosed(**values | changed)


ROW = TableRow("ä\n", 2, 9, 1 << 70, 3, (("b", 5), ("c", 4)))


def test_records_come_back_as_they_were_written() -> None:
    assert tables.decode_row(tables.row_key(ROW.item), tables.encode_row(ROW)) == ROW
    assert tables.decode_closed(tables.encode_closed(closed())) == closed()
    assert tables.item_of(tables.row_key("x")) == "x"
    assert tables.item_of(tables.CLOSED_KEY) is None


@pytest.mark.parametrize(
    ("key", "value", "reason", "field"),
    [
        (None, b"{}", "missing_field", "item"),
        (b"i:x", tables.encode_row(ROW), "key_mismatch", "item"),
        (b"e", tables.encode_row(ROW), "key_mismatch", "item"),
        (b"x", tables.encode_row(ROW), "bad_key", "item"),
        (b"i:", tables.encode_row(ROW), "bad_key", "item"),
        (b"i:\xff", tables.encode_row(ROW), "bad_key", "item"),
        (None, tables.encode_row(ROW), "null_key", "item"),
        (b"i:x", b'{"item":"x","epoch":1,"count":-1,"popular":0,"touched":0,"near":[]}', "out_of_range", "count"),
        (b"i:x", b'{"item":"x","epoch":1,"count":1,"popular":0,"touched":0,"near":7}', "wrong_type", "near"),
        (b"i:x", None, "null_value", ""),
    ],
)
def test_a_row_that_is_wrong_names_its_field(key: bytes | None, value: bytes | None, reason: str, field: str) -> None:
    with pytest.raises(RecordError) as error:
        tables.decode_row(key, value)
    assert (error.value.reason, error.value.field) == (reason, field)


def test_a_closing_record_that_is_wrong_names_its_field() -> None:
    for field, value in (("back", 0.3), ("epoch", 0), ("hash", "x"), ("keep", 0), ("now", -1)):
        fields = msgspec.to_builtins(closed()) | {field: value}
        with pytest.raises(RecordError) as error:
            tables.decode_closed(json.dumps(fields).encode())
        assert error.value.field == field


def test_the_hash_is_of_the_rows_and_of_what_follows_from_the_events() -> None:
    other = TableRow("a", 1, 1, 2, 3, ())
    found = tables.hash_of([ROW, other], closed())
    text = "".join(
        json.dumps(
            {"count": row.count, "item": row.item, "near": row.near, "popular": row.popular, "touched": row.touched},
            ensure_ascii=False, separators=(",", ":"),
        ) + "\n"
        for row in (other, ROW)
    )  # fmt: skip
    last = {
        name: repr(value) if isinstance(value, float) else value
        for name, value in msgspec.to_builtins(closed()).items()
        if name not in ("epoch", "created", "hash")
    }
    text += json.dumps(last, sort_keys=True, ensure_ascii=False, separators=(",", ":"))
    assert found == hashlib.sha256(text.encode()).hexdigest()
    assert found == tables.hash_of(
        [other, msgspec.structs.replace(ROW, epoch=9)], closed(epoch=9, created=8, hash="f" * 64)
    )
    for changed in ({"offsets": {"clicks/0": 8}}, {"rows": 1}, {"shrink": 4.0}, {"now": 0}, {"bundle": ""}):
        assert found != tables.hash_of([ROW, other], closed(**changed))
    assert found != tables.hash_of([other, msgspec.structs.replace(ROW, touched=4)], closed())


def test_weights_are_those_of_the_tally() -> None:
    shape, decay = PairShape(), ForwardDecay(0, 30 * DAY)
    users = [[(name, at * DAY, 1.0) for at, name in enumerate(names)] for names in ("abcab", "bca", "cd", "dab")]
    tally, now = tally_of(users, shape, decay), 10 * DAY
    record = closed(now=now, keep=3)
    back = tables.whole_back(record.back)
    roots = {str(item): math.sqrt(count) for item, count in tally.count.items()}
    rows = {}
    for item in roots:
        ahead, behind = tally.ahead.get(item, {}), tally.behind.get(item, {})
        sums = {
            str(other): tables.pair_sum(ahead.get(other, 0), behind.get(other, 0), back)
            for other in {**ahead, **behind}
        }
        near = tables.nearest(sums, roots[item], roots, record.shrunk, record.keep)
        rows[item] = TableRow(item, 1, tally.count[item], 5 << 20, 5, near)
    place = {"a": 1, "b": 2, "c": 4}  # d is not in the catalogue
    found = tables.weights(rows, record, lambda item: place.get(item, 0), 5)
    expected = tally.near("a", record.back, record.shrink, decay.weight(now))
    assert dict(zip(found.near[1].tolist(), found.weight[1].tolist(), strict=True)) == pytest.approx(
        {2: expected["b"], 4: expected["c"], 0: 0.0}
    )
    assert found.weight[1].tolist() == sorted(found.weight[1].tolist(), reverse=True)
    assert not found.near[[0, 3]].any()
    assert not found.weight[[0, 3]].any()
    counts = np.array([0, 5, 5, 0, 5], np.float32)
    assert found.popularity.tolist() == log_popularity(counts).tolist()


def test_equal_weights_are_in_the_order_of_ids() -> None:
    roots = dict.fromkeys("abcd", 2.0)
    assert tables.nearest({"d": 7, "b": 7, "c": 8}, 2.0, roots, 1.0, 2) == (("c", 8), ("b", 7))
