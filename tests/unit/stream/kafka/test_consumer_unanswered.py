"""Assigned partitions whose logs cannot be asked, or not in time: who holds them up is named, and the process ends."""

from __future__ import annotations

import asyncio
import logging
from types import SimpleNamespace
from typing import Any

import pytest
from aiokafka.errors import KafkaTimeoutError, LeaderNotAvailableError, TopicAuthorizationFailedError
from faust.transport.drivers import aiokafka as driver
from faust.types import TP

from stream.core.errors import BrokerError, FreshetError
from stream.kafka.consumer import SourceConsumer


class Ended(BaseException):
    """What `fatal` raises here in place of ending the process."""


def leaderless(**more: Any) -> Any:
    """A consumer that is told of no end of a log: the changelog's partition 3 has no leader."""
    consumer: Any = SourceConsumer.__new__(SourceConsumer)
    cluster = SimpleNamespace(
        _last_successful_refresh_ms=0, leader_for_partition=lambda tp: -1 if tp.partition == 3 else 1
    )
    client = SimpleNamespace(_client=SimpleNamespace(cluster=cluster), _coordinator=None)

    async def unanswered(*tps: TP) -> dict[TP, int]:
        await asyncio.sleep(1)
        raise KafkaTimeoutError

    vars(consumer).update(
        epoch=1, sources=frozenset({"clicks"}), _stopping=False, _drainer=None, _thread=SimpleNamespace(_consumer=client),
        _asked_beginnings=unanswered, _asked_ends=unanswered, _limit=0.02, _assign_limit=0.01, log=logging.getLogger("c"),
        app=SimpleNamespace(
            settings=SimpleNamespace(partitions=4), lease=SimpleNamespace(grant=lambda: None), changelog=lambda n: TP("log", n)
        ),
        held_up=lambda: "",
    )  # fmt: skip
    vars(consumer).update(more)
    return consumer


@pytest.fixture
def ended(monkeypatch: pytest.MonkeyPatch) -> list[BaseException]:
    errors: list[BaseException] = []

    def end(error: BaseException) -> None:
        errors.append(error)
        raise Ended

    monkeypatch.setattr("stream.kafka.consumer.fatal", end)
    return errors


def test_a_changelog_without_a_leader_is_named_before_the_lease_is_over(ended: list[BaseException]) -> None:
    with pytest.raises(Ended):
        asyncio.run(leaderless().on_partitions_assigned({TP("log", 2), TP("log", 3)}))
    assert [(type(one), str(one)) for one in ended] == [
        (
            BrokerError,
            "no answer for 0.01 s, so assigned partitions cannot begin: waits for a broker: log partition 3 has no leader",
        )
    ]


def test_a_takeover_that_an_open_transaction_holds_up_says_so(ended: list[BaseException]) -> None:
    held = "an open transaction of another producer on log/3 since offset 7 holds it up"
    with pytest.raises(Ended):
        asyncio.run(leaderless(held_up=lambda: held).on_partitions_assigned({TP("log", 2), TP("log", 3)}))
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

    consumer = leaderless(_asked_beginnings=refused)
    with pytest.raises(Ended):
        asyncio.run(consumer.on_partitions_assigned({TP("log", 3)}))
    consumer.settle, consumer._guard = settle, lambda: None
    with pytest.raises(Ended):
        asyncio.run(consumer.on_partitions_revoked(set()))
    assert ended == [error, error]


def test_what_can_be_asked_again_is_and_says_what_has_no_leader(caplog: pytest.LogCaptureFixture) -> None:
    answers: list[Exception | None] = [KafkaTimeoutError(), LeaderNotAvailableError(), None]

    async def beginnings(*tps: TP) -> dict[TP, int]:
        if error := answers.pop(0):
            raise error
        return dict.fromkeys(tps, 3)

    async def ends(*tps: TP) -> dict[TP, int]:
        return dict.fromkeys(tps, 7)

    consumer = leaderless(_asked_beginnings=beginnings, _asked_ends=ends, _pause=0.0)
    assert asyncio.run(consumer._logs([TP("log", 3)])) == {TP("log", 3): range(3, 7)}
    assert "log partition 3 has no leader" in caplog.text


def test_a_takeover_that_waits_ends_before_faust_loses_its_patience(
    ended: list[BaseException], monkeypatch: pytest.MonkeyPatch
) -> None:
    async def sought(consumer: Any) -> None:
        pass

    monkeypatch.setattr(driver.Consumer, "perform_seek", sought)
    consumer = leaderless(_read_offset={TP("clicks", 3): 5}, assignment=lambda: {TP("clicks", 3)})
    for asked in (consumer.perform_seek, lambda: consumer.highwaters(TP("clicks", 3))):
        with pytest.raises(Ended):
            asyncio.run(asked())
    assert [type(one) for one in ended] == [BrokerError] * 2
    assert all("clicks partition 3 has no leader" in str(one) for one in ended)
