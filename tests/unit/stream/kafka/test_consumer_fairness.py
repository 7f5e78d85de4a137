"""One partition's flood holds no other up: in which order a fetch gives out what aiokafka has read."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Iterable
from contextlib import nullcontext
from types import SimpleNamespace
from typing import Any

import pytest
from aiokafka.consumer.fetcher import Fetcher, FetchError, FetchResult, PartitionRecords
from aiokafka.errors import OffsetOutOfRangeError
from aiokafka.structs import TopicPartition
from faust.types import TP

from stream.kafka.lenient_records import Records
from stream.kafka.offset_gaps import Passed
from stream.kafka.source_thread import Fetched, SourceThread
from tests.unit.stream.kafka.test_offset_gaps import batch

FLOOD, QUIET, RARE, SECOND = TP("comments", 0), TP("clicks", 0), TP("ratings", 1), TP("comments", 1)
ROOM = 8
FETCHES = 65


class Thread:
    """The consumer's thread over a real fetcher of aiokafka, whose buffers we fill."""

    def __init__(self) -> None:
        self.positions: dict[Any, Any] = {}
        fetcher: Any = Fetcher.__new__(Fetcher)
        self.assignment = SimpleNamespace(active=True, state_value=lambda tp: self.positions[tp])
        subscriptions = SimpleNamespace(
            reassignment_in_progress=False, fetch_context=nullcontext, is_assigned=lambda tp: tp in self.positions
        )
        vars(fetcher).update(_closed=False, _subscriptions=subscriptions, _wait_consume_future=None)
        Passed({tp.topic for tp in (FLOOD, QUIET, RARE)}).watch(fetcher)
        self.fetcher = fetcher

        async def position(tp: TP) -> int:
            return int(self.positions[tp].position)

        self.thread: Any = SourceThread.__new__(SourceThread)
        self.thread._consumer = SimpleNamespace(_fetcher=fetcher, _closed=False, position=position)
        self.thread._ensure_consumer = lambda: self.thread._consumer
        self.thread.consumer = SimpleNamespace(flow_active=True)

    def has_read(self, tp: TP, count: int) -> None:
        """A fetch of the client's: the next `count` records of a partition."""
        place = TopicPartition(*tp)
        if place not in self.positions:
            state = self.positions[place] = SimpleNamespace(paused=False, position=0)
            state.consumed_to = lambda offset: setattr(state, "position", offset)
        first = self.positions[place].position
        data = batch(first, *range(first, first + count))
        records = PartitionRecords(place, Records(data), None, first, None, None, False, 1)
        self.fetcher._records[place] = FetchResult(
            place, assignment=self.assignment, partition_records=records, backoff=0
        )

    def fetch(self, tps: Iterable[TP] = (), room: int = ROOM) -> Fetched:
        found: Fetched = asyncio.run(self.thread.fetch(set(tps) or {TP(*tp) for tp in self.positions}, 0.0, room))
        return found


def given(fetched: Fetched) -> dict[TP, int]:
    return {TP(*tp): len(records) for tp, records in fetched.records.items()}


@pytest.fixture
def thread() -> Thread:
    return Thread()


def test_others_come_right_after_the_first_fetch_of_a_flood(thread: Thread) -> None:
    thread.has_read(FLOOD, FETCHES * ROOM)
    thread.has_read(QUIET, 1)
    thread.has_read(RARE, 2)
    assert [given(thread.fetch()) for _ in range(3)] == [
        {FLOOD: ROOM},
        {QUIET: 1, RARE: 2, FLOOD: ROOM - 3},
        {FLOOD: ROOM},
    ]


def test_what_comes_amid_a_flood_waits_for_one_fetch_at_most(thread: Thread) -> None:
    thread.has_read(FLOOD, FETCHES * ROOM)
    for number in range(FETCHES // 2):
        thread.has_read(QUIET, 1)
        found = [given(thread.fetch()) for _ in range(2)]
        assert sum(one.get(QUIET, 0) for one in found) == 1, f"round {number}: {found}"


def test_floods_take_turns(thread: Thread) -> None:
    floods = (FLOOD, SECOND, QUIET)
    for tp in floods:
        thread.has_read(tp, FETCHES * ROOM)
    found = [given(thread.fetch()) for _ in range(4 * len(floods))]
    assert all(len(one) == 1 for one in found)
    assert [next(iter(one)) for one in found] == [*floods] * 4
    assert Counter(tp for one in found for tp in one) == dict.fromkeys(floods, 4)


def test_each_partition_keeps_its_order_and_nothing_is_lost_or_given_twice(thread: Thread) -> None:
    sizes = {FLOOD: 100, QUIET: 7, SECOND: 33}
    for tp, count in sizes.items():
        thread.has_read(tp, count)
    offsets: dict[TP, list[int]] = {tp: [] for tp in sizes}
    while any(map(thread.fetcher._records.__contains__, sizes)):
        fetched = thread.fetch()
        for tp, records in fetched.records.items():
            assert records[0].offset == fetched.before[TP(*tp)]
            assert records[-1].offset + 1 == fetched.after[TP(*tp)]
            offsets[TP(*tp)] += [record.offset for record in records]
    assert offsets == {tp: list(range(count)) for tp, count in sizes.items()}


def test_what_is_held_keeps_its_place_and_is_given_once_it_may(thread: Thread) -> None:
    thread.has_read(FLOOD, 4 * ROOM)
    thread.has_read(QUIET, 1)
    assert given(thread.fetch({QUIET})) == {QUIET: 1}
    assert given(thread.fetch()) == {FLOOD: ROOM}


def test_an_error_of_another_partition_is_told_at_the_next_fetch_of_a_flood(thread: Thread) -> None:
    thread.has_read(FLOOD, FETCHES * ROOM)
    thread.has_read(QUIET, 1)
    thread.fetcher._records[TopicPartition(*QUIET)] = FetchError(error=OffsetOutOfRangeError({QUIET: 0}), backoff=0)
    assert given(thread.fetch()) == {FLOOD: ROOM}
    with pytest.raises(OffsetOutOfRangeError):
        thread.fetch()
