"""The header `original-record`: which values count, what they make of an event's identity, and that hostile ones harm nobody."""

from __future__ import annotations

import json
from typing import NamedTuple

import pytest
from aiokafka.partitioner import murmur2 as kafka_hash
from hypothesis import given
from hypothesis import strategies as st

from deploy.clients.murmur2 import murmur2
from stream.core import state as state_module
from stream.core.decoder import EventDecoder
from stream.core.errors import RecordError
from stream.core.messages import CLICK, SourceEvent
from stream.core.origin import MAX_ORIGIN, ORIGINAL_RECORD_HEADER, Headers, origin
from stream.pipeline.dead_letter import MAX_HEADERS, DeadLetters

TOPICS = ("p-clicks", "p-ratings", "p-comments")
DECODER = EventDecoder(kafka_hash, 4, (0.5, 5.0), TOPICS)
LETTERS = DeadLetters("00")


class Received(NamedTuple):
    offset: int
    timestamp: int
    key: bytes | None
    value: bytes | None
    headers: Headers


def event(offset: int, headers: Headers, user: str = "alice", **fields: str) -> SourceEvent:
    value = json.dumps({"user": user, "item": "i1", "time": 5} | fields).encode()
    key = user.encode()
    return DECODER.decode(CLICK, murmur2(key) % 4, offset, 1000, key, value, headers)


@pytest.mark.parametrize(
    "value", ["p-clicks/0/5", "p-ratings/3/0", "p-comments/2147483647/9223372036854775807", "p-clicks/9999999999/0"]
)
def test_a_place_counts(value: str) -> None:
    assert origin([("x", b"p-clicks/0/1"), (ORIGINAL_RECORD_HEADER, value.encode())], TOPICS) == value
    assert len(value) < MAX_ORIGIN


@pytest.mark.parametrize(
    "value",
    [
        None, b"", b"p-clicks", b"p-clicks/0", b"p-clicks/0/5/6", b"p-clicks/0/05", b"p-clicks/00/5", b"p-clicks/-1/5",
        b"p-clicks/0/+5", b"p-clicks/0/5 ", b" p-clicks/0/5", b"p-clicks/0/5\n", b"p-clicks/0/5\x00", b"p-clicks/0/",
        b"clicks/0/5", b"p-dead-letters/0/5", b"P-CLICKS/0/5", b"p-clicks/0/1e3", b"p-clicks/0x1/5",
        "p-clicks/0/\u0665".encode(), b"p-clicks/\xff/5", b"p-clicks/0/99999999999999999999", b"p-clicks/0/5" * 100_000,
    ],
)  # fmt: skip
def test_anything_else_counts_for_nothing(value: bytes | None) -> None:
    assert origin([(ORIGINAL_RECORD_HEADER, value)], TOPICS) == ""
    plain = event(9, [(ORIGINAL_RECORD_HEADER, value)])
    assert plain.id == ""
    assert state_module.event_id(plain, TOPICS[0]) == b"p-clicks/%d/9" % plain.partition


def test_only_the_first_of_several_counts() -> None:
    assert (
        origin([(ORIGINAL_RECORD_HEADER, b"p-clicks/0/5"), (ORIGINAL_RECORD_HEADER, b"p-clicks/0/6")], TOPICS)
        == "p-clicks/0/5"
    )
    assert origin([(ORIGINAL_RECORD_HEADER, b"?"), (ORIGINAL_RECORD_HEADER, b"p-clicks/0/6")], TOPICS) == ""


def test_the_id_of_the_body_comes_first() -> None:
    headers = [(ORIGINAL_RECORD_HEADER, b"p-clicks/0/5")]
    assert state_module.event_id(event(9, headers, id="mine"), TOPICS[0]) == b"mine"
    assert state_module.event_id(event(9, headers, id=""), TOPICS[0]) == b"p-clicks/0/5"
    assert state_module.event_id(event(9, headers), TOPICS[0]) == b"p-clicks/0/5"


HEADERS = st.lists(
    st.tuples(
        st.one_of(st.just(ORIGINAL_RECORD_HEADER), st.text(max_size=12)),
        st.one_of(
            st.none(),
            st.binary(max_size=40),
            st.builds("{}/{}/{}".format, st.sampled_from([*TOPICS, "x"]), st.integers(-2, 9), st.integers(-2, 9)).map(str.encode),
        ),
    ),
    max_size=6,
)  # fmt: skip


@given(HEADERS, HEADERS)
def test_no_header_makes_an_event_a_duplicate_of_another_users(ours: Headers, theirs: Headers) -> None:
    """Whatever headers two users' records carry, each user's first event is new, and counts in nobody else's state."""
    for headers, user in ((ours, "alice"), (theirs, "mallory")):
        first = event(9, headers, user)
        state = state_module.new(b"m" * 16, 4)
        assert not state_module.is_duplicate(state, first)
        state_module.fold(state, first, TOPICS[0])
        assert state.seq == 1
        later = event(10, headers, user)  # the same headers again: a duplicate exactly where they name a place
        assert state_module.is_duplicate(state, later) == bool(origin(headers, TOPICS))
        assert not state_module.is_duplicate(state, event(11, (), user))


@given(HEADERS)
def test_a_letter_keeps_the_origin_that_its_record_named(headers: Headers) -> None:
    """However often a record fails: the first `original-record` header is what the letter, and so the next round, goes by."""
    received = Received(7, 1000, b"alice", b"{", headers)
    letter = LETTERS.letter("p-clicks", 2, received, RecordError("decode", "malformed_json", "", "no"))
    kept = [(name, value) for name, value in letter.headers if not name.startswith("__rec.errors.")]
    assert origin(kept, TOPICS) == origin(headers, TOPICS)


@pytest.mark.parametrize("before", [True, False])
def test_large_headers_do_not_push_the_origin_out(before: bool) -> None:
    large = [(f"h{number}", b"x" * 1000) for number in range(100)]
    named = [(ORIGINAL_RECORD_HEADER, b"p-clicks/0/5")]
    received = Received(7, 1000, b"alice", b"{", named + large if before else large + named)
    letter = LETTERS.letter("p-clicks", 2, received, RecordError("decode", "malformed_json", "", "no"))
    kept = [(name, value) for name, value in letter.headers if not name.startswith("__rec.errors.")]
    assert origin(kept, TOPICS) == "p-clicks/0/5"
    assert sum(len(name) + len(value) for name, value in kept) <= MAX_HEADERS + MAX_ORIGIN


def test_an_oversized_first_header_is_not_replaced_by_a_second() -> None:
    headers = [(ORIGINAL_RECORD_HEADER, b"x" * (MAX_ORIGIN + 1)), (ORIGINAL_RECORD_HEADER, b"p-clicks/0/5")]
    letter = LETTERS.letter(
        "p-clicks", 2, Received(7, 1000, None, b"{", headers), RecordError("key", "null_key", "user", "no")
    )
    assert origin(headers, TOPICS) == origin(letter.headers, TOPICS) == ""


def test_many_headers_take_linear_time() -> None:
    headers = [("a", b"")] * 200_000 + [(ORIGINAL_RECORD_HEADER, b"?")] * 200_000
    letter = LETTERS.letter(
        "p-clicks", 2, Received(7, 1000, None, b"{", headers), RecordError("key", "null_key", "user", "no")
    )
    assert sum(name == ORIGINAL_RECORD_HEADER for name, _ in letter.headers) == 1
    assert event(9, headers).id == ""
