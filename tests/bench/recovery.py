"""State size, start and recovery: bytes of state per user, seconds from start to ready, changelog records/s read back.

One worker takes in a number of events and stops cleanly (SIGTERM). Then it starts four times: with its data; without
its data, so that it reads the whole changelog (it is stopped cleanly before each); after SIGKILL, where the group waits
for the dead member's session to time out; and with nothing at all to recover (new topics).

Then every record of that changelog, claims left out, is copied into the changelog of a stock Faust agent's table, partition by
partition, and the agent starts with an empty disk. Both rates are records over the seconds from the first record read to the
last, as each process measures them.
"""

from __future__ import annotations

import shutil
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np

from stream.core.fencing_log import CLAIM_KEY
from stream.settings import Settings
from tests.bench.machine import load_average
from tests.bench.processes import Freshet, ReadBack, Stock, cpu_seconds, resident_mib
from tests.bench.traffic import NO_COMMENTS, Traffic, producer, send_all, send_items
from tests.bench.world import World
from tests.worker_process import read_all, until


@dataclass(frozen=True)
class Plan:
    """parts: the events are sent in so many parts, each finished before the next; idle: seconds without any event."""

    events: int = 400_000
    users: int = 3_000
    parts: int = 6
    idle: float = 4.0
    session_timeout: float = 10.0
    seed: int = 1


@dataclass(frozen=True)
class Recovery:
    """State sizes in bytes: the stored records, and RocksDB's folder over the users. Starts in seconds, process to ready.
    idle_cpu: share of one core that the worker takes while nothing comes."""

    users: int
    events: int
    state_mean: float
    state_p50: float
    state_max: int
    hidden: int
    disk_per_user: float
    changelog_records: int
    start_empty: float
    start_with_data: float
    start_wiped: float
    start_after_kill: float
    session_timeout: float
    recovered: int
    records_per_s: float
    stock_start_wiped: float
    stock_recovered: int
    stock_records_per_s: float
    idle_cpu: float
    rss_mib: float
    load: float


def measure(world: World, plan: Plan, report: Callable[[Recovery], None] = lambda recovery: None) -> list[Recovery]:
    settings = world.settings(session_timeout=plan.session_timeout, inference_timeout=plan.session_timeout / 2)
    send_items(settings, world.real.items)
    freshet = Freshet(settings, world.scratch(), world.real.folder)
    worker = freshet.worker
    load = load_average()
    try:
        empty = _start(freshet)
        idle = _idle(freshet, plan.idle)
        traffic = Traffic(NO_COMMENTS, plan.seed, plan.users, world.real.items)
        sent = 0
        for _ in range(plan.parts):
            sent += send_all(settings, traffic.take(plan.events // plan.parts))
            until(lambda: freshet.done() >= sent, 300, "the events are finished")  # noqa: B023  # called at once
        rss = resident_mib(freshet.pid)
        worker.terminate()
        on_disk = _size(worker.data_dir)
        with_data = _start(freshet)
        worker.terminate()
        shutil.rmtree(worker.data_dir)
        wiped = _start(freshet)
        back = freshet.read_back()
        worker.kill()
        after_kill = _start(freshet)
        worker.terminate()
        records, sizes, stock_wiped, stock_back = _stock(world, settings)
        found = Recovery(
            len(sizes), sent, float(np.mean(sizes)), float(np.median(sizes)), int(np.max(sizes)), world.real.hidden,
            on_disk / len(sizes), records, empty, with_data, wiped, after_kill, settings.session_timeout,
            back.records, back.rate, stock_wiped, stock_back.records, stock_back.rate, idle, rss, load,
        )  # fmt: skip
        report(found)
        return [found]
    finally:
        freshet.close()


def _start(freshet: Freshet) -> float:
    began = time.perf_counter()
    freshet.start()
    return time.perf_counter() - began


def _idle(freshet: Freshet, seconds: float) -> float:
    """Share of one core."""
    before = cpu_seconds(freshet.pid)
    time.sleep(seconds)
    return (cpu_seconds(freshet.pid) - before) / seconds


def _size(folder: Path) -> int:
    return sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())


def _stock(world: World, of: Settings) -> tuple[int, list[int], float, ReadBack]:
    """(states in the changelog, the size of each user's last one, seconds that stock Faust took from start to ready with
    these in its own changelog, its recovery)"""
    settings = world.settings(session_timeout=of.session_timeout, inference_timeout=of.inference_timeout)
    stock = Stock(settings, world.scratch(), "table", (8, 8))
    last: dict[bytes, int] = {}
    count = 0
    try:
        stock.start()  # makes its changelog topic
        stock.wait_ready(60)
        stock.terminate()
        out = producer(settings)
        for record in read_all(of, of.changelog_topic):
            if record.key == CLAIM_KEY:
                continue
            count += 1
            last[record.key] = len(record.value)
            if count % 1000 == 0:
                out.poll(0)
            out.produce(stock.changelog_topic, record.value, record.key, partition=record.partition)
        if out.flush(60):
            raise RuntimeError("the broker did not acknowledge all changelog records within 60 s")
        shutil.rmtree(stock.data_dir)
        began = time.perf_counter()
        stock.start()
        back = stock.wait_ready(600)
        return count, list(last.values()), time.perf_counter() - began, back
    finally:
        stock.close()


def as_json(found: list[Recovery]) -> dict[str, object]:
    return {"measurements": [asdict(one) for one in found]}
