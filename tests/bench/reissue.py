"""Re-issues: how long it takes until no standing slate shows the items that a rule blocks, and what clicks feel of it.

Every user has clicked once, and the rule blocks so many of the items that many or all standing slates show one. The time is
from the acknowledgement of the rule to the append time of the last slate that was re-issued.
"""

from __future__ import annotations

import json
import threading
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import asdict, dataclass

import numpy as np

from stream.settings import Settings
from tests.bench.machine import load_average
from tests.bench.processes import cpu_seconds
from tests.bench.world import Bundles, World
from tests.worker_process import Events, WorkerProcess, all_committed, read_all, until

BLOCKED = 5
"""Of the items that are in most slates."""
PROBES = 2.0
"""Seconds of clicks before the rule, to compare with."""


@dataclass(frozen=True)
class Plan:
    """users: in all partitions of one worker; rate: clicks a second while slates are re-issued."""

    users: int = 100_000
    rate: int = 0


@dataclass(frozen=True)
class Reissue:
    """One measurement. shown: users whose standing slates showed a blocked item; cpu_us: of the worker, for each of them, with
    the clicks; click_ms: p50 and p99 of clicks meanwhile,
    and without anything to re-issue; load: load average."""

    bundle: str
    users: int
    shown: int
    seconds: float
    per_second: float
    cpu_us: float
    click_ms: tuple[float, float] | None
    quiet_ms: tuple[float, float] | None
    load: float


def measure(world: World, plan: Plan, say: Callable[[str], None]) -> list[Reissue]:
    """Measure with a tiny bundle."""
    found = [_one(world, world.tiny, plan)]
    say(line(found[-1]))
    return found


def line(one: Reissue) -> str:
    """Return one measurement in words."""
    clicks = f"; clicks {one.click_ms} ms, before {one.quiet_ms} ms (p50, p99)" if one.click_ms else ""
    return (
        f"{one.bundle}: {one.shown} of {one.users} slates re-issued in {one.seconds:.1f} s ({one.per_second:.0f}/s), "
        f"{one.cpu_us:.0f} us CPU each{clicks}; "
        f"load {one.load:.1f}"
    )


def as_json(plan: Plan, found: list[Reissue]) -> dict[str, object]:
    """Return plan and figures as JSON values."""
    return {"plan": asdict(plan), "reissues": [asdict(one) for one in found]}


def _one(world: World, bundle: Bundles, plan: Plan) -> Reissue:
    settings = world.settings()
    worker = WorkerProcess(settings, world.scratch(), bundles=bundle.folder)
    events = Events(settings, users=plan.users, items=len(bundle.items))
    try:
        events.send_items(bundle.items)
        worker.start().wait_ready()
        for number in range(plan.users):
            events.put(*events.one(user=f"user{number}", kind="click", item=bundle.items[number % len(bundle.items)]))
        events.producer.flush()
        all_committed(settings, worker, 600)
        shown = Counter(item for items in _standing(settings).values() for item in items)
        blocked = [item for item, _ in shown.most_common(BLOCKED)]
        clicks = _Clicks(events, plan, bundle)
        clicks.start()
        time.sleep(PROBES if plan.rate else 0)
        rule = {"rule": "recall", "kind": "block", "filter": {"item": blocked}}
        spent = cpu_seconds(worker.process.pid)
        put = events.producer.send(settings.rules_topic, key=b"recall", value=json.dumps(rule).encode()).get(30)
        until(lambda: worker.metric("freshet_reissued_slates_total") > 0, 60, "it begins")
        end = time.monotonic() + 600
        while not _finished(worker):  # seldom: a page costs the worker as much as a hundred slates
            assert time.monotonic() < end, worker.awaited("has not finished")
            time.sleep(1)
        spent = cpu_seconds(worker.process.pid) - spent
        clicks.end()
        all_committed(settings, worker)
        left = sum(bool(set(items) & set(blocked)) for items in _standing(settings).values())
        assert left == 0, worker.awaited(f"has left {left} slates with a blocked item")
        return _result(settings, bundle, plan, put.timestamp, spent)
    finally:
        events.close()
        worker.close()


def _finished(worker: WorkerProcess) -> bool:
    """Whether nothing is left; a page that did not answer in time says nothing."""
    page = worker.get("/metrics")[1].splitlines()
    return worker.runs() and "freshet_ready 1.0" in page and "freshet_reissue_seconds 0.0" in page


class _Clicks(threading.Thread):
    """Sends clicks at a steady rate."""

    def __init__(self, events: Events, plan: Plan, bundle: Bundles) -> None:
        super().__init__(daemon=True)
        self._events = events
        self._plan = plan
        self._items = bundle.items
        self._ended = threading.Event()

    def run(self) -> None:
        began, number = time.monotonic(), 0
        while self._plan.rate and not self._ended.is_set():
            topic, message = self._events.one(user=f"user{number * 7919 % self._plan.users}", kind="click")
            self._events.put(topic, message | {"item": self._items[number % len(self._items)]})
            number += 1
            time.sleep(max(0.0, began + number / self._plan.rate - time.monotonic()))

    def end(self) -> None:
        self._ended.set()
        self.join()


def _standing(settings: Settings) -> dict[bytes, list[str]]:
    found = {}
    for record in read_all(settings, settings.recommendations_topic):
        if record.key != b"*" and record.value is not None:
            found[record.key] = [one["item"] for one in json.loads(record.value)["items"]]
    return found


def _result(settings: Settings, bundle: Bundles, plan: Plan, put: int, cpu: float) -> Reissue:
    reissued, last = 0, put
    before: list[int] = []
    meanwhile: list[tuple[int, int]] = []
    for record in read_all(settings, settings.recommendations_topic):
        if record.key == b"*":
            continue
        slate = json.loads(record.value)
        if "withdrawn" in slate:
            reissued += 1
            last = max(last, record.timestamp)
        elif slate["latency_ms"] >= 0 and record.timestamp >= put:
            meanwhile.append((record.timestamp, slate["latency_ms"]))
        elif slate["latency_ms"] >= 0 and record.timestamp >= put - 1000 * PROBES:
            before.append(slate["latency_ms"])
    seconds = (last - put) / 1000
    during = [latency for at, latency in meanwhile if at <= last]
    return Reissue(
        bundle.name, plan.users, reissued, seconds, reissued / max(seconds, 1e-3), 1e6 * cpu / max(reissued, 1),
        _quantiles(during) if plan.rate else None, _quantiles(before) if plan.rate else None, load_average(),
    )  # fmt: skip


def _quantiles(latencies: list[int]) -> tuple[float, float]:
    """Return p50 and p99."""
    if not latencies:
        return (float("nan"), float("nan"))
    p50, p99 = np.quantile(latencies, (0.5, 0.99))
    return (float(p50), float(p99))
