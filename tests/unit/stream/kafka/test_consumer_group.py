"""A worker's place in its group, as aiokafka keeps it with the settings that freshet gives it."""

from __future__ import annotations

import asyncio
import time
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from aiokafka.consumer.group_coordinator import GroupCoordinator
from aiokafka.protocol.group import JoinGroupRequest

from stream.app import InterestApp
from stream.kafka.losses import Losses
from stream.kafka.source_thread import SourceThread
from stream.settings import Settings
from tests.source_consumer import Owner

DAY = 86_400.0
BEATS = 5


def consumer_of(folder: Path) -> Any:
    """aiokafka's consumer as a worker makes it; not started."""
    app = InterestApp(Settings(data_dir=folder))
    membership: Any = None
    app.use(membership, {}, Owner(), Losses(False, lambda records: None))
    thread: Any = SourceThread.__new__(SourceThread)
    thread.app, thread.transport = app, app.transport
    thread.consumer = SimpleNamespace(in_transaction=False)
    return thread._create_worker_consumer(app.transport)


async def beats(consumer: Any, idle: float) -> tuple[int, int]:
    """How many heartbeats a member sends that has fetched nothing for `idle` seconds, of BEATS, and how often it leaves."""
    coordinator = GroupCoordinator(
        consumer._client, consumer._subscription, group_id="app", heartbeat_interval_ms=1,
        max_poll_interval_ms=consumer._max_poll_interval_ms,
    )  # fmt: skip
    sent = left = 0

    async def beat() -> bool:
        nonlocal sent
        sent += 1
        if sent == BEATS:
            coordinator.member_id = JoinGroupRequest.UNKNOWN_MEMBER_ID  # ends the routine
        return True

    async def leave() -> None:
        nonlocal left
        left += 1
        coordinator.reset_generation()  # as aiokafka does: nobody sends a heartbeat after that

    coordinator.member_id, coordinator.coordinator_id = "member", 1
    coordinator._do_heartbeat, coordinator._maybe_leave_group = beat, leave
    consumer._subscription._last_fetch_ended = time.monotonic() - idle
    try:
        async with asyncio.timeout(10):
            await coordinator._heartbeat_routine()
    finally:
        coordinator._coordination_task.cancel()
    return sent, left


@pytest.mark.parametrize("idle", [0.0, 999.0, 1_001.0, 30 * DAY])
def test_a_worker_that_owns_no_partition_stays_in_the_group(tmp_path: Path, idle: float) -> None:
    """It has nothing to fetch, for as long as others own everything; whether a worker gets on the stall watch says."""

    async def run() -> tuple[int, int]:
        consumer = consumer_of(tmp_path)
        try:
            return await beats(consumer, idle)
        finally:
            await consumer.stop()

    assert asyncio.run(run()) == (BEATS, 0)


def test_a_group_would_be_left_where_a_limit_is_set(tmp_path: Path) -> None:
    """So that the test above fails if aiokafka looks elsewhere one day."""

    async def run() -> tuple[int, int]:
        consumer = consumer_of(tmp_path)
        consumer._max_poll_interval_ms = 1_000_000
        try:
            return await beats(consumer, 1_001)
        finally:
            await consumer.stop()

    assert asyncio.run(run()) == (1, 1)
