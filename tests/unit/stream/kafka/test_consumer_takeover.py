"""A worker takes assigned partitions over: where each begins is committed, then it is claimed, then it is fetched."""

from __future__ import annotations

import asyncio
from types import SimpleNamespace
from typing import Any

import pytest
from aiokafka.errors import CommitFailedError
from aiokafka.structs import OffsetAndMetadata, TopicPartition
from faust.types import TP

from stream.core.errors import FreshetError, LossError
from stream.kafka.truncation import CommitMetadata, decode, encode
from tests.source_consumer import CHANGELOG, Thread, consumer_of, watch_cuts


def test_nothing_is_fetched_before_the_takeover_of_this_very_assignment() -> None:
    """Faust may call the recovery of a former assignment complete: its claims are cleared under the micro-batch."""

    async def check() -> None:
        consumer = consumer_of(Thread())
        consumer.app.tables.actives_ready = True
        consumer.group.epoch = 1
        calls: list[set[int]] = []

        async def overtaken(partitions: set[int]) -> None:
            calls.append(partitions)
            await consumer.quiesce()

        async def in_peace(partitions: set[int]) -> None:
            calls.append(partitions)

        assert not consumer.flows()
        consumer.owner.claim = overtaken
        await consumer.perform_seek()
        assert not consumer.flows()
        consumer.owner.claim = in_peace
        await consumer.perform_seek()
        assert consumer.flows()
        await consumer.quiesce()
        assert not consumer.flows()
        assert len(calls) == 2

    asyncio.run(check())


@pytest.mark.parametrize("rebalanced", [False, True])
def test_where_a_partition_begins_is_committed_before_it_is_claimed(rebalanced: bool) -> None:
    """A claim without a commit says that the commit has expired: no crash may leave one. And no commit, no claim."""
    fresh, known = TP("clicks", 0), TP("ratings", 0)
    steps: list[Any] = []

    async def commit(offsets: Any) -> None:
        steps.append({TP(*tp): one.offset for tp, one in offsets.items()})
        if rebalanced:
            raise CommitFailedError

    async def committed(tps: Any) -> Any:
        return {one: OffsetAndMetadata(9, encode(CommitMetadata(9))) for one in tps}

    async def claim(partitions: set[int]) -> None:
        steps.append(partitions)

    async def check() -> None:
        thread = Thread(9, 9)
        thread.assigned, thread.committed = {fresh, known}, {fresh: None, known: 9}
        consumer = consumer_of(thread)
        consumer.owner.claim = claim
        consumer.group.epoch = 1
        aiokafka = SimpleNamespace(
            _client=None, commit=commit, _coordinator=SimpleNamespace(fetch_committed_offsets=committed)
        )
        watch_cuts(consumer, aiokafka)
        await consumer.perform_seek()
        assert steps == ([{fresh: 9}] if rebalanced else [{fresh: 9}, {0}])
        assert consumer.group.claimed == (-1 if rebalanced else 1)

    asyncio.run(check())


@pytest.mark.parametrize("overtaken", [True, False])
def test_what_a_takeover_finds_that_a_rebalance_has_overtaken_ends_no_worker(
    overtaken: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its partitions are closed by then: reading their claims says so."""
    ours = TP("clicks", 0)
    closed = FreshetError("partition 0 of the table is not open here: this is a bug")
    crashes: list[BaseException] = []

    async def check() -> None:
        thread = Thread()
        thread.assigned, thread.committed = {ours}, {ours: None}
        consumer = consumer_of(thread)

        async def claim(partitions: set[int]) -> None:
            consumer.group.epoch += overtaken
            raise closed

        async def commit(offsets: Any) -> None:
            pass

        consumer.owner.claim = claim
        watch_cuts(consumer, SimpleNamespace(_client=None, commit=commit))
        await consumer.perform_seek()
        assert consumer.group.claimed == -1

    monkeypatch.setattr("stream.kafka.consumer.fatal", crashes.append)
    asyncio.run(check())
    assert crashes == ([] if overtaken else [closed])


@pytest.mark.parametrize(
    ("idle", "end", "lost"),
    [
        (CommitMetadata(40, written=600), 500, 101),  # the changelog was cut off at 500
        (CommitMetadata(40, written=600), 0, 1),  # it is empty
        (CommitMetadata(40, written=300, cut=30), 700, 10),  # the log of the source was, at 30
    ],
)
def test_a_cut_that_is_accepted_is_told_once(
    monkeypatch: pytest.MonkeyPatch, idle: CommitMetadata, end: int, lost: int
) -> None:
    """Also where nothing comes to a source any more, so that its offset stays: not at a rebalance, not once told otherwise."""
    tp = TopicPartition("ratings", 0)
    group = {tp: OffsetAndMetadata(40, encode(idle))}

    async def commit(offsets: Any) -> None:
        group.update(offsets)

    async def committed(tps: Any) -> Any:
        return {one: group[one] for one in tps}

    async def start(accept: bool, end: int) -> list[int]:
        thread = Thread(0, 40)
        thread.assigned, thread.committed = {TP(*tp)}, {TP(*tp): 40}

        async def ends(*tps: TP) -> dict[TP, int]:
            return {tp: end if tp.topic == CHANGELOG else 40 for tp in tps}

        thread.highwaters = ends  # type: ignore[method-assign]
        consumer = consumer_of(thread, accept_loss=accept)
        consumer.owner.claimed = True
        aiokafka = SimpleNamespace(
            _client=None, commit=commit, _coordinator=SimpleNamespace(fetch_committed_offsets=committed)
        )
        watch_cuts(consumer, aiokafka)
        await consumer.perform_seek()
        return list(consumer.lost)

    def fail(error: BaseException) -> None:
        raise error

    monkeypatch.setattr("stream.kafka.consumer.fatal", fail)
    with pytest.raises(LossError):
        asyncio.run(start(False, end))
    assert asyncio.run(start(True, end)) == [lost]
    assert asyncio.run(start(True, end + 1)) == []
    assert asyncio.run(start(False, end + 1)) == []
    assert group[tp].offset == 40
    assert decode(group[tp].metadata).written in (end - 1, 300)


@pytest.mark.parametrize("metadata", ["", "somebody", "[]", '{"read": 39}', '{"epoch": 3}', encode(CommitMetadata(39))])
def test_an_offset_that_no_worker_committed_is_refused_where_a_worker_has_begun(
    monkeypatch: pytest.MonkeyPatch, metadata: str
) -> None:
    """Moved forward while no worker ran: what lies before it would be in no state, and nothing would tell."""
    tp = TP("ratings", 0)
    group = {TopicPartition(*tp): OffsetAndMetadata(40, metadata)}
    steps: list[str] = []

    async def commit(offsets: Any) -> None:
        steps.append("commit")
        group.update(offsets)

    async def committed(tps: Any) -> Any:
        return {one: group[one] for one in tps}

    async def claim(partitions: set[int]) -> None:
        steps.append("claim")

    async def start(accept: bool, claimed: bool) -> list[int]:
        thread = Thread(0, 90)
        thread.assigned, thread.committed = {tp}, {tp: 40}

        async def ends(*tps: TP) -> dict[TP, int]:
            return {tp: 500 if tp.topic == CHANGELOG else 90 for tp in tps}

        thread.highwaters = ends  # type: ignore[method-assign]
        consumer = consumer_of(thread, accept_loss=accept, app_id="an-app")
        consumer.owner.claim, consumer.owner.is_claimed = claim, lambda partition: claimed and partition == 0
        aiokafka = SimpleNamespace(
            _client=None, commit=commit, _coordinator=SimpleNamespace(fetch_committed_offsets=committed)
        )
        watch_cuts(consumer, aiokafka)
        await consumer.perform_seek()
        assert consumer.positions.next == {tp: 40}
        return list(consumer.lost)

    def fail(error: BaseException) -> None:
        raise error

    monkeypatch.setattr("stream.kafka.consumer.fatal", fail)
    foreign = dict(group)
    message = "ratings partition 0: offset 40 of the group an-app was not committed by a worker.*delete-offsets.*--accept-loss"
    with pytest.raises(LossError, match=message):
        asyncio.run(start(False, claimed=True))
    assert steps == []
    # where no worker has begun, whoever committed has said where to; the first one to begin says so in its own words
    for accept, claimed, lost in ((True, True, [1]), (False, False, [])):
        group.update(foreign)
        steps.clear()
        assert asyncio.run(start(accept, claimed)) == lost
        assert steps == ["commit", "claim"]
        assert asyncio.run(start(False, claimed=True)) == [], "and is told once"
