"""A worker takes assigned partitions over: where each begins is committed, then it is claimed, then it is fetched."""

from __future__ import annotations

import asyncio
from types import SimpleNamespace
from typing import Any

import pytest
from aiokafka.errors import CommitFailedError
from aiokafka.structs import OffsetAndMetadata, TopicPartition
from faust.transport.drivers import aiokafka as driver
from faust.types import TP

from stream.core.errors import FreshetError, LossError
from stream.kafka.consumer import SourceConsumer
from stream.kafka.truncation import Beside, decode, encode


def test_nothing_is_fetched_before_the_takeover_of_this_very_assignment(monkeypatch: pytest.MonkeyPatch) -> None:
    """Faust may call the recovery of a former assignment complete: its claims are cleared under the micro-batch."""

    async def check() -> None:
        consumer: Any = SourceConsumer.__new__(SourceConsumer)
        app = SimpleNamespace(tables=SimpleNamespace(actives_ready=True), rebalancing=False, should_stop=False)
        vars(consumer).update(
            app=app, sources=frozenset(), assignment=set, on_revoked=lambda: None, epoch=1, flow_active=True, _drainer=None,
            _changed=asyncio.Event(), _claimed=-1, _stopping=False, _fetch=None, _running=None, _pending=None, _next={},
            _handed={}, _safe={},
        )  # fmt: skip
        calls: list[set[int]] = []

        async def overtaken(partitions: set[int]) -> None:
            calls.append(partitions)
            await consumer.quiesce()

        async def in_peace(partitions: set[int]) -> None:
            calls.append(partitions)

        assert not consumer._open()
        consumer.take_over = overtaken
        await consumer.perform_seek()
        assert not consumer._open()
        consumer.take_over = in_peace
        await consumer.perform_seek()
        assert consumer._open()
        await consumer.quiesce()
        assert not consumer._open()
        assert len(calls) == 2

    async def sought(consumer: Any) -> None:
        pass

    async def nothing_lost(consumer: Any, tps: Any) -> dict[TP, int]:
        return {}

    monkeypatch.setattr(driver.Consumer, "perform_seek", sought)
    monkeypatch.setattr(SourceConsumer, "_begin", nothing_lost)
    monkeypatch.setattr(SourceConsumer, "_refuse_empty", nothing_lost)
    monkeypatch.setattr(SourceConsumer, "should_stop", False)
    asyncio.run(check())


@pytest.mark.parametrize("rebalanced", [False, True])
def test_where_a_partition_begins_is_committed_before_it_is_claimed(
    monkeypatch: pytest.MonkeyPatch, rebalanced: bool
) -> None:
    """A claim without a commit says that the commit has expired: no crash may leave one. And no commit, no claim."""
    fresh, known = TP("clicks", 0), TP("ratings", 0)
    steps: list[Any] = []

    async def sought(consumer: Any) -> None:
        consumer._read_offset.update({fresh: None, known: 9})

    async def commit(offsets: Any) -> None:
        steps.append({TP(*place): one.offset for place, one in offsets.items()})
        if rebalanced:
            raise CommitFailedError

    async def claim(partitions: set[int]) -> None:
        steps.append(partitions)

    async def ends(*tps: TP) -> dict[TP, int]:
        return dict.fromkeys(tps, 9)

    async def check() -> None:
        consumer: Any = SourceConsumer.__new__(SourceConsumer)

        async def seek(offsets: dict[TP, int]) -> None:
            pass

        vars(consumer).update(
            app=SimpleNamespace(), sources=frozenset({"clicks", "ratings"}), assignment=lambda: {fresh, known}, epoch=1,
            _drainer=None, _stopping=False, _claimed=-1, _next={}, _handed={}, _safe={}, _read_offset={},
            _committed_offset={}, claimed=lambda partition: False, take_over=claim, seek_wait=seek, _asked_ends=ends,
            _asked_beginnings=lambda *tps: ends(*tps),
        )  # fmt: skip
        aiokafka = SimpleNamespace(_client=None, commit=commit)
        consumer._thread = SimpleNamespace(cuts=consumer.cuts(aiokafka), thread_loop=asyncio.get_running_loop())
        await consumer.perform_seek()
        assert steps == ([{fresh: 9}] if rebalanced else [{fresh: 9}, {0}])
        assert consumer._claimed == (-1 if rebalanced else 1)

    monkeypatch.setattr(driver.Consumer, "perform_seek", sought)
    asyncio.run(check())


@pytest.mark.parametrize("overtaken", [True, False])
def test_what_a_takeover_finds_that_a_rebalance_has_overtaken_ends_no_worker(
    overtaken: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its partitions are closed by then: reading their claims says so."""
    ours = TP("clicks", 0)
    closed = FreshetError("partition 0 of the table is not open here: this is a bug")
    told: list[BaseException] = []

    async def sought(consumer: Any) -> None:
        consumer._read_offset[ours] = None

    async def check() -> None:
        consumer: Any = SourceConsumer.__new__(SourceConsumer)

        async def claim(partitions: set[int]) -> None:
            consumer.epoch += overtaken
            raise closed

        async def ends(*tps: TP) -> dict[TP, int]:
            return dict.fromkeys(tps, 0)

        async def commit(offsets: Any) -> None:
            pass

        async def seek(offsets: dict[TP, int]) -> None:
            pass

        vars(consumer).update(
            app=SimpleNamespace(), sources=frozenset({"clicks"}), assignment=lambda: {ours}, epoch=1, _drainer=None,
            _stopping=False, _claimed=-1, _next={}, _handed={}, _safe={}, _read_offset={}, _committed_offset={},
            claimed=lambda partition: False, take_over=claim, _asked_ends=ends, _asked_beginnings=ends, seek_wait=seek,
        )  # fmt: skip
        aiokafka = SimpleNamespace(_client=None, commit=commit)
        consumer._thread = SimpleNamespace(cuts=consumer.cuts(aiokafka), thread_loop=asyncio.get_running_loop())
        await consumer.perform_seek()
        assert consumer._claimed == -1

    monkeypatch.setattr(driver.Consumer, "perform_seek", sought)
    monkeypatch.setattr("stream.kafka.consumer.fatal", told.append)
    asyncio.run(check())
    assert told == ([] if overtaken else [closed])


@pytest.mark.parametrize(
    ("idle", "end", "lost"),
    [
        (Beside(40, written=600), 500, 101),  # the changelog was cut off at 500
        (Beside(40, written=600), 0, 1),  # it is empty
        (Beside(40, written=300, cut=30), 700, 10),  # the log of the source was, at 30
    ],
)
def test_a_cut_that_is_accepted_is_told_once(
    monkeypatch: pytest.MonkeyPatch, idle: Beside, end: int, lost: int
) -> None:
    """Also where nothing comes to a source any more, so that its offset stays: not at a rebalance, not once told otherwise."""
    place = TopicPartition("ratings", 0)
    group = {place: OffsetAndMetadata(40, encode(idle))}

    async def sought(consumer: Any) -> None:
        consumer._read_offset, consumer._committed_offset = {TP(*place): 40}, {TP(*place): 40}

    async def commit(offsets: Any) -> None:
        group.update(offsets)

    async def committed(places: Any) -> Any:
        return {one: group[one] for one in places}

    async def claim(partitions: set[int]) -> None:
        pass

    async def start(accept: bool, end: int) -> list[int]:
        consumer: Any = SourceConsumer.__new__(SourceConsumer)
        counted: list[int] = []

        async def ends(*tps: TP) -> dict[TP, int]:
            return {tp: end if tp.topic == "changelog" else 40 for tp in tps}

        async def starts(*tps: TP) -> dict[TP, int]:
            return dict.fromkeys(tps, 0)

        app = SimpleNamespace(
            changelog=lambda partition: TP("changelog", partition),
            settings=SimpleNamespace(accept_loss=accept, request_timeout=1),
        )
        vars(consumer).update(
            app=app, sources=frozenset({"ratings"}), assignment=lambda: {TP(*place)}, epoch=1, _drainer=None,
            _stopping=False, _next={}, _handed={}, _safe={}, take_over=claim, _asked_ends=ends, _asked_beginnings=starts,
            claimed=lambda partition: True,
            log=SimpleNamespace(error=lambda *said: None), on_accepted_loss=counted.append,
        )  # fmt: skip
        aiokafka = SimpleNamespace(
            _client=None, commit=commit, _coordinator=SimpleNamespace(fetch_committed_offsets=committed)
        )
        consumer._thread = SimpleNamespace(cuts=consumer.cuts(aiokafka), thread_loop=asyncio.get_running_loop())
        await consumer.perform_seek()
        return counted

    def fail(error: BaseException) -> None:
        raise error

    monkeypatch.setattr(driver.Consumer, "perform_seek", sought)
    monkeypatch.setattr("stream.kafka.consumer.fatal", fail)
    with pytest.raises(LossError):
        asyncio.run(start(False, end))
    assert asyncio.run(start(True, end)) == [lost]
    assert asyncio.run(start(True, end + 1)) == []
    assert asyncio.run(start(False, end + 1)) == []
    assert group[place].offset == 40
    assert decode(group[place].metadata).written in (end - 1, 300)


@pytest.mark.parametrize("metadata", ["", "somebody", "[]", '{"read": 39}', '{"epoch": 3}', encode(Beside(39))])
def test_an_offset_that_no_worker_committed_is_refused_where_a_worker_has_begun(
    monkeypatch: pytest.MonkeyPatch, metadata: str
) -> None:
    """Moved forward while no worker ran: what lies before it would be in no state, and nothing would tell."""
    place = TP("ratings", 0)
    group = {TopicPartition(*place): OffsetAndMetadata(40, metadata)}
    steps: list[str] = []

    async def sought(consumer: Any) -> None:
        consumer._read_offset, consumer._committed_offset = {place: 40}, {place: 40}

    async def commit(offsets: Any) -> None:
        steps.append("commit")
        group.update(offsets)

    async def committed(places: Any) -> Any:
        return {one: group[one] for one in places}

    async def claim(partitions: set[int]) -> None:
        steps.append("claim")

    async def start(accept: bool, claimed: bool) -> list[int]:
        consumer: Any = SourceConsumer.__new__(SourceConsumer)
        counted: list[int] = []

        async def ends(*tps: TP) -> dict[TP, int]:
            return {tp: 500 if tp.topic == "changelog" else 90 for tp in tps}

        async def starts(*tps: TP) -> dict[TP, int]:
            return dict.fromkeys(tps, 0)

        app = SimpleNamespace(
            changelog=lambda partition: TP("changelog", partition), conf=SimpleNamespace(id="an-app"),
            settings=SimpleNamespace(accept_loss=accept, request_timeout=1),
        )  # fmt: skip
        vars(consumer).update(
            app=app, sources=frozenset({"ratings"}), assignment=lambda: {place}, epoch=1, _drainer=None,
            _stopping=False, _next={}, _handed={}, _safe={}, take_over=claim, _asked_ends=ends, _asked_beginnings=starts,
            log=SimpleNamespace(error=lambda *said: None), on_accepted_loss=counted.append,
            claimed=lambda partition: claimed and partition == 0,
        )  # fmt: skip
        aiokafka = SimpleNamespace(
            _client=None, commit=commit, _coordinator=SimpleNamespace(fetch_committed_offsets=committed)
        )
        consumer._thread = SimpleNamespace(cuts=consumer.cuts(aiokafka), thread_loop=asyncio.get_running_loop())
        await consumer.perform_seek()
        assert consumer._next == {place: 40}
        return counted

    def fail(error: BaseException) -> None:
        raise error

    monkeypatch.setattr(driver.Consumer, "perform_seek", sought)
    monkeypatch.setattr("stream.kafka.consumer.fatal", fail)
    foreign = dict(group)
    said = "ratings partition 0: offset 40 of the group an-app was not committed by a worker.*delete-offsets.*--accept-loss"
    with pytest.raises(LossError, match=said):
        asyncio.run(start(False, claimed=True))
    assert steps == []
    # where no worker has begun, whoever committed has said where to; the first one to begin says so in its own words
    for accept, claimed, lost in ((True, True, [1]), (False, False, [])):
        group.update(foreign)
        steps.clear()
        assert asyncio.run(start(accept, claimed)) == lost
        assert steps == ["commit", "claim"]
        assert asyncio.run(start(False, claimed=True)) == [], "and is told once"
