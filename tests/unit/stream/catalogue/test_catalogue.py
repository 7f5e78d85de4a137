"""The catalogue against a plain dictionary: what is live, which vectors it has, and that a snapshot never changes."""

from __future__ import annotations

import json
import threading
from hashlib import sha256
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from stream.catalogue.catalogue import Catalogue, Snapshot, Vectors
from stream.core.features import InputSpec, item_text
from stream.core.filters import parse
from stream.core.state import item_hash
from stream.inference.bundle import BlendEntry, Bundle, Card

WIDTH = 16
TRAINED = ("t1", "t2", "t3", "plumless")
COLLIDING = "buckeroo"  # the same crc32 as plumless


def vector_of(text: str) -> Vectors:
    """Any vector that depends on the text alone."""
    return np.random.default_rng(int.from_bytes(sha256(text.encode()).digest()[:8], "big")).random(WIDTH, np.float32)


class Tower:
    """Counts what it was asked to encode."""

    def __init__(self) -> None:
        self.texts: list[str] = []

    def __call__(self, texts: list[str]) -> Vectors:
        self.texts += texts
        return np.stack([vector_of(text) if text != "bad" else np.full(WIDTH, np.nan, np.float32) for text in texts])


def bundle(ids: tuple[str, ...] = TRAINED) -> Bundle:
    rows = np.random.default_rng(1).random((len(ids) + 1, WIDTH), np.float32)
    rows.flags.writeable = False
    return Bundle(
        "0" * 64, Path(), bytes(16), InputSpec((0, 1), (), 8), WIDTH, 16, 8, 64, ids, rows,
        np.zeros(len(ids) + 1, np.float32), {}, {}, BlendEntry(0, 1.0, 0.0, 0.0, 1.0, 0),
        Card("", {}, 0, 0, 0.0, (), {}), {}, {},
    )  # fmt: skip


def message(item: str, title: str = "a title", **more: Any) -> tuple[bytes, bytes]:
    return item.encode(), json.dumps({"item": item, "title": title, **more}).encode()


def records(*pairs: tuple[bytes | None, bytes | None], start: int = 0) -> list[tuple[int, bytes | None, bytes | None]]:
    return [(start + index, key, value) for index, (key, value) in enumerate(pairs)]


def where(snapshot: Snapshot, **filtered: Any) -> set[str]:
    """The items for which a filter holds."""
    return {snapshot.item(int(row)) for row in np.flatnonzero(snapshot.columns.mask(parse(filtered))) if row}


def live(snapshot: Snapshot) -> set[str]:
    return {snapshot.item(int(row)) for row in np.flatnonzero(snapshot.bias == 0)}


def hashes(*items: str) -> Any:
    return np.array(sorted(map(item_hash, items)), np.uint32)


def test_before_any_record_nothing_is_live_and_trained_items_are_known() -> None:
    made = bundle()
    snapshot = Catalogue(made, Tower()).snapshot
    assert (snapshot.offset, snapshot.live, snapshot.known) == (-1, 0, 4)
    assert [snapshot.row(item) for item in ("t1", "t3", "nobody", "")] == [1, 3, 0, 0]
    assert np.array_equal(snapshot.items, made.items)


def test_trained_items_keep_their_vectors_and_are_never_encoded() -> None:
    tower = Tower()
    catalogue = Catalogue(bundle(), tower)
    assert catalogue.apply(records(message("t1"), message("t2", "another", text="long"))) == []
    assert live(catalogue.snapshot) == {"t1", "t2"}
    assert tower.texts == []
    assert np.array_equal(catalogue.snapshot.items, bundle().items)


def test_a_new_item_gets_the_vector_of_its_text_and_goes_with_its_tombstone() -> None:
    tower = Tower()
    catalogue = Catalogue(bundle(), tower)
    catalogue.apply(records(message("n1", "Title", text="body", categories=["a", "b"])))
    shown = catalogue.snapshot
    assert shown.row("n1") == 5
    assert shown.item(5) == "n1"
    assert np.array_equal(shown.items[5], vector_of(item_text("Title", "body", ["a", "b"])))
    catalogue.apply(records((b"n1", None), start=1))
    assert catalogue.snapshot.row("n1") == 0
    assert live(catalogue.snapshot) == set()
    assert live(shown) == {"n1"}, "a snapshot does not change"
    assert shown.row("n1") == 5


def test_unavailable_items_are_inputs_but_never_live() -> None:
    catalogue = Catalogue(bundle(), Tower())
    catalogue.apply(records(message("n1", available=False), message("t1", available=False), message("t2")))
    assert live(catalogue.snapshot) == {"t2"}
    assert catalogue.snapshot.row("n1") == 5
    catalogue.apply(records(message("n1"), start=3))
    assert live(catalogue.snapshot) == {"t2", "n1"}
    assert catalogue.snapshot.row("n1") == 5


def test_only_a_changed_text_is_encoded_again_and_moves_to_another_row() -> None:
    tower = Tower()
    catalogue = Catalogue(bundle(), tower)
    catalogue.apply(records(message("n1", "one"), message("n2", "one"), message("n3", "one")))
    assert tower.texts == ["one"]
    catalogue.apply(records(message("n1", "one", scenes=["x"]), message("n2", "two"), start=3))
    assert tower.texts == ["one", "two"]
    assert live(catalogue.snapshot) == {"n1", "n2", "n3"}
    assert np.array_equal(catalogue.snapshot.items[catalogue.snapshot.row("n2")], vector_of("two"))


def test_the_last_record_of_a_batch_counts() -> None:
    tower = Tower()
    catalogue = Catalogue(bundle(), tower)
    catalogue.apply(records(message("n1", "one"), (b"n1", None), message("n1", "two"), (b"t1", None), message("t1")))
    assert tower.texts == ["two"]
    assert live(catalogue.snapshot) == {"n1", "t1"}
    assert catalogue.snapshot.offset == 4


@pytest.mark.parametrize(
    ("key", "value", "stage", "reason"),
    [
        (None, message("x")[1], "key", "null_key"),
        (b"", None, "key", "bad_key"),
        (b"\xff", message("x")[1], "key", "bad_key"),
        (b"y", message("x")[1], "key", "key_mismatch"),
        (b"x", b"", "decode", "empty_value"),
        (b"x", b"{", "decode", "malformed_json"),
        (b"x", b"\xff", "decode", "not_utf8"),
        (b"x", b'{"item": "x"}', "validate", "missing_field"),
        (b"x", b'{"item": "x", "title": 3}', "validate", "wrong_type"),
        (*message("x", "bad"), "catalogue", "out_of_range"),
    ],
)
def test_bad_records_are_returned_and_change_nothing(key: Any, value: Any, stage: str, reason: str) -> None:
    catalogue = Catalogue(bundle(), Tower())
    (rejected,) = catalogue.apply(records(message("n1"), (key, value), message("t1")))
    assert (rejected.offset, rejected.key, rejected.value) == (1, key, value)
    assert (rejected.error.stage, rejected.error.reason) == (stage, reason)
    assert live(catalogue.snapshot) == {"n1", "t1"}
    assert catalogue.snapshot.offset == 2


def test_hidden_rows_are_those_of_live_items_with_that_hash() -> None:
    catalogue = Catalogue(bundle(), Tower())
    names = ("t1", "t2", "n1", "plumless", COLLIDING)
    catalogue.apply(records(*map(message, names), message("t3", available=False)))
    snapshot = catalogue.snapshot
    assert item_hash(COLLIDING) == item_hash("plumless")

    def found(*items: str) -> list[str]:
        return sorted(snapshot.item(int(row)) for row in snapshot.hidden_rows(hashes(*items))[1])

    assert found("t1", "n1", "nobody", "t3") == ["n1", "t1"]
    assert found("plumless", "t2") == [COLLIDING, "plumless", "t2"]
    assert found("nobody") == []
    assert found() == []


ITEMS = (*TRAINED[:3], "n1", "n2", "n3", COLLIDING, "plumless")
step = st.tuples(
    st.sampled_from(ITEMS),
    st.sampled_from(("alpha", "beta", "gamma")),
    st.sampled_from(("live", "unavailable", "tombstone", "garbage")),
)


@settings(max_examples=150, deadline=None)
@given(st.lists(st.lists(step, min_size=1, max_size=6), max_size=12))
def test_any_history_gives_what_a_dictionary_gives(batches: list[list[tuple[str, str, str]]]) -> None:
    made = bundle()
    catalogue = Catalogue(made, Tower())
    known: dict[str, tuple[str, bool]] = {}
    kept: list[tuple[Snapshot, Any, Any, dict[str, int]]] = []
    offset = 0
    for batch in batches:
        sent: list[tuple[int, bytes, bytes | None]] = []
        for item, text, kind in batch:
            key, value = message(item, text, available=kind == "live")
            if kind == "tombstone":
                known.pop(item, None)
                sent.append((offset, key, None))
            elif kind == "garbage":
                sent.append((offset, key, value[:-1]))
            else:
                known[item] = (text, kind == "live")
                sent.append((offset, key, value))
            offset += 1
        assert len(catalogue.apply(sent)) == sum(kind == "garbage" for _, _, kind in batch)
        snapshot = catalogue.snapshot
        expected = {item for item, (_, shown) in known.items() if shown}
        assert live(snapshot) == expected
        assert snapshot.live == len(expected)
        assert snapshot.offset == offset - 1
        for item in ITEMS:
            row = snapshot.row(item)
            if item in made.item_ids:
                assert row == made.item_ids.index(item) + 1
                assert np.array_equal(snapshot.items[row], made.items[row])
            elif item in known:
                assert snapshot.item(row) == item
                assert np.array_equal(snapshot.items[row], vector_of(known[item][0]))
            else:
                assert row == 0
            wanted = {other for other in expected if item_hash(other) == item_hash(item)}
            assert {snapshot.item(int(row)) for row in snapshot.hidden_rows(hashes(item))[1]} == wanted
        rows = {item: snapshot.row(item) for item in ITEMS}
        kept.append((snapshot, snapshot.items.copy(), snapshot.bias.copy(), rows))
    for snapshot, items, bias, rows in kept:
        assert np.array_equal(snapshot.items, items)
        assert np.array_equal(snapshot.bias, bias)
        assert {item: snapshot.row(item) for item in ITEMS} == rows


def test_retired_rows_are_reclaimed() -> None:
    catalogue = Catalogue(bundle(), Tower())
    for batch in range(2_000):
        catalogue.apply(records(message("n1", f"text {batch}"), message("n2", "same"), start=2 * batch))
    snapshot = catalogue.snapshot
    assert len(snapshot.items) < 200
    assert live(snapshot) == {"n1", "n2"}
    assert np.array_equal(snapshot.items[snapshot.row("n1")], vector_of("text 1999"))
    assert snapshot.hidden_rows(hashes("n1", "n2"))[1].tolist() == sorted(
        (snapshot.row("n1"), snapshot.row("n2")), key=lambda row: item_hash(snapshot.item(row))
    )


def test_readers_in_another_thread_never_see_half_a_change() -> None:
    catalogue = Catalogue(bundle(), Tower())
    stop = threading.Event()
    wrong: list[str] = []

    def read() -> None:
        while not stop.is_set():
            snapshot = catalogue.snapshot
            row = snapshot.row("n1")
            if row and (snapshot.item(row) != "n1" or snapshot.bias[row] != 0):
                wrong.append(f"row {row} of {len(snapshot.items)}")
            if snapshot.live != (snapshot.bias == 0).sum() or len(snapshot.items) != len(snapshot.bias):
                wrong.append("counts")
            if row and not any(np.array_equal(snapshot.items[row], vector) for vector in vectors):
                wrong.append("torn vector")

    vectors = [vector_of(f"text {batch}") for batch in range(5)]
    reader = threading.Thread(target=read)
    reader.start()
    try:
        for batch in range(1_500):
            catalogue.apply(
                records(message("n1", f"text {batch % 5}"), message(f"other {batch % 90}"), start=2 * batch)
            )
    finally:
        stop.set()
        reader.join()
    assert wrong == []


def test_filters_see_items_as_they_are_at_their_snapshot() -> None:
    catalogue = Catalogue(bundle(), Tower())
    catalogue.apply(records(message("t1", categories=["x"], attributes={"price": 3}), message("new", scenes=["cart"])))
    before = catalogue.snapshot
    assert where(before, category="x") == where(before, price={"ge": 3}) == {"t1"}
    assert where(before, scene="cart") == {*TRAINED, "new"}
    assert where(before, scene="home") == set(TRAINED)
    assert where(before, available=True) == {"t1", "new"}
    for start in range(2, 200):  # more rows than fit, so the matrix is copied and rows move
        catalogue.apply(records(message(f"n{start}", f"title {start}", attributes={"price": start}), start=start))
    catalogue.apply(records(message("new", "other", categories=["x"]), (b"t1", None), start=300))
    after = catalogue.snapshot
    assert where(after, category="x", available=True) == {"new"}
    assert where(after, price={"lt": 5}, available=True) == {"n2", "n3", "n4"}
    assert where(after, item=["n7", "t2", "nobody"]) == {"n7", "t2"}
    assert where(before, category="x") == {"t1"}


def test_categories_follow_their_items_and_a_snapshot_keeps_its_own() -> None:
    catalogue = Catalogue(bundle(), Tower())

    def found(snapshot: Snapshot, item: str) -> set[int]:
        return set(snapshot.categories[snapshot.row(item)].tolist()) - {0}

    catalogue.apply(records(message("t1", categories=["a", "b", "a"]), message("t2", categories=["b"]), message("t3")))
    first = catalogue.snapshot
    assert len(first.categories) == len(first.items)
    assert (len(found(first, "t1")), found(first, "t3")) == (2, set())
    assert found(first, "t2") < found(first, "t1")
    catalogue.apply(
        records(message("t1", categories=["c", "d", "e"]), (b"t2", None), message("new", categories=["b"]), start=3)
    )
    second = catalogue.snapshot
    assert len(second.categories) == len(second.items)
    assert (len(found(second, "t1")), found(second, "t2"), found(second, "new")) == (3, set(), found(first, "t2"))
    assert len(found(first, "t1")) == 2
    for number in range(200):  # rows are reclaimed on the way
        catalogue.apply(records(message("new", f"title {number}", categories=["b"]), start=10 + number))
    third = catalogue.snapshot
    assert (found(third, "new"), found(third, "t1")) == (found(first, "t2"), found(second, "t1"))
