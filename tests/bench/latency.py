"""Latency: from an event's append time to its slate in a reader's hands, at a steady rate.

A producer of its own process sends at fixed times whatever happens (open loop). A slate names the events that it takes
in; for each of them the latency is the time at which the reader got the slate less the event's append time (broker's
clock, whole milliseconds; same machine). `sent` is the same up to the slate's own timestamp, set when the worker sends
it. `due` counts from the time at which the event was due to be sent. The first seconds are left out.
"""

from __future__ import annotations

import json
import subprocess
import sys
from bisect import bisect_left
from collections.abc import Callable, Iterable, Sequence
from dataclasses import asdict, dataclass

import numpy as np

from stream.core.messages import BEHAVIOURS
from stream.settings import Settings
from tests.bench.machine import load_average
from tests.bench.processes import Freshet, cpu_seconds
from tests.bench.reading import SlateLog, Source, sources
from tests.bench.sender import Order
from tests.bench.traffic import NO_COMMENTS, WITH_COMMENTS, Mix, send_items
from tests.bench.world import World
from tests.worker_process import environment, until

NEAR_MS = 5_000  # an event so soon after a comment of its own user may have to wait for it


@dataclass(frozen=True)
class Plan:
    """seconds: of one measurement, `skip` of them for warming up; rounds: how often each is repeated."""

    rates: tuple[int, ...] = (200, 1000)
    mixes: tuple[Mix, ...] = (NO_COMMENTS, WITH_COMMENTS)
    seconds: float = 20.0
    skip: float = 5.0
    users: int = 3_000
    rounds: int = 2
    seed: int = 1


@dataclass(frozen=True)
class Quantiles:
    """Milliseconds."""

    count: int
    p50: float
    p90: float
    p99: float
    most: float


@dataclass(frozen=True)
class Latency:
    """One measurement. uncovered: events that no slate named; latest_ms: how late the producer itself was at worst;
    others: clicks of users who had no comment under way."""

    rate: int
    mix: str
    events: int
    uncovered: int
    all: Quantiles
    sent: Quantiles
    due: Quantiles
    others: Quantiles
    behaviours: dict[str, Quantiles]
    cpu_us: float
    latest_ms: float
    load: float


def measure(world: World, plan: Plan, report: Callable[[Latency], None] = lambda latency: None) -> list[Latency]:
    """Every rate with every mix, in turn, `rounds` times."""
    found = []
    for number in range(plan.rounds):
        for rate in plan.rates:
            for mix in plan.mixes:
                latency = one(world, rate, mix, plan, plan.seed + number)
                report(latency)
                found.append(latency)
    return found


def one(world: World, rate: int, mix: Mix, plan: Plan, seed: int) -> Latency:
    settings = world.settings()
    send_items(settings, world.real.items)
    freshet = Freshet(settings, world.scratch(), world.real.folder)
    try:
        freshet.start()
        load = load_average()
        order = Order(rate, plan.seconds, seed, plan.users, asdict(mix), str(world.real.folder))
        with SlateLog(settings) as slates:
            cpu = cpu_seconds(freshet.pid)
            reported = _send(settings, order)
            until(lambda: freshet.done() >= reported["sent"], 300, "all events are finished")
            cpu = cpu_seconds(freshet.pid) - cpu
            until(slates.quiet, 10, "all slates are read")
        return _judge(settings, slates, rate, mix, plan, cpu, reported["latest_ms"], load)
    finally:
        freshet.close()


def _send(settings: Settings, order: Order) -> dict[str, float]:
    command = [sys.executable, "-m", "tests.bench.sender", order.text()]
    done = subprocess.run(command, env=environment(settings), stdout=subprocess.PIPE, check=True)
    sent: dict[str, float] = json.loads(done.stdout)
    return sent


def _judge(
    settings: Settings, slates: SlateLog, rate: int, mix: Mix, plan: Plan, cpu: float, latest: float, load: float
) -> Latency:
    known = sources(settings)
    begin = min(source.due_ms for source in known.values()) + plan.skip * 1000
    reached: dict[tuple[str, int, int], tuple[float, int]] = {}
    for arrived, stamp, value in slates.arrivals:
        for topic, partition, offset in json.loads(value)["events"]:
            reached.setdefault((topic, partition, offset), (arrived, stamp))
    covered = [(known[position], *when) for position, when in reached.items() if known[position].due_ms >= begin]
    reads = [arrived - source.append_ms for source, arrived, _ in covered]
    comments = _comment_times(known.values())
    behaviours = {
        name: [read for read, (source, _, _) in zip(reads, covered, strict=True) if source.behaviour == index]
        for index, name in enumerate(BEHAVIOURS)
    }
    others = [
        read
        for read, (source, _, _) in zip(reads, covered, strict=True)
        if source.behaviour == 0 and not _near(source, comments)
    ]
    return Latency(
        rate, mix.name, len(known), len(known) - len(reached), quantiles(reads),
        quantiles([stamp - source.append_ms for source, _, stamp in covered]),
        quantiles([arrived - source.due_ms for source, arrived, _ in covered]),
        quantiles(others),
        {name: quantiles(found) for name, found in behaviours.items() if found},
        cpu * 1e6 / len(known), latest, load,
    )  # fmt: skip


def _comment_times(known: Iterable[Source]) -> dict[bytes, list[int]]:
    times: dict[bytes, list[int]] = {}
    for source in known:
        if source.behaviour == 2:
            times.setdefault(source.user, []).append(source.append_ms)
    for found in times.values():
        found.sort()
    return times


def _near(source: Source, comments: dict[bytes, list[int]]) -> bool:
    """Its user commented within the last NEAR_MS."""
    times = comments.get(source.user, [])
    index = bisect_left(times, source.append_ms - NEAR_MS)
    return index < len(times) and times[index] <= source.append_ms


def quantiles(values: Sequence[float]) -> Quantiles:
    if not values:
        return Quantiles(0, *(float("nan"),) * 4)
    p50, p90, p99, most = np.percentile(np.asarray(values, np.float64), (50, 90, 99, 100)).tolist()
    return Quantiles(len(values), p50, p90, p99, most)


def as_json(latencies: list[Latency]) -> dict[str, object]:
    return {"measurements": [asdict(latency) for latency in latencies]}
