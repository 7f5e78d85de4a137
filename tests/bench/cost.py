"""Cost: CPU of the worker per event and events a second, freshet beside stock Faust agents, in turn.

For each measurement: topics of its own; the process starts, joins and finishes a warm-up; it is stopped (SIGSTOP, well
within the session timeout) while the whole backlog is sent; then it is let go, and its CPU time (user and system, all
threads, from /proc) and the time until it has finished everything are taken. Broker and bench run on the same cores, so
events/s is what this machine gives to all of them together; CPU per event is the worker's own.
"""

from __future__ import annotations

import os
import signal
import statistics
import time
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass, field
from pathlib import Path

from stream.settings import Settings
from tests.bench.machine import load_average
from tests.bench.processes import Freshet, Stock, Subject, cpu_seconds, resident_mib
from tests.bench.traffic import NO_COMMENTS, WITH_COMMENTS, Mix, Traffic, send_all, send_items
from tests.bench.world import Bundles, World
from tests.worker_process import until

WARM_UP = 1000
STAGES = ("decode", "read", "step", "changelog", "score", "slates", "store", "encode")
STATE_BYTES, SLATE_BYTES = 1200, 900  # what freshet writes per event, about; the stock agent writes as much


@dataclass(frozen=True)
class Plan:
    """events, users: of one measurement; rounds: how often each is repeated; seed: of the first round."""

    events: int = 20_000
    users: int = 3_000
    rounds: int = 3
    mixes: tuple[Mix, ...] = (NO_COMMENTS, WITH_COMMENTS)
    seed: int = 1


@dataclass(frozen=True)
class Cost:
    """One measurement. cpu_us: per event; load: the machine's average of the minute before; stages: wall us per event."""

    case: str
    mix: str
    events: int
    cpu_us: float
    events_per_s: float
    rss_mib: float
    load: float
    batch: float = 0.0  # events a micro-batch
    stages: dict[str, float] = field(default_factory=dict)


Make = Callable[[Settings, Path], Subject]


@dataclass(frozen=True)
class Case:
    """One thing to measure: how to start it, and about which items its users speak."""

    name: str
    bundles: Bundles
    make: Make


def cases(world: World) -> list[Case]:
    def stock(kind: str) -> Make:
        return lambda settings, folder: Stock(settings, folder, kind, (STATE_BYTES, SLATE_BYTES))

    def freshet(bundles: Bundles) -> Make:
        return lambda settings, folder: Freshet(settings, folder, bundles.folder)

    return [
        Case("stock Faust, does nothing", world.real, stock("trivial")),
        Case("stock Faust, table + output", world.real, stock("table")),
        *(Case(f"freshet, {bundles.name}", bundles, freshet(bundles)) for bundles in (world.tiny, world.real)),
    ]


def measure(world: World, plan: Plan, report: Callable[[Cost], None] = lambda cost: None) -> list[Cost]:
    """Every case with every mix, in turn, `rounds` times."""
    found = []
    for number in range(plan.rounds):
        for mix in plan.mixes:
            for case in cases(world):
                cost = one(world, case, mix, plan, plan.seed + number)
                report(cost)
                found.append(cost)
    return found


def one(world: World, case: Case, mix: Mix, plan: Plan, seed: int) -> Cost:
    settings = world.settings()
    traffic = Traffic(mix, seed, plan.users, case.bundles.items)
    if case.name.startswith("freshet"):
        send_items(settings, case.bundles.items)
    subject = case.make(settings, world.scratch())
    try:
        subject.start()
        before = send_all(settings, traffic.take(min(WARM_UP, plan.events)))
        until(lambda: subject.done() >= before, 120, "the warm-up is finished")
        backlog = list(traffic.take(plan.events))
        stages = _stages(subject)
        os.kill(subject.pid, signal.SIGSTOP)
        try:
            send_all(settings, backlog)
            load = load_average()
            cpu = cpu_seconds(subject.pid)
        finally:
            os.kill(subject.pid, signal.SIGCONT)
        began = time.perf_counter()
        until(lambda: subject.done() >= before + plan.events, 600, "the backlog is finished")
        seconds = time.perf_counter() - began
        cpu = cpu_seconds(subject.pid) - cpu
        after = _stages(subject)
        per = 1e6 / plan.events
        batches = after.pop("batches", 0) - stages.pop("batches", 0)
        return Cost(
            case.name, mix.name, plan.events, cpu * per, plan.events / seconds, resident_mib(subject.pid), load,
            plan.events / batches if batches else 0.0,
            {name: (value - stages[name]) * per for name, value in after.items()},
        )  # fmt: skip
    finally:
        subject.close()


def _stages(subject: Subject) -> dict[str, float]:
    """Seconds in each step of the micro-batches so far, and the number of batches; empty for a stock agent."""
    if not isinstance(subject, Freshet):
        return {}
    metric = subject.worker.metric
    found = {stage: metric("freshet_stage_seconds_total", stage=stage) for stage in STAGES}
    return found | {"batches": metric("freshet_micro_batch_seconds_count")}


@dataclass(frozen=True)
class Summary:
    """Medians over the rounds; against: CPU per event of each stock agent over this one's, round by round, the median."""

    case: str
    mix: str
    rounds: int
    cpu_us: float
    cpu_us_range: tuple[float, float]
    events_per_s: float
    rss_mib: float
    batch: float
    stages: dict[str, float]
    against: dict[str, float]


def summarise(costs: list[Cost]) -> list[Summary]:
    return list(_summaries(costs))


def _summaries(costs: list[Cost]) -> Iterator[Summary]:
    groups: dict[tuple[str, str], list[Cost]] = {}
    for cost in costs:
        groups.setdefault((cost.mix, cost.case), []).append(cost)
    for (mix, case), found in groups.items():
        cpu = [cost.cpu_us for cost in found]
        stock = {name: other for (of, name), other in groups.items() if of == mix and name.startswith("stock")}
        yield Summary(
            case, mix, len(found), statistics.median(cpu), (min(cpu), max(cpu)),
            statistics.median(cost.events_per_s for cost in found),
            statistics.median(cost.rss_mib for cost in found),
            statistics.median(cost.batch for cost in found),
            {name: statistics.median(cost.stages[name] for cost in found) for name in found[0].stages},
            {name: statistics.median(o.cpu_us / c.cpu_us for o, c in zip(other, found, strict=True))
             for name, other in stock.items()} if case.startswith("freshet") else {},
        )  # fmt: skip


def as_json(costs: list[Cost]) -> dict[str, object]:
    return {"summary": [asdict(one) for one in summarise(costs)], "measurements": [asdict(cost) for cost in costs]}
