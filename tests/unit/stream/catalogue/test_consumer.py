"""The items follower over a log that is cut off, deleted from, or full of what is passed over."""

from __future__ import annotations

import asyncio
from types import SimpleNamespace
from typing import Any

import pytest
from aiokafka.errors import OffsetOutOfRangeError
from aiokafka.protocol.fetch import FetchRequest
from aiokafka.structs import TopicPartition

from stream.catalogue import consumer
from stream.catalogue.catalogue import Catalogue
from stream.catalogue.consumer import ItemsFollower
from stream.core.errors import LossError
from stream.process.progress import STEP, Progress
from stream.settings import Settings
from tests.unit.stream.catalogue.test_catalogue import Tower, bundle, message
from tests.unit.stream.kafka.test_truncation import Answer, batches

PLACE = TopicPartition("items", 0)
FETCH = 5  # records at a time


class Log:
    """The items topic, its leader, and aiokafka's consumer over it. written: leader epoch of each offset, -1 of a marker; ends:
    epoch -> where the log ends it."""

    def __init__(self, *written: int) -> None:
        self.written = list(written)
        self.start_at = 0
        self.at = 0
        self.ends: dict[int, int] = {}
        self._client = self._subscription = self
        self._coordinator = self._fetcher = self._sync_task = None
        self.subscription: Any = None
        self.cluster = SimpleNamespace(_last_successful_refresh_ms=0, leader_for_partition=lambda tp: 1)

    async def send(self, node: int, request: Any) -> Answer:
        if isinstance(request, FetchRequest):
            there = self.start_at <= self.at <= len(self.written)
            code = 0 if there else OffsetOutOfRangeError.errno
            found = [
                (offset, 1, epoch) for offset, epoch in enumerate(self.written[: self.at + FETCH]) if offset >= self.at
            ]
            data = batches(*(one for one in found if one[2] >= 0)) if there else b""
            return Answer([(PLACE.topic, [(0, code, 0, 0, 0, [], data)])])
        ((_, ((_, _, epoch),)),) = request.build(type(request)._CLASSES[0]).topics
        return Answer([(PLACE.topic, [(0, 0, epoch, self.ends.get(epoch, -1))])])

    async def start(self) -> None: ...

    async def stop(self) -> None: ...

    def assign(self, tps: list[TopicPartition]) -> None:
        assert tps == [PLACE]

    def partitions_for_topic(self, topic: str) -> set[int]:
        return {0}

    async def beginning_offsets(self, tps: list[TopicPartition]) -> dict[TopicPartition, int]:
        return {PLACE: self.start_at}

    async def end_offsets(self, tps: list[TopicPartition]) -> dict[TopicPartition, int]:
        return {PLACE: len(self.written)}

    def seek(self, tp: TopicPartition, offset: int) -> None:
        self.at = offset

    async def position(self, tp: TopicPartition) -> int:
        return self.at

    async def getmany(
        self, tp: TopicPartition, *, timeout_ms: int, max_records: int
    ) -> dict[TopicPartition, list[Any]]:
        await asyncio.sleep(0.001)
        wanted = [(PLACE.topic, [(0, self.at, 1 << 20)])]
        ((_, ((_, code, *_),)),) = (await self.send(1, FetchRequest(50, 1, 1 << 20, 1, wanted, rack_id=""))).topics
        if code:
            raise OffsetOutOfRangeError({PLACE: self.at})
        first, self.at = self.at, min(len(self.written), self.at + FETCH)
        key, value = message("new")
        found = [
            SimpleNamespace(offset=offset, key=key, value=value)
            for offset in range(first, self.at)
            if self.written[offset] >= 0
        ]
        return {PLACE: found} if found else {}


def follower(monkeypatch: pytest.MonkeyPatch, log: Log) -> ItemsFollower:
    monkeypatch.setattr(consumer, "groupless_consumer", lambda *of, **arguments: log)
    return ItemsFollower(Settings(), Catalogue(bundle(), Tower()))


def goes_on(monkeypatch: pytest.MonkeyPatch, log: Log, changes: Any) -> int:
    """Loads the catalogue, changes the log under it, and follows. -> the last offset that was taken in."""

    async def run() -> int:
        followed = follower(monkeypatch, log)
        await followed.start()
        assert followed.task is not None
        changes(log)
        done, _ = await asyncio.wait([followed.task], timeout=1.0)
        await followed.stop()
        for task in done:
            task.result()
        return followed.catalogue.snapshot.offset

    return asyncio.run(run())


def test_a_log_that_goes_on_under_another_leader_is_followed(monkeypatch: pytest.MonkeyPatch) -> None:
    def elect(log: Log) -> None:
        log.written += [4] * 7
        log.ends = {3: 12}

    assert goes_on(monkeypatch, Log(*[3] * 12), elect) == 18


def test_a_log_that_was_cut_off_and_has_grown_since_ends_the_worker(monkeypatch: pytest.MonkeyPatch) -> None:
    def cut(log: Log) -> None:
        log.written[9:] = [4] * 20
        log.ends = {3: 9}

    with pytest.raises(
        LossError, match=r"items partition 0: the log was cut off at 9, and was read up to 12: .* next start"
    ):
        goes_on(monkeypatch, Log(*[3] * 12), cut)


def test_a_log_that_was_cut_off_below_what_was_read_says_where(monkeypatch: pytest.MonkeyPatch) -> None:
    def cut(log: Log) -> None:
        del log.written[9:]
        log.ends = {3: 9}

    with pytest.raises(LossError, match="items partition 0: the log was cut off at 9, and was read up to 12"):
        goes_on(monkeypatch, Log(*[3] * 12), cut)


def test_records_that_were_deleted_before_they_were_read_end_the_worker(monkeypatch: pytest.MonkeyPatch) -> None:
    def delete(log: Log) -> None:
        log.written += [3] * 50
        log.start_at = 40
        log.ends = {3: 62}

    with pytest.raises(LossError, match="items: its log no longer holds offset 12, up to which it was read"):
        goes_on(monkeypatch, Log(*[3] * 12), delete)


def test_a_cut_while_the_catalogue_is_loaded_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    async def run() -> None:
        log = Log(*[3] * 12)
        followed = follower(monkeypatch, log)
        starting = asyncio.ensure_future(followed.start())
        while log.at < FETCH:
            await asyncio.sleep(0)
        log.written[2:] = [4] * 20
        log.ends = {3: 2}
        await starting

    with pytest.raises(LossError, match="items partition 0: the log was cut off at 2, and was read up to 5"):
        asyncio.run(run())


def test_item_records_that_are_passed_over_are_movement(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing but markers and aborted transactions for longer than work may stand."""

    async def run() -> None:
        log = Log(*[-1] * 30 * FETCH)
        followed = follower(monkeypatch, log)
        now = 0.0
        progress = Progress(10, lambda: now)
        starting = asyncio.ensure_future(followed.start())
        while not starting.done():
            before = log.at
            while log.at == before and not starting.done():
                await asyncio.sleep(0.001)
            now += STEP
            progress.look(followed.work())
        await starting
        await followed.stop()

    asyncio.run(run())


def test_an_open_transaction_that_keeps_the_catalogue_from_being_read_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    async def run() -> None:
        log = Log(*[1] * FETCH * 3)
        followed = follower(monkeypatch, log)
        starting = asyncio.ensure_future(followed.start())
        while not log.at:
            await asyncio.sleep(0)
        state = SimpleNamespace(position=log.at, has_valid_position=True, lso=log.at, highwater=log.at + 1)
        log.subscription = SimpleNamespace(assignment=SimpleNamespace(tps={PLACE}, state_value=lambda tp: state))
        held = f"an open transaction of another producer on items/0 since offset {log.at} holds it up"
        assert followed.work()["items"].held == held
        log.subscription = None
        await starting
        await followed.stop()

    asyncio.run(run())
