"""Following the topic `bundles`: what was activated, up to its end, and where other topics end; and writing to it."""

from __future__ import annotations

import asyncio
import gc
import logging
import weakref
from collections.abc import Awaitable, Callable
from types import SimpleNamespace
from typing import Any

import pytest
from aiokafka import TopicPartition
from aiokafka.errors import KafkaTimeoutError, TopicAuthorizationFailedError

from stream.catalogue import bundles as module
from stream.catalogue import consumer
from stream.catalogue.bundles import BundlesFollower, BundlesWriter, candidates
from stream.core.bundle_log import Activate, Loaded, encode, key_of
from stream.core.errors import BrokerError
from stream.settings import Settings

A, B = "a" * 64, "b" * 64
PLACE = TopicPartition("bundles", 0)


class Log:
    """The topic, and aiokafka's consumer over it; of each other topic only where its partitions end."""

    def __init__(self, *bundles: str) -> None:
        self.records = [self.record(Activate(one, 5)) for one in bundles]
        self.ends = {("recommendations", 1): 7, ("recommendations", 3): 0}
        self.at = 0
        self.arguments: dict[str, Any] = {}
        self.stopped = False
        self._client = self._subscription = self
        self._coordinator = self._fetcher = self._sync_task = None
        self.subscription: Any = None
        self.cluster = SimpleNamespace(_last_successful_refresh_ms=0, leader_for_partition=lambda tp: 1)

    @staticmethod
    def record(activate: Activate) -> tuple[bytes, bytes]:
        return key_of(activate), encode(activate)

    async def send(self, node: int, request: Any) -> None: ...

    async def start(self) -> None: ...

    async def stop(self) -> None:
        self.stopped = True

    def assign(self, tps: list[TopicPartition]) -> None:
        assert tps == [PLACE]

    def partitions_for_topic(self, topic: str) -> set[int]:
        return {0}

    async def beginning_offsets(self, tps: list[TopicPartition]) -> dict[TopicPartition, int]:
        return {PLACE: 0}

    async def end_offsets(self, tps: list[TopicPartition]) -> dict[TopicPartition, int]:
        return {tp: len(self.records) if tp == PLACE else self.ends[tp.topic, tp.partition] for tp in tps}

    def seek(self, tp: TopicPartition, offset: int) -> None:
        self.at = offset

    async def position(self, tp: TopicPartition) -> int:
        return self.at

    async def getmany(
        self, tp: TopicPartition, *, timeout_ms: int, max_records: int
    ) -> dict[TopicPartition, list[Any]]:
        await asyncio.sleep(0.01)
        first, self.at = self.at, len(self.records)
        found = [
            SimpleNamespace(offset=first + at, key=key, value=value)
            for at, (key, value) in enumerate(self.records[first:])
        ]
        return {PLACE: found} if found else {}


def follow(
    monkeypatch: pytest.MonkeyPatch, log: Log, check: Callable[[BundlesFollower, list[int]], Awaitable[None]]
) -> None:
    def consumer_of(settings: Settings, name: str, **arguments: Any) -> Log:
        log.arguments = arguments
        return log

    async def run() -> None:
        monkeypatch.setattr(consumer, "groupless_consumer", consumer_of)
        told: list[int] = []
        followed = BundlesFollower(Settings(), lambda: told.append(followed.offset()))
        await followed.start()
        try:
            await check(followed, told)
        finally:
            await followed.stop()

    asyncio.run(run())


def test_it_tells_what_was_activated(monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO, "freshet.bundles")
    log = Log(A, B)

    async def check(followed: BundlesFollower, told: list[int]) -> None:
        assert ([one.bundle for one in followed.log.activations], told) == ([A, B], [1])
        log.records.append(Log.record(Activate(A, 9, "back")))
        await followed.read_to_end()
        assert followed.log.newest is not None
        assert (followed.log.newest.number, followed.log.newest.reason) == (2, "back")
        await asyncio.sleep(0)
        assert told == [1, 2]
        log.records += [(b"activate", b"{"), Log.record(Activate(B, 9))]
        await followed.read_to_end()
        assert followed.log.newest.number == 4

    follow(monkeypatch, log, check)
    assert log.arguments == {"isolation_level": "read_uncommitted"}
    assert "bundles loaded: 2 activations, offset 1" in caplog.text
    assert [line.reason for line in caplog.records if "the JSON ends" in line.message] == ["malformed_json"]  # type: ignore[attr-defined]


def test_it_asks_where_slates_end(monkeypatch: pytest.MonkeyPatch) -> None:
    async def check(followed: BundlesFollower, told: list[int]) -> None:
        assert await followed.ends("recommendations", [1, 3]) == {1: 7, 3: 0}

    follow(monkeypatch, Log(), check)


def test_another_follower_is_waited_for(monkeypatch: pytest.MonkeyPatch) -> None:
    async def check(followed: BundlesFollower, told: list[int]) -> None:
        ahead = BundlesFollower(Settings())
        ahead._at = 3
        waiting = asyncio.ensure_future(followed.reach(ahead))
        await asyncio.sleep(0.05)
        assert not waiting.done()
        log.records += Log(A, B).records
        async with asyncio.timeout(5):
            await waiting
        assert followed.offset() == 2

    log = Log(A)
    follow(monkeypatch, log, check)


def test_what_a_start_should_try_is_read_without_a_word(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    log = Log(A, B, A)
    log.records.append((b"x", b"{"))
    monkeypatch.setattr(consumer, "groupless_consumer", lambda *of, **arguments: log)
    assert [(one.number, one.bundle) for one in candidates(Settings())] == [(2, A), (1, B)]
    assert (log.stopped, [line for line in caplog.records if line.name.startswith("freshet")]) == (True, [])


class Producer:
    """aiokafka's producer; fails: what it raises."""

    def __init__(self, fails: Exception | None = None) -> None:
        self.fails = fails
        self.sent: list[tuple[Any, ...]] = []

    async def start(self) -> None: ...

    async def stop(self) -> None: ...

    async def send(self, *given: Any) -> asyncio.Future[None]:
        future: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        if self.fails is not None:
            future.set_exception(self.fails)
        else:
            future.set_result(None)
        self.sent.append(given)
        return future


def written(monkeypatch: pytest.MonkeyPatch, producer: Producer) -> None:
    async def run() -> None:
        monkeypatch.setattr(module, "AIOKafkaProducer", lambda **arguments: producer)
        writer = BundlesWriter(Settings(), "worker")
        await writer.start()
        try:
            await writer.write([Loaded(3, A, "1" * 32, "worker", 8, 1.5)])
        finally:
            await writer.stop()
            await writer.stop()

    asyncio.run(run())


def test_a_record_is_written_under_its_key(monkeypatch: pytest.MonkeyPatch) -> None:
    producer = Producer()
    written(monkeypatch, producer)
    ((topic, value, key, partition, time),) = producer.sent
    assert (topic, key, partition, time) == ("bundles", b"1" * 32, 0, 8)
    assert b'"kind":"loaded"' in value


@pytest.mark.parametrize(
    ("error", "message"),
    [
        (TopicAuthorizationFailedError(), r"denies access: topic bundles \(Write\)"),
        (KafkaTimeoutError(), "bundles: KafkaTimeoutError"),
    ],
)
def test_a_record_that_is_not_acknowledged_is_an_error_that_says_why(
    monkeypatch: pytest.MonkeyPatch, error: Exception, message: str
) -> None:
    with pytest.raises(BrokerError, match=message):
        written(monkeypatch, Producer(error))


def test_a_follower_that_has_stopped_is_freed_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """What a bundle's catalogue holds is large; it must not wait until the collector finds a cycle."""
    log = Log(A)
    monkeypatch.setattr(consumer, "groupless_consumer", lambda *of, **arguments: log)

    async def run() -> weakref.ref[BundlesFollower]:
        followed = BundlesFollower(Settings())
        await followed.start()
        await asyncio.sleep(0.05)
        await followed.stop()
        return weakref.ref(followed)

    gc.disable()
    try:
        assert asyncio.run(run())() is None
    finally:
        gc.enable()
