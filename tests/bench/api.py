"""The HTTP API: GET recommendations with no other load, and read-your-writes while 1,000 events/s arrive.

All processes share this machine's cores: Kafka, the worker, the gateway and the client. `cpu_us` is the gateway's own CPU
time per request, so it can be compared on a machine that is busy.
"""

from __future__ import annotations

import http.client
import json
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from typing import Final
from urllib.parse import quote

from stream.settings import Settings
from tests.bench.api_load import Load, Told
from tests.bench.latency import Quantiles, quantiles
from tests.bench.machine import load_average
from tests.bench.processes import Freshet, cpu_seconds, resident_mib
from tests.bench.sender import Order
from tests.bench.traffic import NO_COMMENTS, send_items
from tests.bench.world import World
from tests.gateway_process import GatewayProcess
from tests.worker_process import environment, until

FILTER: Final = "filter=" + quote(json.dumps({"price": {"lt": 50}}))


@dataclass(frozen=True)
class Plan:
    """seconds: of one measurement; rounds: of the comparison with a filter; events: folded before the
    first one; rate: events a second during the second."""

    seconds: float = 10.0
    connections: tuple[int, ...] = (1, 16, 64)
    rounds: int = 3
    events: int = 10_000
    users: int = 3_000
    rate: int = 1000
    probes: int = 500
    seed: int = 1


@dataclass(frozen=True)
class Throughput:
    """One measurement of GET recommendations. rate: requests a second that were asked for; 0: as many as possible."""

    connections: int
    rate: float
    told: Told
    cpu_us: float
    load: float


@dataclass(frozen=True)
class Filtered:
    """Requests with a filter that half of the items meet, against the same requests without one, in turn.

    time: seconds of the one for each of the other; cpu: the gateway's CPU time, likewise.
    """

    connections: int
    time: float
    cpu: float
    load: float


@dataclass(frozen=True)
class Writes:
    """Read-your-writes, in milliseconds. answer: GET with min_offset after the POST was answered; both: POST and GET;
    older: answers without the event (must be 0); late: answers 503."""

    events_per_s: int
    probes: int
    older: int
    late: int
    post: Quantiles
    answer: Quantiles
    both: Quantiles
    load: float


@dataclass(frozen=True)
class Found:
    """rss_mib: of the gateway at the end."""

    items: int
    users: int
    throughput: list[Throughput]
    filtered: list[Filtered]
    writes: Writes
    rss_mib: float


def measure(world: World, plan: Plan, message: Callable[[str], None] = lambda line: None) -> Found:
    settings = world.settings()
    send_items(settings, world.real.items)
    folder = world.scratch()
    worker = Freshet(settings, folder, world.real.folder)
    gateway = GatewayProcess(settings, folder, bundles=world.real.folder)
    try:
        worker.start()
        _send(settings, world, plan.events / 2.0, 2.0, plan)
        until(lambda: worker.done() >= plan.events, 300, "all events are finished")
        gateway.start().wait_ready()
        users = tuple(f"user-{number}" for number in range(plan.users))
        found = []
        for connections in plan.connections:
            found.append(_throughput(gateway, connections, 0.0, users, plan))
            message(throughput_line(found[-1]))
        half = max(one.told.per_second for one in found) / 2
        found.append(_throughput(gateway, max(plan.connections), half, users, plan))
        message(throughput_line(found[-1]))
        filtered = [_filtered(gateway, connections, users, plan) for connections in plan.connections[:2]]
        for one in filtered:
            message(filtered_line(one))
        writes = _writes(world, settings, gateway, plan)
        message(writes_line(writes))
        return Found(len(world.real.items), plan.users, found, filtered, writes, resident_mib(gateway.process.pid))
    finally:
        gateway.close()
        worker.close()


def _send(settings: Settings, world: World, rate: float, seconds: float, plan: Plan) -> None:
    order = Order(rate, seconds, plan.seed, plan.users, asdict(NO_COMMENTS), str(world.real.folder))
    subprocess.run([sys.executable, "-m", "tests.bench.sender", order.text()], env=environment(settings), check=True,
                   stdout=subprocess.PIPE)  # fmt: skip


def _throughput(
    gateway: GatewayProcess, connections: int, rate: float, users: tuple[str, ...], plan: Plan, query: str = ""
) -> Throughput:
    load = Load(gateway.port(), connections, plan.seconds, users, rate, min(1.0, plan.seconds / 4), query)
    before, average = cpu_seconds(gateway.process.pid), load_average()
    done = subprocess.run(
        [sys.executable, "-m", "tests.bench.api_load", load.text()], stdout=subprocess.PIPE, check=True
    )  # fmt: skip
    told = Told(**json.loads(done.stdout))
    cpu = (cpu_seconds(gateway.process.pid) - before) * (plan.seconds - load.skip) / plan.seconds
    return Throughput(connections, rate, told, cpu * 1e6 / max(1, told.requests), average)


def _filtered(gateway: GatewayProcess, connections: int, users: tuple[str, ...], plan: Plan) -> Filtered:
    average = load_average()
    plain, filtered = [], []
    for _ in range(plan.rounds):  # in turn, so that what else this machine does is the same for both
        plain.append(_throughput(gateway, connections, 0.0, users, plan))
        filtered.append(_throughput(gateway, connections, 0.0, users, plan, FILTER))
    assert not any(one.told.wrong for one in (*plain, *filtered))
    return Filtered(
        connections,
        sum(one.told.per_second for one in plain) / sum(one.told.per_second for one in filtered),
        sum(one.cpu_us for one in filtered) / sum(one.cpu_us for one in plain),
        average,
    )


def _writes(world: World, settings: Settings, gateway: GatewayProcess, plan: Plan) -> Writes:
    seconds = 4.0 + plan.probes / 40
    order = Order(plan.rate, seconds, plan.seed + 1, plan.users, asdict(NO_COMMENTS), str(world.real.folder))
    sender = subprocess.Popen(
        [sys.executable, "-m", "tests.bench.sender", order.text()], env=environment(settings), stdout=subprocess.PIPE
    )
    posts, answers, both = [], [], []
    older = late = 0
    average = load_average()
    connection = http.client.HTTPConnection("127.0.0.1", gateway.port(), timeout=30)
    try:
        time.sleep(2.0)  # until the sender is at its rate
        for number in range(plan.probes):
            user = f"probe{number % 50}"
            event = {
                "type": "click",
                "user": user,
                "item": world.real.items[number % 100],
                "time": int(time.time() * 1000),
            }
            began = time.perf_counter()
            connection.request("POST", "/v1/events", json.dumps(event), {"Content-Type": "application/json"})
            written = json.loads(connection.getresponse().read())["events"][0]
            posted = time.perf_counter()
            connection.request("GET", f"/v1/users/{user}/recommendations?min_offset={written['min_offset']}")
            answer = connection.getresponse()
            slate = json.loads(answer.read())
            ended = time.perf_counter()
            if answer.status != 200:
                late += 1
                continue
            position = f"{written['topic']}/{written['partition']}"
            older += slate["applied"].get(position, -1) < written["offset"]
            posts.append((posted - began) * 1000)
            answers.append((ended - posted) * 1000)
            both.append((ended - began) * 1000)
            time.sleep(max(0.0, 0.025 - (ended - began)))
    finally:
        connection.close()
        sender.wait(120)
    return Writes(
        plan.rate, plan.probes, older, late, quantiles(posts), quantiles(answers), quantiles(both), average
    )  # fmt: skip


def throughput_line(one: Throughput) -> str:
    told = one.told
    asked = f", {one.rate:.0f}/s asked for" if one.rate else ""
    return (
        f"{one.connections} connections{asked}: {told.per_second:.0f} requests/s, p50 {told.p50:.1f} ms, p99 {told.p99:.1f} ms, "
        f"{told.wrong} not 200, {one.cpu_us:.0f} us of CPU a request (load average {one.load:.1f})"
    )


def filtered_line(one: Filtered) -> str:
    return (
        f"{one.connections} connections: a filtered request takes {one.time:.2f} times the time and {one.cpu:.2f} times the CPU "
        f"of an unfiltered one (load average {one.load:.1f})"
    )


def writes_line(writes: Writes) -> str:
    return (
        f"with {writes.events_per_s} events/s: GET with min_offset p50 {writes.answer.p50:.1f} ms, p99 {writes.answer.p99:.1f} "
        f"ms; POST and GET p50 {writes.both.p50:.1f} ms, p99 {writes.both.p99:.1f} ms; {writes.older} of {writes.probes} older "
        f"than asked, {writes.late} late (load average {writes.load:.1f})"
    )


def as_json(found: Found) -> dict[str, object]:
    return asdict(found)
