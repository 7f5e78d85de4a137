"""Slates that others have written are read from the topic in short steps, however the partitions and the broker behave."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable, Coroutine
from pathlib import Path
from typing import Any, NamedTuple

import pytest
from aiokafka import TopicPartition
from aiokafka.errors import KafkaConnectionError, TopicAuthorizationFailedError

from stream.core.errors import BrokerError
from stream.kafka.standing_slates import Shown, Slot, StandingSlates
from stream.pipeline import slate_reader
from stream.pipeline.slate_reader import SlateReader
from stream.settings import load
from tests.stores import plain_store

SETTINGS = load()

DEEP = b'{"seq":1,"items":[],"x":' + b"[" * 5000 + b"]" * 5000 + b"}"
BIG = b'{"seq":100000000000000000000000,"items":[]}'


class Row(NamedTuple):
    offset: int
    key: bytes | None
    value: bytes | None


def slate(offset: int, user: bytes | None, *items: str) -> Row:
    return Row(offset, user, json.dumps({"seq": 3, "items": [{"item": item, "score": 1} for item in items]}).encode())


class Topic:
    """What a consumer finds."""

    def __init__(self) -> None:
        self.rows: dict[int, list[Row]] = {0: [], 1: []}
        self.first = 0
        self.fails: list[Exception] = []
        self.consumers = 0
        self.open = 0

    def end(self, partition: int) -> int:
        rows = self.rows[partition]
        return rows[-1].offset + 1 if rows else self.first

    def consumer(self, settings: Any, name: str, **more: Any) -> Consumer:
        self.consumers += 1
        return Consumer(self)


class Consumer:
    """The part of AIOKafkaConsumer that the reader uses; one fetch gives the records of one partition."""

    def __init__(self, topic: Topic) -> None:
        self.topic = topic
        self.at: dict[TopicPartition, int] = {}

    async def start(self) -> None:
        if self.topic.fails:
            raise self.topic.fails.pop()
        self.topic.open += 1

    async def stop(self) -> None:
        self.topic.open -= 1

    async def beginning_offsets(self, tps: list[TopicPartition]) -> dict[TopicPartition, int]:
        return dict.fromkeys(tps, self.topic.first)

    async def end_offsets(self, tps: list[TopicPartition]) -> dict[TopicPartition, int]:
        return {tp: self.topic.end(tp.partition) for tp in tps}

    def assign(self, tps: list[TopicPartition]) -> None:
        self.at = dict.fromkeys(tps, -1)

    def seek(self, tp: TopicPartition, offset: int) -> None:
        self.at[tp] = offset

    async def position(self, tp: TopicPartition) -> int:
        return self.at[tp]

    async def getmany(self, timeout_ms: int, max_records: int) -> dict[TopicPartition, list[Row]]:
        assert timeout_ms == 0, "it never waits"
        for tp, offset in self.at.items():
            rows = [row for row in self.topic.rows[tp.partition] if row.offset >= offset][:max_records]
            if rows:
                self.at[tp] = rows[-1].offset + 1
                return {tp: rows}
            self.at[tp] = max(offset, self.topic.end(tp.partition))
        return {}


class Made:
    def __init__(self, folder: Path, topic: Topic) -> None:
        store = plain_store(folder, "changelog")
        for partition in topic.rows:
            store.prepare(partition)
        self.topic = topic
        self.standing = StandingSlates(store)
        self.woken = asyncio.Event()
        self.reader = SlateReader(SETTINGS, self.standing, self.woken.set)
        self.standing.begin(topic.rows)

    async def read(self) -> None:
        """Steps until nothing is behind, each when it is due."""
        for _ in range(200):
            self.woken.clear()
            if await self.reader.step(2):
                continue
            if not self.standing.behind():
                return
            async with asyncio.timeout(5):
                await self.woken.wait()
        raise AssertionError("it does not end")

    def shown(self, partition: int) -> dict[bytes, list[str]]:
        return {one.slot.user: one.shown.items for one in self.standing.scan(partition, b"", 99)}


@pytest.fixture
def made(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Callable[[Topic], Made]:
    def make(topic: Topic) -> Made:
        monkeypatch.setattr(slate_reader, "groupless_consumer", topic.consumer)
        return Made(tmp_path / "store", topic)

    return make


def run(call: Coroutine[Any, Any, None]) -> None:
    asyncio.run(call)


def filled() -> Topic:
    topic = Topic()
    topic.rows[0] = [
        slate(0, b"ann", "a"), slate(1, b"bob", "b"), slate(2, b"*", "p"), Row(3, b"bad", b"{"), slate(4, None, "x"),
        Row(5, b"deep", DEEP), Row(6, b"big", BIG),
        slate(7, b"ann", "c"), Row(8, b"bob", None),
    ]  # fmt: skip
    topic.rows[1] = [slate(0, b"cid", "d")]
    return topic


def test_the_newest_slate_of_each_user_is_known_afterwards(made: Callable[[Topic], Made]) -> None:
    async def body() -> None:
        one = made(filled())
        await one.read()
        assert (one.shown(0), one.shown(1)) == ({b"ann": ["c"]}, {b"cid": ["d"]})
        assert (one.standing.reached(0), one.standing.reached(1)) == (8, 0)
        assert one.standing.read(0, [Slot(b"ann")]) == [Shown(3, ["c"])]
        one.reader.close()
        await one.reader.stop()
        assert one.topic.open == 0

    run(body())


def test_only_what_is_missing_is_read(made: Callable[[Topic], Made]) -> None:
    async def body() -> None:
        one = made(filled())
        await one.read()
        before = one.reader.records
        one.topic.rows[1].append(slate(1, b"cid", "e"))
        one.standing.begin([0, 1])
        one.reader.forget()
        await one.read()
        assert one.reader.records == before + 1
        assert one.shown(1) == {b"cid": ["e"]}
        await one.reader.stop()

    run(body())


def test_a_topic_that_was_recreated_is_read_from_its_beginning(made: Callable[[Topic], Made]) -> None:
    async def body() -> None:
        one = made(filled())
        await one.read()
        one.topic.rows = {0: [slate(0, b"dan", "z")], 1: []}
        one.standing.begin([0, 1])
        one.reader.forget()
        await one.read()
        assert (one.shown(0), one.shown(1)) == ({b"dan": ["z"]}, {})
        await one.reader.stop()

    run(body())


def test_a_broker_that_is_away_is_asked_again(made: Callable[[Topic], Made], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(slate_reader, "ATTEMPTS_EVERY", 0.01)

    async def body() -> None:
        topic = filled()
        topic.fails = [KafkaConnectionError(), KafkaConnectionError()]
        one = made(topic)
        await one.read()
        assert topic.consumers == 3
        assert one.shown(1) == {b"cid": ["d"]}
        await one.reader.stop()

    run(body())


def test_a_right_that_is_missing_ends_it(made: Callable[[Topic], Made]) -> None:
    async def body() -> None:
        topic = filled()
        topic.fails = [TopicAuthorizationFailedError(SETTINGS.recommendations_topic)]
        with pytest.raises(BrokerError, match="Read"):
            await made(topic).read()

    run(body())


def test_partitions_that_are_given_up_in_between_are_read_no_further(made: Callable[[Topic], Made]) -> None:
    async def body() -> None:
        one = made(filled())
        await one.reader.step(2)
        await asyncio.sleep(0.01)
        await one.reader.step(2)
        one.standing.begin([1])
        one.reader.forget()
        await one.read()
        assert one.shown(1) == {b"cid": ["d"]}
        assert one.standing.reached(0) < 8
        await one.reader.stop()

    run(body())
