"""The records of the topic `bundles`, and what they add up to."""

from __future__ import annotations

import json
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from stream.core.bundle_log import (
    CURRENT,
    FENCED,
    MAX_REASON,
    Activate,
    Activation,
    BundleLog,
    Loaded,
    Record,
    Refused,
    Switched,
    decode,
    encode,
    key_of,
    sentence,
)
from stream.core.errors import RecordError

A, B, C = "a" * 64, "b" * 64, "c" * 64
ANN, BEN = "1" * 32, "2" * 32


def activate(bundle: str = A, **more: Any) -> Activate:
    return Activate(bundle, 5, **more)


def switched(bundle: str = A, partition: int = 0, slates: int = 0, **more: Any) -> Switched:
    fields: dict[str, Any] = {"activation": 0, "worker": ANN, "epoch": 1, "time": 6} | more
    return Switched(**fields, bundle=bundle, partition=partition, slates=slates)


def loaded(worker: str = ANN, **more: Any) -> Loaded:
    fields: dict[str, Any] = {"activation": 0, "bundle": A, "process": "worker", "time": 6, "seconds": 1.5}
    return Loaded(**fields | more, worker=worker)


def refused(worker: str = ANN, **more: Any) -> Refused:
    fields: dict[str, Any] = {"activation": 0, "bundle": A, "process": "gateway", "time": 6, "reason": "no"}
    return Refused(**fields | more, worker=worker)


def written(*records: Record, first: int = 0) -> list[tuple[int, bytes | None, bytes | None]]:
    return [(first + at, key_of(record), encode(record)) for at, record in enumerate(records)]


def log_of(*records: Record) -> BundleLog:
    log = BundleLog()
    assert log.apply(written(*records)) == []
    return log


@pytest.mark.parametrize(
    "record", [activate(), activate(reason="ä"), loaded(), refused(), switched(activation=CURRENT)]
)
def test_records_come_back_as_they_were_written(record: Record) -> None:
    assert decode(key_of(record), encode(record)) == record
    fields = json.loads(encode(record))
    assert fields["kind"] == type(record).__name__.lower()
    assert decode(key_of(record), json.dumps(fields | {"more": [1], "time": float(fields["time"])}).encode()) == record


@pytest.mark.parametrize(
    ("key", "value", "reason", "field"),
    [
        (b"activate", None, "null_value", ""),
        (b"activate", b"", "empty_value", ""),
        (b"activate", b"\xff", "not_utf8", ""),
        (b"activate", b"{", "malformed_json", ""),
        (b"activate", b"[]", "wrong_type", ""),
        (b"activate", b"{}", "missing_field", "kind"),
        (b"activate", b'{"kind": 1}', "wrong_type", "kind"),
        (b"activate", b'{"kind": "stop"}', "out_of_range", "kind"),
        (b"activate", b'{"kind": "activate"}', "missing_field", "bundle"),
        (b"activate", encode(activate(A[1:])), "out_of_range", "bundle"),
        (b"activate", encode(activate(A.upper())), "out_of_range", "bundle"),
        (b"activate", encode(Activate(A, -1)), "out_of_range", "time"),
        (b"activate", encode(activate(reason="x" * (MAX_REASON + 1))), "too_large", "reason"),
        (None, encode(activate()), "null_key", "kind"),
        (ANN.encode(), encode(activate()), "key_mismatch", "kind"),
        (b"activate", encode(loaded()), "key_mismatch", "kind"),
        (BEN.encode(), encode(switched()), "key_mismatch", "kind"),
        (ANN.encode(), encode(loaded(process="tally")), "out_of_range", "process"),
        (ANN.encode(), encode(loaded(activation=-1)), "out_of_range", "activation"),
        (ANN.encode(), encode(switched(activation=-2)), "out_of_range", "activation"),
        (ANN.encode(), encode(switched(slates=-1)), "out_of_range", "slates"),
        (b"x", encode(loaded("x")), "out_of_range", "worker"),
    ],
)
def test_a_record_that_is_wrong_names_its_field(
    key: bytes | None, value: bytes | None, reason: str, field: str
) -> None:
    with pytest.raises(RecordError) as error:
        decode(key, value)
    assert (error.value.reason, error.value.field) == (reason, field)
    log = BundleLog()
    assert [(one.offset, one.reason, one.field) for one in log.apply([(7, key, value)])] == [(7, reason, field)]
    assert (log.offset, log.newest) == (7, None)


def test_what_an_id_must_be_is_said() -> None:
    for key, record, words in (
        (b"activate", activate("../../etc"), "expected 64 hex digits"),
        (b"x", loaded("x"), "expected 32 hex digits"),
    ):
        with pytest.raises(RecordError, match=words):
            decode(key, encode(record))


def test_a_reason_becomes_one_short_line() -> None:
    assert sentence(" a\n b\tc ") == "a b c"
    assert len(sentence("x" * 5000)) == MAX_REASON


def test_a_process_that_starts_tries_the_newest_activation_of_each_bundle() -> None:
    assert BundleLog().candidates() == []
    log = log_of(activate(A), loaded(), activate(B), activate(A, reason="back"), activate(C))
    assert [(one.number, one.bundle) for one in log.candidates()] == [(4, C), (3, A), (2, B)]
    assert log.newest == Activation(4, C, 5)
    assert log.activations[2].reason == "back"


def test_of_each_process_the_last_report_stands() -> None:
    log = log_of(loaded(ANN), refused(BEN), refused(ANN, activation=1))
    assert log.reports == {ANN: (2, refused(ANN, activation=1)), BEN: (1, refused(BEN))}


def test_a_slate_falls_under_the_last_switch_before_it() -> None:
    log = log_of(switched(A, slates=3), switched(B, slates=9), switched(C, partition=1, slates=4))
    made = log.partitions[0]
    assert [one and one.bundle for one in map(made.at, (0, 2, 3, 8, 9, 99))] == [None, None, A, A, B, B]
    assert log.last(1) == switched(C, partition=1, slates=4)
    assert log.last(2) is None


def test_a_switch_that_made_no_slate_is_dropped() -> None:
    log = log_of(switched(A, slates=3), switched(B, slates=9), switched(A, slates=9), switched(C, slates=9))
    assert [(one.bundle, one.slates) for one in log.partitions[0].records] == [(A, 3), (C, 9)]


def test_the_first_switch_has_what_was_served_before_it() -> None:
    """An owner writes both at once: no slate lies between them, and what counts is the second."""
    log = log_of(activate(B), switched(A, slates=9, activation=CURRENT), switched(B, slates=9))
    assert log.last(0) == switched(B, slates=9)
    assert log.partitions[0].at(8) is None
    assert not log.must_switch(0, Activation(0, B))


def test_a_switch_of_a_worker_that_lost_the_partition_does_not_count() -> None:
    log = log_of(switched(A, epoch=4), switched(B, partition=1, epoch=2))
    (one,) = log.apply(written(switched(C, slates=5, epoch=3), first=2))
    assert (one.offset, one.reason, one.field) == (2, FENCED, "epoch")
    assert log.last(0) == switched(A, epoch=4)
    assert log.apply(written(switched(C, slates=5, epoch=4), first=3)) == []


@pytest.mark.parametrize(
    ("last", "serving", "must"),
    [
        (None, Activation(CURRENT, A), False),
        (None, Activation(0, A), True),
        (switched(A), Activation(0, A), False),
        (switched(A), Activation(0, B), True),
        (switched(A), Activation(3, A), True),  # activated again
        (switched(A), Activation(CURRENT, A), True),
        (switched(A, activation=CURRENT), Activation(CURRENT, A), False),
    ],
)
def test_an_owner_says_what_it_serves_unless_the_last_switch_says_so(
    last: Switched | None, serving: Activation, must: bool
) -> None:
    log = log_of(*(() if last is None else (last,)))
    assert log.must_switch(0, serving) is must


RECORDS = st.lists(
    st.one_of(
        st.builds(activate, st.sampled_from((A, B, C))),
        st.builds(loaded, st.sampled_from((ANN, BEN)), activation=st.integers(0, 9)),
        st.builds(refused, st.sampled_from((ANN, BEN)), activation=st.integers(0, 9)),
        st.builds(
            switched, st.sampled_from((A, B, C)), st.integers(0, 2), st.integers(0, 20), epoch=st.integers(0, 3),
            activation=st.integers(-1, 9),
        ),
    ),
    max_size=30,
)  # fmt: skip


@given(RECORDS, st.integers(0, 30))
def test_the_fold_is_what_the_records_say_however_they_are_cut(records: list[Record], cut: int) -> None:
    rows = written(*records)
    log, other = BundleLog(), BundleLog()
    log.apply(rows)
    other.apply(rows[:cut])
    other.apply(rows[cut:])
    assert log == other
    epochs: dict[int, int] = {}
    counted = []
    for record in records:
        if isinstance(record, Switched) and record.epoch >= epochs.get(record.partition, 0):
            epochs[record.partition] = record.epoch
            counted.append(record)
    for partition in range(3):
        for offset in range(22):
            under = [one for one in counted if one.partition == partition and one.slates <= offset]
            found = log.partitions[partition].at(offset) if partition in log.partitions else None
            assert found == (under[-1] if under else None)
    assert log.newest == next(iter(log.candidates()), None)
    assert len({one.bundle for one in log.candidates()}) == len(log.candidates())


@given(st.binary(max_size=40) | st.builds(encode, st.builds(activate)), st.binary(max_size=40) | st.just(b"activate"))
def test_any_bytes_are_a_record_or_a_record_error(key: bytes, value: bytes) -> None:
    try:
        record = decode(value, key)
    except RecordError:
        return
    assert msgspec.json.decode(encode(record))
