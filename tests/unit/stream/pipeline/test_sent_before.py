"""Misplaced records that are read again: which of their copies are there already."""

from __future__ import annotations

import asyncio
import json
import logging
from collections.abc import AsyncGenerator, Sequence
from types import SimpleNamespace
from typing import Any

import pytest
from aiokafka.partitioner import murmur2 as kafka_hash
from faust.types import TP

from stream.core.decoder import EventDecoder
from stream.core.messages import CLICK, SOURCE_TOPICS
from stream.kafka.batch import MicroBatch, Record
from stream.kafka.producer import Outgoing
from stream.observability.metrics import BatchFigures
from stream.pipeline.misplaced import Misplaced
from stream.pipeline.pipeline import Pipeline
from stream.pipeline.refusal_log import RefusalLog
from stream.pipeline.sent_before import MARGIN, SentBefore
from tests.unit.synthetic import NOW, PARTITIONS, Row, partition_of, settings

CLICKS = SOURCE_TOPICS[0]
USER = "ann"
RIGHT = TP(CLICKS, partition_of(USER))
WRONG = TP(CLICKS, 1 - partition_of(USER))


def click(item: str = "i1") -> bytes:
    return json.dumps({"user": USER, "item": item, "time": NOW}).encode()


def misplaced(offset: int, item: str = "i1") -> Row:
    return Row(WRONG.partition, offset, NOW + 1000 * offset, USER.encode(), click(item))


def copy(row: Row) -> Outgoing:
    sent = Misplaced(SOURCE_TOPICS, dict.fromkeys(SOURCE_TOPICS, 1 << 20)).copy(CLICKS, WRONG.partition, row)
    assert sent is not None
    return sent


def sent(row: Row, **other: Any) -> Row:
    """The copy as it lies on the right partition, a second later."""
    made = copy(row)
    there = Row(RIGHT.partition, row.offset, row.timestamp + 1000, made.key, made.value, tuple(made.headers))
    return there._replace(**other)


class Right:
    """The right partition, and what was asked of it."""

    def __init__(self, *rows: Row) -> None:
        self.rows = rows
        self.asked: list[tuple[TP, int]] = []

    async def read(self, tp: TP, since: int) -> AsyncGenerator[Sequence[Record], None]:
        self.asked.append((tp, since))
        yield []
        yield [row for row in self.rows if row.timestamp >= since]


def batch(*rows: Row) -> MicroBatch:
    made = MicroBatch(1)
    made.add(WRONG, list(rows))
    return made


def sent_on(right: Right, *rows: Row, lay: range = range(3), epoch: int = 1) -> tuple[list[int] | None, BatchFigures]:
    """Offsets of the records that a pipeline sends on, None where it has lost its partitions; what it counts."""
    given = settings()
    known = {WRONG: lay}
    pipeline = object.__new__(Pipeline)
    pipeline._topics, pipeline._settings = given.sources, given
    pipeline._misplaced = Misplaced(given.sources, dict.fromkeys(given.sources, 1 << 20))
    pipeline._sent_before = SentBefore(lambda: known, right.read)
    pipeline._decoder = EventDecoder(kafka_hash, PARTITIONS, given.rating_scale, given.sources)
    pipeline._refusals = RefusalLog()
    pipeline._consumer = lambda: SimpleNamespace(is_current=lambda batch: batch.epoch == epoch)  # type: ignore[assignment,return-value]
    figures = BatchFigures()
    events, dead_letters = pipeline._decode(batch(*rows), figures)
    assert events == []
    if not asyncio.run(pipeline._leave_out(batch(*rows), dead_letters, figures)):
        return None, figures
    assert dead_letters.keys() <= {RIGHT}
    places = [dict(one.headers)["forwarded"] for one in dead_letters.get(RIGHT, [])]
    return [int(position.rsplit(b"/")[-1]) for position in places if position], figures


ROWS = [misplaced(offset) for offset in range(3)]


def test_what_was_sent_on_before_is_not_sent_on_again(caplog: pytest.LogCaptureFixture) -> None:
    right = Right(*map(sent, ROWS[:2]))
    with caplog.at_level(logging.INFO, "freshet.misplaced"):
        found, figures = sent_on(right, *ROWS)
    assert found == [2]
    assert figures.outcomes == {(CLICK, "redelivered"): 2, (CLICK, "forwarded"): 1}
    assert right.asked == [(RIGHT, NOW - MARGIN)]
    assert [one.records for one in caplog.records if "not forwarded twice" in one.getMessage()] == [2]  # type: ignore[attr-defined]


def test_where_all_were_sent_on_nothing_is_left_to_send() -> None:
    found, figures = sent_on(Right(*map(sent, ROWS)), *ROWS)
    assert found == []
    assert figures.outcomes == {(CLICK, "redelivered"): 3}


def test_new_records_are_sent_on_without_a_look() -> None:
    right = Right(*map(sent, ROWS))
    found, figures = sent_on(right, *ROWS, lay=range(0))
    assert found == [0, 1, 2]
    assert figures.outcomes == {(CLICK, "forwarded"): 3}
    assert right.asked == []


@pytest.mark.parametrize(
    "other",
    [
        {"value": click("another")},
        {"key": b"bob"},
        {"headers": ()},
        {"headers": (("forwarded", b""),)},
        {"headers": (("forwarded", b"\xff/x"),)},
        {"headers": (("forwarded", f"{CLICKS}/{WRONG.partition}/1".encode()),)},
        {"headers": (("forwarded", f"x{CLICKS}/{WRONG.partition}/0".encode()),)},
    ],
)
def test_what_only_says_that_it_is_a_copy_keeps_no_record_back(other: dict[str, Any]) -> None:
    assert sent_on(Right(sent(ROWS[0], **other)), ROWS[0])[0] == [0]


def test_a_rebalance_ends_the_look_and_nothing_is_sent() -> None:
    assert sent_on(Right(*map(sent, ROWS)), *ROWS, epoch=2)[0] is None


def test_each_partition_is_read_once_from_the_oldest_record_on_and_again_after_a_rebalance() -> None:
    right = Right(*map(sent, ROWS))
    lays = [{WRONG: range(3)}]
    before = SentBefore(lambda: lays[-1], right.read)

    def leave_out(offset: int) -> dict[str, int] | None:
        copies = {tuple(RIGHT): [copy(ROWS[offset])]}
        return asyncio.run(before.leave_out({WRONG: [ROWS[offset]]}, copies, lambda: True))

    assert [leave_out(offset) for offset in (1, 2, 0, 1)] == [{CLICKS: 1}] * 4
    assert right.asked == [(RIGHT, NOW + 1000 - MARGIN), (RIGHT, NOW - MARGIN)]
    assert before.records == 6
    lays.append({WRONG: range(3)})
    assert leave_out(2) == {CLICKS: 1}
    assert len(right.asked) == 3
