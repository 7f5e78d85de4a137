"""Fencing: what it costs to refuse a stalled worker's late write, by claims in the changelog and by Kafka's transactions.

The write of a micro-batch alone is measured, with records of real size and without models (tests.bench.writers), each way in
turn: at a rate, from the moment when a micro-batch is ready until a read_committed reader has each slate, and from when
its event was due; in full micro-batches, events a second and CPU. CPU is that of the writing process. Then takeovers:
how long a new owner needs to get every partition, after an owner at rest and after one that stalled amid a write, and
whether each late write of the old one is refused.
"""

from __future__ import annotations

import asyncio
import json
import math
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from aiokafka.errors import ProducerFenced

from stream.core.errors import FencedError
from stream.settings import Settings
from tests.bench.latency import Quantiles, quantiles
from tests.bench.machine import load_average
from tests.bench.reading import SlateLog
from tests.bench.world import World
from tests.bench.writers import WAYS, Order, Update, Written, producer, run, times
from tests.worker_process import environment, until

FENCED = ("claims", "transactions")
LATE = b"late"  # the user of late writes


@dataclass(frozen=True)
class Plan:
    """ways: claims and others; seconds: of one measurement at a rate; events: of one in full micro-batches; timeout: of the
    transaction that a worker leaves open which nobody succeeds, in seconds (0: not measured)."""

    ways: tuple[str, ...] = tuple(WAYS)
    rates: tuple[int, ...] = (200, 1000)
    partitions: tuple[int, ...] = (1, 4, 16)
    seconds: float = 5.0
    events: int = 20_000
    rounds: int = 3
    timeout: float = 1.0
    seed: int = 1


@dataclass(frozen=True)
class Writing:
    """One measurement of one way. rate: 0 for full micro-batches; milliseconds from a micro-batch ready and from an event
    due to the slate in a reader's hands; unread: slates that did not come; batch: events a micro-batch."""

    way: str
    rate: int
    partitions: int
    ready: Quantiles
    due: Quantiles
    unread: int
    batch: float
    cpu_us: float
    events_per_s: float
    load: float


@dataclass(frozen=True)
class Takeover:
    """stalled: the old owner stands amid a write; ms: until the new one may write; refused: partitions whose late write was."""

    way: str
    partitions: int
    stalled: bool
    ms: float
    refused: int


@dataclass(frozen=True)
class Fencing:
    """held: seconds for which a transaction left open, of this timeout, keeps a reader from what follows it."""

    writings: list[Writing]
    takeovers: list[Takeover]
    timeout: float
    held: float


def measure(world: World, plan: Plan, report: Callable[[Writing | Takeover], None] = lambda one: None) -> Fencing:
    """Each way at every rate and number of partitions, and in full micro-batches, in turn, `rounds` times."""
    writings, takeovers = [], []
    _warm(world)
    for number in range(plan.rounds):
        for partitions in plan.partitions:
            for rate in (*plan.rates, 0):
                for way in plan.ways:
                    writing = one(world, way, rate, partitions, plan, plan.seed + number)
                    report(writing)
                    writings.append(writing)
            for way in FENCED:
                for stalled in (False, True):
                    takeover = taken_over(world.settings(partitions=partitions), world.scratch(), way, stalled)
                    report(takeover)
                    takeovers.append(takeover)
    held = run(_held(world.settings(partitions=1), plan.timeout)) if plan.timeout else 0.0
    return Fencing(writings, takeovers, plan.timeout, held)


def _warm(world: World) -> None:
    """The broker makes its topic of transactions at the first one."""
    taken_over(world.settings(partitions=1), world.scratch(), "transactions", stalled=False)


def one(world: World, way: str, rate: int, partitions: int, plan: Plan, seed: int) -> Writing:
    settings = world.settings(partitions=partitions)
    load = load_average()
    if not rate:
        written = _write(settings, Order(way, 0, plan.events, seed))
        nothing = quantiles([])
        ready, due, unread, events = nothing, nothing, 0, plan.events
    else:
        events = int(rate * plan.seconds)
        with SlateLog(settings) as slates:
            written = _write(settings, Order(way, rate, events, seed))
            until(slates.quiet, 10, "all slates are read")
        found = [(arrived, *times(value)) for arrived, _, value in slates.arrivals]
        found = [each for each in found if each[1]]
        ready = quantiles([arrived - when * 1000 for arrived, _, when in found])
        due = quantiles([arrived - when * 1000 for arrived, when, _ in found])
        unread = events - len(found)
    return Writing(
        way, rate, partitions, ready, due, unread, events / written.batches, written.cpu * 1e6 / events,
        events / written.seconds, load,
    )  # fmt: skip


def _write(settings: Settings, order: Order) -> Written:
    command = [sys.executable, "-m", "tests.bench.writers", order.text()]
    done = subprocess.run(command, env=environment(settings), stdout=subprocess.PIPE, check=True)
    return Written(**json.loads(done.stdout))


def taken_over(settings: Settings, folder: Path, way: str, stalled: bool) -> Takeover:
    """One owner of all partitions after another, then a late write of the first to each partition."""
    takeover: Takeover = run(_taken_over(settings, folder, way, stalled))
    return takeover


async def _taken_over(settings: Settings, folder: Path, way: str, stalled: bool) -> Takeover:
    asyncio.get_running_loop().set_exception_handler(_not_awaited)
    partitions = range(settings.partitions)
    old, new = WAYS[way](settings, folder / "old"), WAYS[way](settings, folder / "new")
    await old.open()
    await old.take_over()
    await old.write({partition: [Update(b"ann", b"1", b"1")] for partition in partitions})
    await new.open()
    if stalled:
        await old.stall({partition: [Update(b"ann", b"2", b"2")] for partition in partitions})
    began = time.perf_counter()
    await new.take_over()
    ms = (time.perf_counter() - began) * 1000
    await new.write({partition: [Update(b"ann", b"3", b"3")] for partition in partitions})
    refused = 0
    for partition in partitions:
        try:
            await old.write({partition: [Update(LATE, LATE, LATE)]})
        except (FencedError, ProducerFenced):
            refused += 1
    await new.write({partition: [Update(b"ann", b"4", b"4")] for partition in partitions})
    await new.close()
    await old.close()
    return Takeover(way, settings.partitions, stalled, ms, refused)


def _not_awaited(loop: asyncio.AbstractEventLoop, context: dict[str, Any]) -> None:
    """aiokafka sets a refusal on more futures than anybody awaits."""
    if not isinstance(context.get("exception"), ProducerFenced):
        loop.default_exception_handler(context)


async def _held(settings: Settings, timeout: float) -> float:
    """Seconds until a reader gets a slate that follows an open transaction of an owner that nobody succeeds."""
    lost = producer(settings, settings.app_id, timeout)
    plain = producer(settings)
    await lost.start()
    await plain.start()
    try:
        with SlateLog(settings) as slates:
            await lost.begin_transaction()
            await lost.send_and_wait(settings.recommendations_topic, b"lost", b"ann", partition=0)
            began = time.time()
            await plain.send_and_wait(settings.recommendations_topic, b"next", b"ann", partition=0)
            until(lambda: slates.arrivals, timeout + 30, "the broker aborts the transaction")
            assert [value for _, _, value in slates.arrivals] == [b"next"]
            return slates.arrivals[0][0] / 1000 - began
    finally:
        await plain.stop()
        await lost.stop()


@dataclass(frozen=True)
class Summary:
    """Medians over the rounds; against: this way over claims (p50 and p99 from ready, CPU), round by round, the median."""

    way: str
    rate: int
    partitions: int
    ready_p50: float
    ready_p99: float
    due_p50: float
    due_p99: float
    batch: float
    cpu_us: float
    events_per_s: float
    against: dict[str, float]


def summarise(writings: list[Writing]) -> list[Summary]:
    groups: dict[tuple[int, int, str], list[Writing]] = {}
    for writing in writings:
        groups.setdefault((writing.rate, writing.partitions, writing.way), []).append(writing)
    found = []
    for (rate, partitions, way), mine in sorted(groups.items(), key=lambda pair: (pair[0][1], pair[0][0] or math.inf)):
        claims = groups[rate, partitions, "claims"]
        against = {
            name: statistics.median(of(one) / of(other) for one, other in zip(mine, claims, strict=True))
            for name, of in _RATIOS.items()
            if rate or name in ("CPU", "events/s")
        }
        medians = {name: statistics.median(of(one) for one in mine) for name, of in _FIGURES.items()}
        found.append(Summary(way, rate, partitions, **medians, against=against))
    return found


_FIGURES: dict[str, Callable[[Writing], float]] = {
    "ready_p50": lambda one: one.ready.p50,
    "ready_p99": lambda one: one.ready.p99,
    "due_p50": lambda one: one.due.p50,
    "due_p99": lambda one: one.due.p99,
    "batch": lambda one: one.batch,
    "cpu_us": lambda one: one.cpu_us,
    "events_per_s": lambda one: one.events_per_s,
}
_RATIOS: dict[str, Callable[[Writing], float]] = {
    "p50": lambda one: one.ready.p50,
    "p99": lambda one: one.ready.p99,
    "CPU": lambda one: one.cpu_us,
    "events/s": lambda one: one.events_per_s,
}


def as_json(found: Fencing) -> dict[str, object]:
    return {"summary": [asdict(one) for one in summarise(found.writings)], **asdict(found)}
