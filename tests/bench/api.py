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
from pathlib import Path
from statistics import median
from typing import Final
from urllib.parse import quote

from stream.settings import Settings
from tests.bench.api_load import Load, Told
from tests.bench.gorse import Gorse
from tests.bench.latency import Quantiles, quantiles
from tests.bench.machine import load_average
from tests.bench.processes import Freshet, cpu_seconds, resident_mib
from tests.bench.sender import Order
from tests.bench.traffic import NO_COMMENTS, Traffic, send_items
from tests.bench.world import World
from tests.gateway_process import GatewayProcess
from tests.worker_process import environment, until

FILTER: Final = "filter=" + quote(json.dumps({"price": {"lt": 50}}))


@dataclass(frozen=True)
class Plan:
    """seconds: of one measurement; rounds: of the comparison with a filter, and with Gorse; events: folded before the first one;
    rate: events a second during the second; gorse: its program, or None to leave it out."""

    seconds: float = 10.0
    connections: tuple[int, ...] = (1, 16, 64)
    rounds: int = 3
    events: int = 10_000
    users: int = 3_000
    rate: int = 1000
    probes: int = 500
    seed: int = 1
    gorse: Path | None = None


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
class Peer:
    """GET recommendations of ten items for the same users from Gorse's cached lists and from the states here, in turn.

    gorse, freshet: medians of the rounds: requests a second, p50 and p99 in ms, CPU us a request; rss_mib: of Gorse.
    """

    connections: int
    rounds: int
    gorse: tuple[float, float, float, float]
    freshet: tuple[float, float, float, float]
    rss_mib: float
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
    peers: list[Peer]
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
        until(lambda: worker.done() >= plan.events, 60 + plan.events / 200, "all events are finished")
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
        peers = _peers(world, gateway, plan) if plan.gorse else []
        for other in peers:
            message(peer_line(other))
        writes = _writes(world, settings, gateway, plan)
        message(writes_line(writes))
        rss = resident_mib(gateway.process.pid)
        message(f"{rss:.0f} MiB resident with {plan.users} users and {len(world.real.items)} items")
        return Found(len(world.real.items), plan.users, found, filtered, peers, writes, rss)
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
    return _loaded(load, gateway.process.pid)


def _loaded(load: Load, pid: int) -> Throughput:
    """pid: of the server."""
    before, average = cpu_seconds(pid), load_average()
    done = subprocess.run(
        [sys.executable, "-m", "tests.bench.api_load"], input=load.text().encode(), stdout=subprocess.PIPE, check=True
    )  # fmt: skip
    told = Told(**json.loads(done.stdout))
    cpu = (cpu_seconds(pid) - before) * (load.seconds - load.skip) / load.seconds
    return Throughput(load.connections, load.rate, told, cpu * 1e6 / max(1, told.requests), average)


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


def _peers(world: World, gateway: GatewayProcess, plan: Plan) -> list[Peer]:
    assert plan.gorse is not None
    events = Traffic(NO_COMMENTS, plan.seed, plan.users, world.real.items)
    with Gorse(plan.gorse, world.scratch()) as gorse:
        asked = gorse.load(world.real.items, [events.message() for _ in range(plan.events)])
        found = []
        for connections in plan.connections:
            theirs: list[Throughput] = []
            ours: list[Throughput] = []
            for _ in range(plan.rounds):
                for port, pid, path, into in (
                    (gorse.port, gorse.pid, "/api/recommend/{user}", theirs),
                    (gateway.port(), gateway.process.pid, Load.path, ours),
                ):
                    skip = min(1.0, plan.seconds / 4)
                    into.append(_loaded(Load(port, connections, plan.seconds, asked, 0.0, skip, "n=10", path), pid))
            assert not any(one.told.wrong for one in (*theirs, *ours))
            found.append(
                Peer(
                    connections, plan.rounds, _medians(theirs), _medians(ours), resident_mib(gorse.pid), load_average()
                )
            )
    return found


def _medians(rounds: list[Throughput]) -> tuple[float, float, float, float]:
    per_second, p50, p99, cpu = zip(
        *((r.told.per_second, r.told.p50, r.told.p99, r.cpu_us) for r in rounds), strict=True
    )
    return median(per_second), median(p50), median(p99), median(cpu)


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


def peer_line(one: Peer) -> str:
    def told(name: str, found: tuple[float, float, float, float]) -> str:
        per_second, p50, p99, cpu = found
        return f"{name} {per_second:.0f} requests/s, p50 {p50:.1f} ms, p99 {p99:.1f} ms, {cpu:.0f} us of CPU a request"

    return (
        f"{one.connections} connections: {told('freshet', one.freshet)}; {told('Gorse', one.gorse)} ({one.rss_mib:.0f} MiB); "
        f"{one.freshet[0] / one.gorse[0]:.2f} times Gorse's requests/s (load average {one.load:.1f})"
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
