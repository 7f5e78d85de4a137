"""What `freshet verify` reads of an epoch is what stream.core.tables says, for any rows: arrays and hash."""

from __future__ import annotations

import json
from typing import Any

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from deploy.verify.recompute.epochs import Epoch, counts_of, follow, tables_of
from stream.catalogue.tables import EpochRows
from stream.core.tables import CLOSED_KEY, TableRow, encode_closed, encode_row, row_key, weights
from tests.epochs import HOUR, closed
from tests.unit.synthetic import Lists

NAMES = ("a", "b", "ü\n", '"c"', "\u2028")
SUMS = st.integers(0, 10**20)
ROWS = st.dictionaries(
    st.sampled_from(NAMES),
    st.tuples(SUMS, SUMS, st.dictionaries(st.sampled_from((*NAMES, "x")), SUMS, max_size=5)),
    max_size=5,
)


def rows_of(made: dict[str, Any]) -> list[TableRow]:
    return [TableRow(item, 1, count, popular, 1, tuple(near.items())) for item, (count, popular, near) in made.items()]


@settings(deadline=None)
@given(
    ROWS, st.integers(1, 6), st.integers(0, 10**8), st.sampled_from([0, HOUR, 7]), st.sampled_from([0.0, 0.5, 7.25]),
    st.lists(st.sampled_from((*NAMES, "x", "y")), unique=True),
)  # fmt: skip
def test_the_arrays_are_those_of_the_reference(
    made: dict[str, Any], keep: int, now: int, half_life: int, shrink: float, known: list[str]
) -> None:
    rows = rows_of(made)
    near, prior = (0, half_life) if half_life == 7 else (half_life, HOUR)
    end = closed(
        rows,
        keep=keep,
        now=min(now, 50 * (half_life or HOUR)),
        near_half_life=near,
        prior_half_life=prior,
        shrink=shrink,
    )
    at = {item: place for place, item in enumerate(known, start=1)}
    expected = weights({one.item: one for one in rows}, end, lambda item: at.get(item, 0), len(known) + 1)
    read = Epoch({one.item: json.loads(encode_row(one)) for one in rows}, json.loads(encode_closed(end)))
    found = tables_of(1, read, lambda item: at.get(item, 0), len(known) + 1)
    assert np.allclose(found.popularity, expected.popularity, rtol=1e-4, atol=1e-4)
    dense = [np.zeros((len(known) + 1,) * 2) for _ in range(2)]
    for into, index, weight in ((dense[0], found.near, found.weight), (dense[1], expected.near, expected.weight)):
        line = np.broadcast_to(np.arange(len(known) + 1)[:, None], index.shape)
        np.add.at(into, (line, index), weight)
    assert np.allclose(dense[0], dense[1], rtol=1e-4)


@settings(deadline=None)
@given(ROWS, st.integers(0, 10**8), st.sampled_from([0, HOUR, 3 * HOUR]), st.sampled_from([0, HOUR, 3 * HOUR]))
def test_counts_and_trend_are_those_that_workers_rank_by(made: dict[str, Any], now: int, near: int, prior: int) -> None:
    rows = rows_of(made)
    end = closed(rows, now=min(now, 50 * HOUR), near_half_life=near, prior_half_life=prior)
    reader = EpochRows()
    records = [(row_key(one.item), encode_row(one)) for one in rows] + [(CLOSED_KEY, encode_closed(end))]
    assert not reader.apply([(offset, *record) for offset, record in enumerate(records)])
    assert reader.current is not None
    at = {item: place for place, item in enumerate(NAMES, start=1)}
    used = reader.current.over(lambda item: at.get(item, 0), len(NAMES) + 1)
    read = Epoch({one.item: json.loads(encode_row(one)) for one in rows}, json.loads(encode_closed(end)))
    counts, trend = (
        counts_of(read, lambda item: at.get(item, 0), len(NAMES) + 1, trending=trending) for trending in (False, True)
    )
    assert used.counts is not None
    assert np.allclose(used.counts, counts, rtol=1e-4)
    assert (used.trend is None) == (not 0 < prior < near)
    expected = counts if used.trend is None else used.trend
    assert np.allclose(expected, trend, rtol=1e-4, atol=1e-6 * max(1.0, float(counts.max())))
    if used.trend is not None:
        assert (used.trend >= 0).all()
        assert used.trend_seconds == HOUR / 1000


@given(ROWS)
def test_an_epoch_is_found_by_its_hash(made: dict[str, Any]) -> None:
    rows = rows_of(made)
    log = Lists(["tables"], 1)
    for one in rows:
        log.append("tables", 0, row_key(one.item), encode_row(one))
    log.append("tables", 0, CLOSED_KEY, encode_closed(closed(rows, 3)))
    found = follow(log, "tables", {3, 4})
    assert (set(found.found), found.newest) == ({3}, 3)
    assert set(found.found[3].rows) == set(made)
    for one in rows[:1]:
        log.append("tables", 0, row_key(one.item), encode_row(TableRow(one.item, 4, one.count + 1, 0, 1, ())))
        log.append("tables", 0, CLOSED_KEY, encode_closed(closed(rows, 4)))
        later = follow(log, "tables", {3, 4})
        assert (set(later.found), later.newest) == ({3}, 4), "the second has other rows than its hash says"


def test_a_record_of_another_form_ends_nothing() -> None:
    log = Lists(["tables"], 1)
    for key in (b"e", b"i:a", b"i:\xff", b"x"):
        for value in (b"x", b"", b"[]", b"[" * 100_000, None):
            log.append("tables", 0, key, value)
    assert follow(log, "tables", {1}).found == {}
