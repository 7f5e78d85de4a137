"""A record that is good but for its partition is sent on: its copy is the same event, and verify knows where it went."""

from __future__ import annotations

import asyncio
import json
import logging
from types import SimpleNamespace
from typing import Any

import pytest
from aiokafka.partitioner import murmur2 as kafka_hash
from aiokafka.producer.message_accumulator import BatchBuilder
from hypothesis import given
from hypothesis import strategies as st

from deploy.verify.check import check
from deploy.verify.report import Report
from stream.core.decoder import EventDecoder
from stream.core.errors import RecordError
from stream.core.messages import CLICK, SOURCE_TOPICS
from stream.kafka.producer import Outgoing, RecordBatches
from stream.pipeline.misplaced import CURE, EVERY, ROOM, Misplaced
from tests.unit.synthetic import PARTITIONS, Row, World, partition_of

CLICKS = SOURCE_TOPICS[0]
PLENTY = dict.fromkeys(SOURCE_TOPICS, 1 << 20)
USER = "ann"
RIGHT = partition_of(USER)
WRONG = 1 - RIGHT
DECODER = EventDecoder(kafka_hash, PARTITIONS, (0.5, 5.0))


def click(user: str = USER, **fields: Any) -> bytes:
    return json.dumps({"user": user, "item": "i1", "time": 1_700_000_000_000} | fields).encode()


def record(value: bytes | None = None, headers: tuple[tuple[str, bytes], ...] = (), offset: int = 7) -> Row:
    return Row(WRONG, offset, 1_700_000_000_000, USER.encode(), value or click(), headers)


def copy(row: Row, room: dict[str, int] = PLENTY) -> Outgoing | None:
    return Misplaced(SOURCE_TOPICS, room).copy(CLICKS, WRONG, row)


@given(
    headers=st.lists(
        st.tuples(
            st.sampled_from(["original-record", "forwarded", "x", "send-id"]),
            st.sampled_from([b"clicks/0/5", b"clicks/01/5", b"", b"items/0/5", b"\xff"]),
        ),
        max_size=5,
    ),
    own=st.sampled_from([None, "mine", "clicks/0/7"]),
)
def test_the_copy_is_the_same_event_wherever_it_is_sent_from(headers: list[tuple[str, bytes]], own: str | None) -> None:
    value = click(id=own) if own else click()
    row = record(value, tuple(headers))
    with pytest.raises(RecordError, match="murmur2") as raised:
        DECODER.decode(CLICK, WRONG, 7, row.timestamp, row.key, row.value, row.headers)
    assert raised.value.reason == "mispartitioned"
    sent = copy(row)
    assert sent is not None
    found = DECODER.decode(CLICK, RIGHT, 99, row.timestamp, sent.key, sent.value, sent.headers)
    first = next((value for name, value in headers if name == "original-record"), b"")
    assert found.id == (own or ("clicks/0/5" if first == b"clicks/0/5" else f"clicks/{WRONG}/7"))
    assert [value for name, value in sent.headers if name == "forwarded"] == [f"clicks/{WRONG}/7".encode()]
    kept = [one for one in headers if one[0] in ("x", "send-id")]
    assert [one for one in sent.headers if one[0] in ("x", "send-id")] == kept


def test_what_may_be_too_large_for_its_topic_is_not_sent_on() -> None:
    size = len(USER) + len(click())
    assert copy(record(), {CLICKS: size + ROOM}) is not None
    assert copy(record(), {CLICKS: size + ROOM - 1}) is None
    assert copy(record(), {}) is None


def test_a_warning_a_minute_says_how_many_and_what_to_do(caplog: pytest.LogCaptureFixture) -> None:
    now = [0.0]
    misplaced = Misplaced(SOURCE_TOPICS, PLENTY, lambda: now[0])
    with caplog.at_level(logging.WARNING):
        for second in (0.0, 1.0, 2.0, EVERY, EVERY + 1):
            now[0] = second
            misplaced.copy(CLICKS, WRONG, record())
    assert [one.records for one in caplog.records] == [1, 3]  # type: ignore[attr-defined]
    assert all(CURE in one.getMessage() and CLICKS in one.getMessage() for one in caplog.records)


@pytest.mark.parametrize(("room", "batches"), [({}, 1), ({CLICKS: 400}, 10), ({CLICKS: 700}, 5)])
def test_batches_fit_into_their_topic(room: dict[str, int], batches: int) -> None:
    sent: list[tuple[int, int]] = []

    async def send_batch(batch: Any, topic: str, *, partition: int) -> asyncio.Future[Any]:
        future = asyncio.get_running_loop().create_future()
        future.set_result(SimpleNamespace(timestamp_type=0, offset=len(sent)))
        sent.append((batch.record_count(), batch.size()))
        return future

    producer = SimpleNamespace(create_batch=lambda: BatchBuilder(786_432, 0), send_batch=send_batch)
    rows = [Outgoing(b"k" * 20, b"v" * 200, [("original-record", b"clicks/0/5")]) for _ in range(10)]
    asyncio.run(RecordBatches(producer, 5.0, room=room).send({(CLICKS, 0): rows}))
    assert [count for count, _ in sent] == [10 // batches] * batches
    assert all(size <= room.get(CLICKS, 1 << 20) for _, size in sent)


# verify


def forwarded(times: int = 1, **changed: Any) -> Report:
    """A world in which one click lay on the wrong partition and was sent on `times`, its copy changed as told."""
    world = World()
    world.send(CLICK, USER)
    _, _, offset = world.send_raw(CLICK, USER.encode(), click(), WRONG)
    world.work()
    dead_letters = world.log.topics[world.settings.dead_letters_topic][WRONG]
    dead_letters.clear()
    sent = copy(record(offset=offset))
    assert sent is not None
    for _ in range(times):
        fields = {"key": sent.key, "value": sent.value, "headers": tuple(sent.headers)} | changed
        world.send_raw(CLICK, fields["key"], fields["value"], RIGHT, fields["headers"])
        world.work()
    return check(world.log, world.settings)


@pytest.mark.parametrize("times", [1, 2, 3])
def test_what_was_sent_on_counts_once_however_often_it_was(times: int) -> None:
    report = forwarded(times)
    assert report.exit_code == 0, report.violations
    assert (report.input, report.applied, report.forwarded, report.duplicates) == (2 + times, 2, 1, times - 1)
    assert report.dead_letters == 0
    assert report.conserved


@pytest.mark.parametrize(
    ("times", "changed"),
    [
        (0, {}),
        (1, {"headers": ()}),
        (1, {"headers": (("forwarded", b"clicks/9/9"),)}),
        (1, {"value": click(item="another")}),
    ],
)
def test_what_was_neither_sent_on_nor_set_aside_is_named(times: int, changed: dict[str, Any]) -> None:
    report = forwarded(times, **changed)
    assert report.exit_code == 1
    assert report.kinds == {"unreported": 1}
    assert (report.unreported, report.forwarded) == (1, 0)
    assert "neither forwarded nor set aside as a dead letter" in report.violations[0].message
    assert not report.conserved


def far_apart(between: int = 100, position: bytes = b"", value: bytes | None = None) -> Report:
    """Two copies of one misplaced click, with so many events of the user between: what a worker makes that reads the log from
    its start again, and forgets that it has sent the record on. place, value: what the copies name and hold instead."""
    world = World()
    _, _, offset = world.send_raw(CLICK, USER.encode(), value or click(), WRONG)
    world.work()
    world.log.topics[world.settings.dead_letters_topic][WRONG].clear()
    sent = copy(record(offset=offset))
    assert sent is not None
    headers = tuple(
        (name, position if position and name == "forwarded" else text or b"") for name, text in sent.headers
    )
    for last in (False, True):
        world.send_raw(CLICK, USER.encode(), click(), RIGHT, headers)
        for _ in range(0 if last else between):
            world.send(CLICK, USER)
        world.work()
    return check(world.log, world.settings)


def test_two_copies_of_one_record_count_twice_however_far_apart() -> None:
    report = far_apart()
    assert report.exit_code == 1
    assert report.kinds == {"double": 1}
    assert (report.double, report.forwarded, report.applied) == (1, 1, 102)
    (found,) = report.violations
    assert (found.user, found.seq, found.topic, found.partition, found.offset) == (USER, 102, CLICKS, RIGHT, 101)
    assert f"a copy of {CLICKS}/{WRONG}/0" in found.message
    assert f"{CLICKS}/{RIGHT}/0, seq 1," in found.message


@pytest.mark.parametrize(
    "position", [f"clicks/{WRONG}/1", f"clicks/{WRONG}/99", "clicks/9/9", f"clicks/{RIGHT}/0", "x"]
)
def test_a_header_that_names_no_such_record_makes_no_copies(position: str) -> None:
    report = far_apart(position=position.encode())
    assert report.double == 0
    assert report.kinds == {"unreported": 1}  # the record that was there is not sent on


def test_a_header_that_names_another_record_makes_no_copies() -> None:
    report = far_apart(value=click(item="another"))
    assert report.double == 0
    assert report.kinds == {"unreported": 1}


def test_copies_near_each_other_that_are_both_applied_are_blamed_once() -> None:
    world = World()
    _, _, offset = world.send_raw(CLICK, USER.encode(), click(), WRONG)
    world.work()
    world.log.topics[world.settings.dead_letters_topic][WRONG].clear()
    sent = copy(record(offset=offset))
    assert sent is not None
    for number in range(2):
        world.send_raw(CLICK, USER.encode(), click(), RIGHT, tuple(sent.headers))
        if number:
            with pytest.MonkeyPatch.context() as patch:
                patch.setattr("stream.core.state.is_duplicate", lambda *_: False)
                world.work()
        else:
            world.work()
    report = check(world.log, world.settings)
    assert report.kinds == {"double": 1}
    assert report.double == 1


def test_a_dead_letter_will_do_as_well() -> None:
    world = World()
    world.send_raw(CLICK, USER.encode(), click(), WRONG)
    world.work()
    report = check(world.log, world.settings)
    assert (report.exit_code, report.dead_letters, report.forwarded) == (0, 1, 0)


def test_what_is_not_due_is_pending() -> None:
    world = World()
    world.send_raw(CLICK, USER.encode(), click(), WRONG)
    report = check(world.log, world.settings)
    assert (report.exit_code, report.pending) == (3, 1)
