"""Assigned partitions whose logs cannot be asked, or not in time: who holds them up is named, and the process ends."""

from __future__ import annotations

import asyncio
from types import SimpleNamespace
from typing import Any

import pytest
from aiokafka.errors import KafkaTimeoutError, LeaderNotAvailableError, TopicAuthorizationFailedError
from faust.types import TP

from stream.core.errors import BrokerError, FreshetError
from stream.kafka import broker_offsets
from tests.source_consumer import CHANGELOG, Owner, Thread, consumer_of


class Ended(BaseException):
    """What `fatal` raises here in place of ending the process."""


class Leaderless(Thread):
    """A thread that is told of no end of a log: the changelog's partition 3 has no leader."""

    def __init__(self) -> None:
        cluster = SimpleNamespace(
            _last_successful_refresh_ms=0, leader_for_partition=lambda tp: -1 if tp.partition == 3 else 1
        )
        super().__init__(aiokafka=SimpleNamespace(_client=SimpleNamespace(cluster=cluster), _coordinator=None))

    async def earliest_offsets(self, *tps: TP) -> dict[TP, int]:
        await asyncio.sleep(1)
        raise KafkaTimeoutError

    highwaters = earliest_offsets


def leaderless(thread: Thread | None = None, owner: Owner | None = None) -> Any:
    consumer = consumer_of(thread or Leaderless(), owner, partitions=4)
    consumer.app.lease = SimpleNamespace(grant=lambda: None, check=lambda: None)
    consumer._limit, consumer._broker._limit, consumer._assign_limit = 0.02, 0.02, 0.01
    return consumer


@pytest.fixture
def ended(monkeypatch: pytest.MonkeyPatch) -> list[BaseException]:
    errors: list[BaseException] = []

    def end(error: BaseException) -> None:
        errors.append(error)
        raise Ended

    for module in ("consumer", "broker_offsets"):
        monkeypatch.setattr(f"stream.kafka.{module}.fatal", end)
    return errors


def test_a_changelog_without_a_leader_is_named_before_the_lease_is_over(ended: list[BaseException]) -> None:
    with pytest.raises(Ended):
        asyncio.run(leaderless().on_partitions_assigned({TP(CHANGELOG, 2), TP(CHANGELOG, 3)}))
    assert [(type(one), str(one)) for one in ended] == [
        (
            BrokerError,
            "no answer for 0.01 s, so assigned partitions cannot begin: waits for a broker: "
            f"{CHANGELOG} partition 3 has no leader",
        )
    ]


def test_a_takeover_that_an_open_transaction_holds_up_says_so(ended: list[BaseException]) -> None:
    held = f"an open transaction of another producer on {CHANGELOG}/3 since offset 7 holds it up"
    owner = Owner()
    owner.held = held
    with pytest.raises(Ended):
        asyncio.run(leaderless(owner=owner).on_partitions_assigned({TP(CHANGELOG, 2), TP(CHANGELOG, 3)}))
    assert [(type(one), str(one)) for one in ended] == [
        (FreshetError, f"assigned partitions could not begin for 0.01 s: {held}")
    ]


@pytest.mark.parametrize("error", [TopicAuthorizationFailedError("log"), ValueError("a bug")])
def test_an_assignment_that_fails_ends_the_process_at_once(error: Exception, ended: list[BaseException]) -> None:
    """aiokafka would log it, and the worker wait for its partitions until stall_timeout."""

    async def refused(*tps: TP) -> dict[TP, int]:
        raise error

    async def settle(seconds: float) -> None:
        raise error

    thread = Leaderless()
    thread.earliest_offsets = refused  # type: ignore[method-assign]
    consumer = leaderless(thread)
    with pytest.raises(Ended):
        asyncio.run(consumer.on_partitions_assigned({TP(CHANGELOG, 3)}))
    consumer.settle = settle
    with pytest.raises(Ended):
        asyncio.run(consumer.on_partitions_revoked(set()))
    assert ended == [error, error]


def test_what_can_be_asked_again_is_and_says_what_has_no_leader(
    caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    answers: list[Exception | None] = [KafkaTimeoutError(), LeaderNotAvailableError(), None]

    async def beginnings(*tps: TP) -> dict[TP, int]:
        if error := answers.pop(0):
            raise error
        return dict.fromkeys(tps, 3)

    async def ends(*tps: TP) -> dict[TP, int]:
        return dict.fromkeys(tps, 7)

    thread = Leaderless()
    thread.earliest_offsets, thread.highwaters = beginnings, ends  # type: ignore[method-assign]
    monkeypatch.setattr(broker_offsets, "PAUSE", 0.0)
    consumer = leaderless(thread)
    assert asyncio.run(consumer._broker.logs([TP(CHANGELOG, 3)])) == {TP(CHANGELOG, 3): range(3, 7)}
    assert f"{CHANGELOG} partition 3 has no leader" in caplog.text


def test_a_takeover_that_waits_ends_before_faust_loses_its_patience(ended: list[BaseException]) -> None:
    thread = Leaderless()
    thread.assigned, thread.committed = {TP("clicks", 3)}, {TP("clicks", 3): 5}
    consumer = leaderless(thread)
    for asked in (consumer.perform_seek, lambda: consumer.highwaters(TP("clicks", 3))):
        with pytest.raises(Ended):
            asyncio.run(asked())
    assert [type(one) for one in ended] == [BrokerError] * 2
    assert all("clicks partition 3 has no leader" in str(one) for one in ended)
