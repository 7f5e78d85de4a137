"""Epochs of the topic `tables` as arrays: what stream.core.tables says of the rows, for any catalogue and any order of growth."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from stream.catalogue.catalogue import Catalogue
from stream.catalogue.tables import EpochRows, EpochTables
from stream.core.score_tables import ScoreTables, epoch_of
from stream.core.tables import (
    CLOSED_KEY,
    EpochClosed,
    TableRow,
    encode_closed,
    encode_row,
    row_key,
    weights,
)
from tests.epochs import HOUR, closed, row
from tests.unit.stream.catalogue.test_catalogue import TRAINED, Tower, bundle, message, records

Record = tuple[int, bytes | None, bytes | None]
NAMES = ("a", "b", "c", "d", "e")


def log(rows: Sequence[TableRow], end: EpochClosed | None = None, start: int = 0) -> list[Record]:
    """The records of an epoch."""
    pairs: list[tuple[bytes, bytes | None]] = [(row_key(one.item), encode_row(one)) for one in rows]
    pairs.append((CLOSED_KEY, encode_closed(end or closed(rows))))
    return [(start + at, key, value) for at, (key, value) in enumerate(pairs)]


def closed_epoch(rows: Sequence[TableRow], end: EpochClosed) -> EpochTables:
    made = EpochRows()
    assert made.apply(log(rows, end)) == []
    assert made.current is not None
    return made.current


def pairs_of(near: Any, weight: Any) -> list[dict[int, float]]:
    """Row of a neighbour -> its weight, for each row."""
    return [
        {int(other): float(one) for other, one in zip(*line, strict=True) if other}
        for line in zip(near, weight, strict=True)
    ]


def same(tables: ScoreTables | None, other: ScoreTables) -> bool:
    assert tables is not None
    return (
        tables.epoch == other.epoch
        and pairs_of(tables.near, tables.weight) == pairs_of(other.near, other.weight)
        and np.array_equal(tables.popularity, other.popularity)
    )


SUMS = st.integers(0, 10**24)
ROWS = st.dictionaries(
    st.sampled_from(NAMES),
    st.tuples(SUMS, SUMS, st.dictionaries(st.sampled_from((*NAMES, "x")), SUMS, max_size=5)),
    max_size=5,
)


@settings(deadline=None)
@given(
    ROWS, st.integers(1, 6), st.integers(0, 10**6), st.sampled_from([0, HOUR]), st.sampled_from([0.0, 0.5, 7.25]),
    st.lists(st.sampled_from((*NAMES, "x", "y")), unique=True),
)  # fmt: skip
def test_an_epoch_over_any_catalogue_is_what_the_reference_says(
    made: dict[str, Any], keep: int, now: int, half_life: int, shrink: float, known: list[str]
) -> None:
    rows = [TableRow(item, 1, count, popular, 1, tuple(near.items())) for item, (count, popular, near) in made.items()]
    end = closed(rows, keep=keep, now=now, near_half_life=half_life, prior_half_life=half_life, shrink=shrink)
    at = {item: place for place, item in enumerate(known, start=1)}
    size = len(known) + 1
    expected = weights({one.item: one for one in rows}, end, lambda item: at.get(item, 0), size)
    found = closed_epoch(rows, end).over(lambda item: at.get(item, 0), size)
    assert (found.epoch, found.near.dtype.name, found.weight.dtype.name) == (1, "int32", "float32")
    assert found.near.shape == found.weight.shape
    assert np.allclose(found.popularity, expected.popularity, rtol=1e-6, atol=1e-6)
    theirs = pairs_of(expected.near, expected.weight)
    for mine, other in zip(pairs_of(found.near, found.weight), theirs, strict=True):
        assert mine == pytest.approx(other, rel=1e-6)
    assert not any(one.flags.writeable for one in (found.near, found.weight, found.popularity))


def history(seed: int, epochs: int) -> list[tuple[list[TableRow | str], list[TableRow], EpochClosed]]:
    """Of each epoch: the rows that changed (the id of one that is gone), all its rows, and its closing record."""
    draw = np.random.default_rng(seed)
    rows: dict[str, TableRow] = {}
    found = []
    for number in range(1, epochs + 1):
        changed: list[TableRow | str] = []
        for item in draw.permutation(NAMES)[: draw.integers(0, 4)].tolist():
            if item in rows and draw.random() < 0.3:
                del rows[item]
                changed.append(item)
            else:
                near = {other: int(draw.integers(1, 9)) for other in NAMES if other != item and draw.random() < 0.5}
                rows[item] = row(item, near, int(draw.integers(1, 9)), number, int(draw.integers(0, 9)))
                changed.append(rows[item])
        every = list(rows.values())
        found.append((changed, every, closed(every, number, now=number * HOUR)))
    return found


def written(epochs: Sequence[tuple[list[TableRow | str], list[TableRow], EpochClosed]]) -> list[Record]:
    made: list[Record] = []
    for changed, _, end in epochs:
        for one in changed:
            if isinstance(one, str):
                made.append((len(made), row_key(one), None))
            else:
                made.append((len(made), row_key(one.item), encode_row(one)))
        made.append((len(made), CLOSED_KEY, encode_closed(end)))
    return made


def row_of(item: str) -> int:
    return NAMES.index(item) + 1 if item in NAMES else 0


@settings(deadline=None)
@given(st.integers(0, 2**32 - 1), st.integers(1, 6), st.lists(st.integers(1, 5), min_size=1))
def test_however_the_records_come_each_epoch_is_whole(seed: int, epochs: int, sizes: list[int]) -> None:
    """What is in use is at any moment one of the epochs as a whole, and never an older one."""
    made = history(seed, epochs)
    expected = {end.epoch: closed_epoch(rows, end).over(row_of, 6) for _, rows, end in made}
    whole, at, before = written(made), 0, 0
    rows = EpochRows()
    while at < len(whole):
        size = sizes[at % len(sizes)]
        assert rows.apply(whole[at : at + size]) == []
        at += size
        ended = sum(key == CLOSED_KEY for _, key, _ in whole[:at])
        if rows.current is not None:
            assert same(rows.current.over(row_of, 6), expected[rows.current.closed.epoch])
            assert before <= rows.current.closed.epoch <= ended
            before = rows.current.closed.epoch
    assert rows.current is not None
    assert (rows.current.closed.epoch, rows.offset, rows.whole) == (epochs, len(whole) - 1, True)


@settings(deadline=None)
@given(st.integers(0, 2**32 - 1), st.integers(1, 6), st.integers(0, 2**32 - 1))
def test_whatever_compaction_removed_the_last_epoch_is_whole(seed: int, epochs: int, drawn: int) -> None:
    made = history(seed, epochs)
    whole = written(made)
    last = {key: offset for offset, key, _ in whole}
    draw = np.random.default_rng(drawn)
    left = [one for one in whole if last[one[1]] == one[0] or draw.random() < 0.5]
    rows = EpochRows()
    assert rows.apply(left, close=False) == []
    before = rows.current
    assert before is None
    assert rows.end() == []
    assert rows.current is not None
    assert same(rows.current.over(row_of, 6), closed_epoch(made[-1][1], made[-1][2]).over(row_of, 6))
    assert rows.end() == [], "again: nothing is refused"


BAD = row("b", {"a": 1})


@pytest.mark.parametrize(
    ("key", "value", "reason"),
    [
        (row_key("b"), b"{", "malformed_json"),
        (row_key("c"), encode_row(BAD), "key_mismatch"),
        (row_key("b"), encode_row(BAD).replace(b'"touched":2', b'"touched":-2'), "out_of_range"),
        (row_key("b"), encode_row(BAD).replace(b'"count":2', b'"count":' + b"9" * 400), "out_of_range"),
    ],
)
def test_an_epoch_with_a_row_that_is_not_acceptable_is_not_used(key: bytes, value: bytes, reason: str) -> None:
    rows = EpochRows()
    assert rows.apply(log([row("a")])) == []
    second = closed([row("a"), BAD], 2)
    found = rows.apply([(2, key, value), (3, CLOSED_KEY, encode_closed(second))])
    assert [one.reason for one in found] == [reason, "incomplete"]
    assert (found[0].offset, found[1].offset, found[1].field) == (2, 3, "rows")
    assert rows.current is not None
    assert rows.current.closed.epoch == 1
    third = closed([row("a"), BAD, row("c")], 3)
    found = rows.apply([*log([BAD, row("c")], third, 4)])
    assert found == [], "once the row is there, the next epoch is used"
    assert rows.current.closed.epoch == 3


def test_records_under_other_keys_say_nothing_of_an_epoch() -> None:
    rows = EpochRows()
    found = rows.apply([(0, b"x", b"{}"), (1, None, b"{}"), (2, b"i:", b"{}"), *log([row("a")], start=3)])
    assert [one.reason for one in found] == ["bad_key", "null_key", "bad_key"]
    assert rows.current is not None


@pytest.mark.parametrize("value", [None, b"{}", encode_closed(closed([])).replace(b'"back":0.5', b'"back":0.3')])
def test_a_closing_record_that_is_not_acceptable_closes_nothing(value: bytes | None) -> None:
    rows = EpochRows()
    rows.apply(log([row("a")]))
    assert len(rows.apply([(2, row_key("b"), encode_row(row("b"))), (3, CLOSED_KEY, value)])) == 1
    assert not rows.whole
    assert rows.current is not None
    assert rows.current.closed.epoch == 1


def test_an_epoch_whose_rows_are_not_all_there_is_not_used() -> None:
    rows = EpochRows()
    end = closed([row("a"), row("b")])
    (refused,) = rows.apply(log([row("a")], end))
    assert refused.message == "epoch 1 is not used: 1 rows, expected 2; 0 records are not acceptable"
    assert rows.current is None


@pytest.mark.parametrize("number", [1, 4, 5])
def test_an_epoch_that_is_not_newer_is_not_used(number: int) -> None:
    rows = EpochRows()
    assert rows.apply(log([row("a")], closed([row("a")], 5))) == []
    (refused,) = rows.apply(log([row("a", count=7)], closed([row("a", count=7)], number), 2))
    assert (refused.reason, refused.field) == ("not_newer", "epoch")
    assert rows.current is not None
    assert (rows.current.closed.epoch, rows.current.offset) == (5, 1)


@pytest.mark.parametrize("values", [{"shrink": 1e-30}, {"popular": 10**46}])
def test_an_epoch_with_numbers_beyond_float32_is_not_used(values: dict[str, Any]) -> None:
    popular = values.pop("popular", 1)
    rows, made = EpochRows(), [TableRow("a", 1, 0, popular, 1, (("b", 10**20),)), TableRow("b", 1, 0, 1, 1, ())]
    (refused,) = rows.apply(log(made, closed(made, **values)))
    assert (refused.reason, refused.field, rows.current) == ("out_of_range", "near", None)


def tabled_bundle() -> Any:
    size = len(TRAINED) + 1
    near = np.zeros((size, 2), np.int32)
    tables = ScoreTables(0, near, np.zeros((size, 2), np.float32), np.arange(size, dtype=np.float32))
    return replace(bundle(), tables=tables)


def live_epoch(number: int = 1) -> EpochTables:
    rows = [
        row("new-1", {TRAINED[0]: 4, "new-2": 2}),
        row("new-2", {"new-1": 1}),
        row(TRAINED[0], {"new-2": 5}),
    ]
    return closed_epoch(rows, closed(rows, number))


def fits(catalogue: Catalogue, epoch: EpochTables) -> bool:
    """Whether the snapshot has the tables of the epoch over its own rows."""
    snapshot = catalogue.snapshot
    return same(snapshot.tables, epoch.over(snapshot.row, len(snapshot.bias)))


def test_snapshots_have_the_bundles_own_tables_until_there_is_an_epoch() -> None:
    made = tabled_bundle()
    catalogue = Catalogue(made, Tower())
    assert catalogue.snapshot.tables is made.tables
    catalogue.apply(records(message("new-1"), message("new-2")))
    assert catalogue.snapshot.tables is made.tables
    assert not epoch_of(catalogue.snapshot)
    before, epoch = catalogue.snapshot, live_epoch(7)
    catalogue.use(epoch)
    assert before.tables is made.tables, "a snapshot never changes"
    assert fits(catalogue, epoch)
    assert epoch_of(catalogue.snapshot) == 7
    assert catalogue.snapshot.offset == before.offset


def test_an_item_that_came_after_training_has_neighbours_once_it_is_in_the_catalogue() -> None:
    catalogue, epoch = Catalogue(tabled_bundle(), Tower()), live_epoch()
    catalogue.use(epoch)
    tables = catalogue.snapshot.tables
    assert tables is not None
    assert not tables.near.any(), "none of the others is known yet"
    catalogue.apply(records(message("new-1"), message("new-2", "another")))
    snapshot = catalogue.snapshot
    tables = snapshot.tables
    assert tables is not None
    new = snapshot.row("new-1"), snapshot.row("new-2")
    assert set(pairs_of(tables.near, tables.weight)[new[0]]) == {new[1], snapshot.row(TRAINED[0])}
    assert fits(catalogue, epoch)
    kept = tables
    catalogue.apply(records(message(TRAINED[0], available=False), start=2))
    assert catalogue.snapshot.tables is kept, "no row has moved"
    catalogue.apply(records(message("new-1", "another text"), start=3))
    assert fits(catalogue, epoch), "a new text has a new row"
    catalogue.apply(records((b"new-2", None), start=4))
    assert fits(catalogue, epoch), "it is gone"
    catalogue.apply(records(*(message(f"more-{at}", f"text {at}") for at in range(200)), start=5))
    catalogue.apply(records(*(message(f"yet-{at}", f"more text {at}") for at in range(200)), start=205))
    assert fits(catalogue, epoch), "the matrix was copied, and rows have moved"
    second = live_epoch(2)
    catalogue.use(second)
    assert fits(catalogue, second)


def test_a_bundle_whose_graph_has_its_tables_inside_takes_no_epoch() -> None:
    catalogue = Catalogue(bundle(), Tower())
    catalogue.use(live_epoch())
    assert catalogue.snapshot.tables is None
    assert not epoch_of(catalogue.snapshot)
