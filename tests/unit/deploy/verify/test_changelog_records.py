"""Changelog records of any content, under a right checksum: `freshet verify` names what is wrong and is never ended by one."""

from __future__ import annotations

import struct
from collections.abc import Callable
from typing import Any
from zlib import crc32

import pytest
from aiokafka.partitioner import murmur2 as kafka_hash
from hypothesis import given, settings
from hypothesis import strategies as st

from deploy.verify import Report, check
from deploy.verify.recent_events import split
from deploy.verify.validator import Accepted
from stream.core import state as state_module
from stream.core.decoder import EventDecoder
from stream.core.errors import StateError
from stream.core.messages import SourceEvent
from tests.unit.synthetic import NOW, PARTITIONS, Row, World, partition_of

ALICE = "alice"
HOME = partition_of(ALICE)
HEADER = struct.Struct("<BBH16sQqqqqq16sHBH")
FIELDS = (
    "format", "zero", "hidden", "model", "seq", "clicks", "ratings", "comments", "catalogue", "last_time", "chain", "folded",
    "recent", "seen",
)  # fmt: skip


def world() -> World:
    """Alice has two states: of two events, of a third one."""
    made = World()
    made.send(0, ALICE, "i1", id="e1")
    made.send(1, ALICE, "i2")
    made.work()
    made.send(2, ALICE, "i3")
    made.work()
    return made


def sealed(body: bytes) -> bytes:
    """With a checksum that is right."""
    return body + crc32(body).to_bytes(4, "little")


def judged(record: bytes) -> Report:
    """Alice's second state is this record in place of the right one."""
    made = world()
    rows = made.log.topics[made.settings.changelog_topic][HOME]
    rows[1] = rows[1]._replace(value=record)
    return check(made.log, made.settings)


def right() -> bytes:
    made = world()
    return made.log.topics[made.settings.changelog_topic][HOME][1].value or b""


def with_fields(**other: object) -> bytes:
    record = right()[:-4]
    fields = dict(zip(FIELDS, HEADER.unpack_from(record), strict=True)) | other
    return sealed(HEADER.pack(*fields.values()) + record[HEADER.size :])


def test_the_record_that_is_changed_below_is_right() -> None:
    assert with_fields() == right()
    assert judged(right()).exit_code == 0


@pytest.mark.parametrize(
    ("record", "says"),
    [
        (
            with_fields(seq=2**63),
            "seq 9223372036854775808, recent events 3, seen items 3; expected at most 9223372036854775807",
        ),
        (with_fields(seq=2**64 - 1), "seq 18446744073709551615"),
        (with_fields(seen=4), "recent event"),
        (with_fields(seen=4096), "bytes, its header says"),
        (with_fields(seen=4097), "seen items 4097; expected at most 9223372036854775807, 64, 4096"),
        (with_fields(hidden=40_000), "bytes, its header says"),
        (with_fields(hidden=15), "recent event"),
        (with_fields(folded=9), "bytes, its header says"),
        (with_fields(recent=65), "recent events 65, seen"),
        (with_fields(recent=2), "recent event"),
        (with_fields(recent=4), "bytes, its header says at least"),
        (with_fields(recent=0), "bytes, its header says exactly"),
        (sealed(right()[:-5]), "seen"),
        (sealed(right()[:-4] + b"?"), "seen"),
        (sealed(right()[: HEADER.size]), "bytes, its header says"),
        (sealed(b""), "cannot be decoded"),
        (b"", "cannot be decoded"),
        (b"\x01", "cannot be decoded"),
    ],
)
def test_a_state_whose_parts_do_not_fit_is_named(record: bytes, says: str) -> None:
    report = judged(record)
    assert report.exit_code == 1
    found = [one for one in report.violations if one.kind == "state" and one.user == ALICE]
    assert [one for one in found if says in one.message], report.violations


@pytest.mark.parametrize("topic", [0, 1, 2])
@pytest.mark.parametrize("offset", [-1, -2, -(2**63), 2**31, 2**63 - 1])
def test_an_offset_that_no_record_has_is_a_phantom(topic: int, offset: int) -> None:
    record = state_module.decode(right())
    record.folded = [(topic, offset)]
    assert "phantom" in judged(state_module.encode(record)).kinds


@pytest.mark.parametrize("topic", [3, 255])
def test_a_topic_that_is_none_is_named(topic: int) -> None:
    record = state_module.decode(right())
    record.folded = [(topic, 0)]
    assert f"`folded` names topic {topic}, which does not exist" in {
        one.message for one in judged(state_module.encode(record)).violations
    }


def test_a_phantom_where_states_are_missing_is_named_too() -> None:
    """What a state took in is looked at also where it is taken as it stands."""
    record = state_module.decode(right())
    record.seq, record.folded = 9, [(0, -7)]
    assert {"gap", "phantom"} <= set(judged(state_module.encode(record)).kinds)


CHANGES: list[tuple[Callable[[bytearray, int, int], None], str]] = [
    (lambda body, at, value: body.__setitem__(at % len(body), value), "a byte is another"),
    (lambda body, at, value: body.__delitem__(at % len(body)), "a byte is gone"),
    (lambda body, at, value: body.insert(at % len(body), value), "a byte more"),
]
EDITS = st.lists(st.tuples(st.sampled_from(CHANGES), st.integers(0, 400), st.integers(0, 255)), min_size=1, max_size=4)


@given(EDITS)
@settings(max_examples=150, deadline=None)
def test_no_record_ends_the_check(
    edits: list[tuple[tuple[Callable[[bytearray, int, int], None], str], int, int]],
) -> None:
    body = bytearray(RIGHT[:-4])
    for (change, _), at, value in edits:
        change(body, at, value)
    judged(sealed(bytes(body)))


WORDS = st.sampled_from([0, 1, 2, 63, 64, 65, 4096, 4097, 65535])
LONGS = st.sampled_from([-(2**63), -2, -1, 0, 1, 2, 2**31, 2**62, 2**63 - 1])
NAMED = st.fixed_dictionaries(
    {},
    optional={
        "hidden": WORDS, "folded": WORDS, "seen": WORDS, "recent": st.sampled_from([0, 1, 2, 4, 64, 65, 255]),
        "seq": st.sampled_from([0, 1, 2, 3, 4, 2**63 - 1, 2**63, 2**64 - 1]),
        "clicks": LONGS, "ratings": LONGS, "comments": LONGS, "catalogue": LONGS, "last_time": LONGS,
    },
)  # fmt: skip
RIGHT = right()


@given(NAMED)
@settings(max_examples=150, deadline=None)
def test_no_header_ends_the_check(fields: dict[str, int]) -> None:
    judged(with_fields(**fields))


@given(NAMED)
@settings(max_examples=300, deadline=None)
def test_what_is_decoded_can_be_read_and_written(fields: dict[str, int]) -> None:
    """What a worker does with a state: look at all of it, and write it again. Recent events are `split` by the check only."""
    try:
        state = state_module.decode(with_fields(**fields))
    except StateError:
        return
    if split(state.recent) is None:
        return
    assert len(list(state.recents())) == len(list(state.newest())) == len(split(state.recent) or ())
    state.seen_hashes()
    assert state_module.encode(state) == with_fields(**fields)


# What a state remembers, by the worker's own code and by the check's.

BODIES = st.fixed_dictionaries(
    {"item": st.text(min_size=1, max_size=5)},
    optional={
        "id": st.sampled_from(["e1", "e2", "clicks/0/7", "id:clicks/0/7", "id:id:ratings/1/2", "id:x", "items/0/7"]),
        "scene": st.one_of(st.none(), st.text(max_size=4)),
        "value": st.one_of(st.integers(1, 5), st.floats(0.5, 5, width=64)),
        "time": st.integers(946_684_800_000, NOW),  # from min_time on
        "action": st.sampled_from(["", "view", "dislike", "né"]),
    },
)
EVENTS = st.lists(
    st.tuples(st.integers(0, 2), BODIES, st.sampled_from([b"", b"clicks/0/3", b"ratings/1/0", b"x"])), max_size=90
)


class Decoded(World):
    """Its events are made by the worker's decoder."""

    def event(self, behaviour: int, row: Row, verdict: Accepted) -> SourceEvent:
        decoder = EventDecoder(kafka_hash, PARTITIONS, self.settings.rating_scale, self.settings.sources)
        return decoder.decode(behaviour, row.partition, row.offset, row.timestamp, row.key, row.value, row.headers)


@given(EVENTS, st.integers(1, 9))
@settings(max_examples=40, deadline=None)
def test_what_a_right_worker_remembers_is_what_the_check_expects(
    drawn: list[tuple[int, dict[str, object], bytes]], every: int
) -> None:
    made = Decoded()
    for number, (behaviour, body, replay) in enumerate(drawn):
        fields: dict[str, Any] = {name: value for name, value in body.items() if behaviour or name != "value"}
        headers = (("original-record", replay),) if replay else ()
        made.send(behaviour, ALICE, headers=headers, **fields)
        if number % every == 0:
            made.work()
    made.work()
    report = check(made.log, made.settings)
    assert (report.violations, report.exit_code) == ([], 0)


def test_what_an_earlier_version_remembered_is_right_too() -> None:
    """It had ids in the form of a place as they are."""
    made = world()
    made.send(0, ALICE, "i4", id="clicks/0/7")
    made.work()
    rows = made.log.topics[made.settings.changelog_topic][HOME]
    state = state_module.decode(rows[2].value or b"")
    old = state.recent.replace(b"\x0d\x00id:clicks/0/7", b"\x0a\x00clicks/0/7")
    assert old != state.recent
    last = (split(state.recent) or [])[-1]
    start = len(old) - (len(last) - 3)
    state.recent = old[: start - 2] + (len(last) - 3).to_bytes(2, "little") + old[start:]
    rows[2] = rows[2]._replace(value=state_module.encode(state))
    report = check(made.log, made.settings)
    assert (report.violations, report.exit_code) == ([], 0)


def remembered_as(made: World, index: int, old: bytes, new: bytes) -> None:
    """Another ending of the newest recent event, in the state at `place` of the changelog."""
    rows = made.log.topics[made.settings.changelog_topic][HOME]
    state = state_module.decode(rows[index].value or b"")
    last = (split(state.recent) or [])[-1]
    assert last.endswith(old)
    changed = last.removesuffix(old) + new
    state.recent = state.recent[: -2 - len(last)] + len(changed).to_bytes(2, "little") + changed
    rows[index] = rows[index]._replace(value=state_module.encode(state))


@pytest.mark.parametrize(("new", "kinds"), [(b"", {}), (b"\x04\x00skip", {"state": 1}), (b"\x00\x00", {"state": 1})])
def test_an_action_is_remembered_or_was_not_yet_by_an_earlier_version(new: bytes, kinds: dict[str, int]) -> None:
    made = world()
    made.send(0, ALICE, "i4", action="dislike")
    made.work()
    assert check(made.log, made.settings).violations == []
    remembered_as(made, 2, b"\x07\x00dislike", new)
    report = check(made.log, made.settings)
    assert report.kinds == kinds, report.violations


def test_a_set_of_seen_items_that_is_full_takes_in_no_more() -> None:
    made = World()
    for number in range(state_module.MAX_SEEN + 30):
        made.send(0, ALICE, f"item-{number}")
        if number % 500 == 0:
            made.work()
    made.work()
    report = check(made.log, made.settings)
    assert (report.violations, report.exit_code) == ([], 0)
    assert len(made.states[ALICE.encode()].seen) == 4 * state_module.MAX_SEEN
