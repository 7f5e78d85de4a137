"""The worker's clock follows the brokers' and no jump of the machine's."""

from __future__ import annotations

import asyncio
import time
from types import SimpleNamespace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from stream.core.errors import LeaseError
from stream.kafka.broker_clock import Clock, Difference, steady
from stream.kafka.lease import Lease
from stream.kafka.producer import Outgoing, RecordBatches

DAY = 86_400.0


class World:
    """The brokers' time, the machine's wall clock, and its steady clock."""

    def __init__(self, wall: float = 0.0) -> None:
        self.broker = 1_800_000_000.0
        self.wrong = wall  # seconds by which the wall clock is ahead of the brokers
        self.clock = Clock(lambda: self.broker + self.wrong, lambda: self.broker - 1_700_000_000)

    def send(self, to: float = 0.002, back: float = 0.003) -> None:
        """One send: `to` and `back` are the seconds that it and its acknowledgement take."""
        sent = self.clock.steady()
        self.broker += to
        append = int(self.broker * 1000)
        self.broker += back
        self.clock.learn(sent, append)

    def error(self) -> float:
        return self.clock.now() - self.broker


@pytest.mark.parametrize("wall", [-60 * DAY, 2 * 3600.0, -1_800_000_000.0, -2_000_000_000.0, 1.5, 10_000 * DAY])
def test_one_acknowledgement_sets_a_wrong_clock_right(wall: float) -> None:
    world = World(wall)
    assert world.error() == pytest.approx(wall)
    world.send()
    assert abs(world.error()) <= 0.006
    assert world.clock.offset == pytest.approx(-wall, abs=0.01)


def test_a_right_clock_is_left_alone() -> None:
    world = World()
    for to, back in ((0.002, 0.003), (0.0, 0.0), (5.0, 0.001), (0.001, 9.0)):
        world.send(to, back)
        assert world.error() == pytest.approx(0, abs=1e-6)
    assert world.clock.offset == pytest.approx(0, abs=1e-6)


def test_a_jump_of_the_wall_clock_moves_nothing_and_shows() -> None:
    world = World()
    world.send()
    world.wrong = 7_200
    assert world.error() == pytest.approx(0, abs=1e-6)
    assert world.clock.offset == pytest.approx(-7_200)


def test_a_slow_send_does_not_undo_what_a_quick_one_told() -> None:
    world = World(-3.0)
    world.send(0.001, 0.001)
    world.send(10.0, 10.0)
    assert abs(world.error()) <= 0.003


def test_a_topic_that_keeps_the_senders_time_tells_nothing() -> None:
    world = World(100.0)
    world.clock.learn(world.clock.steady(), -1)
    assert world.error() == pytest.approx(100)


def test_no_time_before_1970_leaves_the_worker() -> None:
    world = World(-2_000_000_000.0)
    assert world.clock.now() < 0
    assert world.clock.now_ms() == 0


@given(
    st.floats(-1e9, 1e9),
    st.lists(st.tuples(st.floats(0, 5), st.floats(0, 5), st.floats(-1e6, 1e6)), min_size=1, max_size=20),
)
def test_the_error_is_at_most_what_the_quickest_send_took(wall: float, sends: list[tuple[float, float, float]]) -> None:
    world = World(wall)
    for to, back, jump in sends:
        world.send(to, back)
        world.wrong += jump
    assert abs(world.error()) <= min(to + back for to, back, _ in sends) + 0.002


def test_sleep_of_the_machine_counts_for_the_lease(monkeypatch: pytest.MonkeyPatch) -> None:
    """CLOCK_MONOTONIC stands still while a machine sleeps; another worker may have been given the partitions meanwhile."""
    slept = 0.0
    clock = time.clock_gettime
    monkeypatch.setattr(
        "time.clock_gettime", lambda which: clock(which) + (slept if which == time.CLOCK_BOOTTIME else 0)
    )
    lease = Lease(10.0)
    lease.grant()
    lease.check()
    slept = 3600.0
    with pytest.raises(LeaseError, match="no heartbeat for 3600"):
        lease.check()


def test_steady_grows() -> None:
    assert steady() <= steady()


class Batch:
    """aiokafka's, of one record."""

    def __init__(self, stamps: list[int]) -> None:
        self._stamps = stamps

    def append(self, timestamp: int, **record: object) -> object:
        self._stamps.append(timestamp)
        return object()

    def close(self) -> None:
        pass

    def record_count(self) -> int:
        return 1


class Producer:
    """aiokafka's, against a broker that keeps its own time."""

    def __init__(self, world: World) -> None:
        self.stamps: list[int] = []
        self._world = world

    def create_batch(self) -> Batch:
        return Batch(self.stamps)

    async def send_batch(self, batch: Batch, topic: str, partition: int) -> asyncio.Future[Any]:
        self._world.broker += 0.001
        acknowledged: asyncio.Future[Any] = asyncio.get_running_loop().create_future()
        append = int(self._world.broker * 1000)
        acknowledged.set_result(SimpleNamespace(offset=5, timestamp=append, timestamp_type=1))
        return acknowledged


@pytest.mark.parametrize("wall", [-60 * DAY, 2 * 3600.0, -1_900_000_000.0])
def test_what_is_sent_carries_the_brokers_time_from_the_first_acknowledgement_on(wall: float) -> None:
    world = World(wall)
    producer = Producer(world)
    batches = RecordBatches(producer, 5.0, world.clock)
    first = world.clock.now_ms()
    for _ in range(2):
        asyncio.run(batches.send({("slates", 0): [Outgoing(b"k", b"v")]}))
    assert producer.stamps[0] == first >= 0
    assert abs(producer.stamps[1] - world.broker * 1000) < 5


def test_a_wrong_clock_is_said_once(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level("INFO")
    difference = Difference()
    for offset in (0.0, 4.0, 7_200.0, 7_200.1, 7_199.0, 0.2, 0.0, -6.0):
        difference.look(offset)
    messages = [(record.levelname, record.__dict__["offset_seconds"]) for record in caplog.records]
    assert messages == [("WARNING", 7_200.0), ("INFO", 0.2), ("WARNING", -6.0)]
