"""State size, start and recovery: bytes of state per user, seconds from start to ready, changelog records/s read back.

One worker takes in a number of events and stops cleanly (SIGTERM). Then it starts four times: with its data; without
its data, so that it reads the whole changelog (it is stopped cleanly before each); after SIGKILL, where the group waits
for the dead member's session to time out; and with nothing at all to recover (new topics). The rate of recovery is the
number of records over the seconds that the start without data took longer than the one with it; the worker looks twice a
second whether it is ready, so it is rough below a million records.
"""

from __future__ import annotations

import shutil
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np

from stream.claims import CLAIM_KEY
from stream.settings import Settings
from tests.bench.machine import load_average
from tests.bench.processes import Freshet, cpu_seconds, resident_mib
from tests.bench.traffic import NO_COMMENTS, Traffic, send_all, send_items
from tests.bench.world import World
from tests.worker_process import read_all, until


@dataclass(frozen=True)
class Plan:
    """parts: the events are sent in so many parts, each finished before the next; idle: seconds without any event."""

    events: int = 240_000
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
    records_per_s: float
    idle_cpu: float
    rss_mib: float
    load: float


def measure(world: World, plan: Plan, said: Callable[[Recovery], None] = lambda recovery: None) -> list[Recovery]:
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
        until(lambda: worker.metric("freshet_recovered_records_total") > 0, 5, "the recovery is counted")
        recovered = int(worker.metric("freshet_recovered_records_total"))
        worker.kill()
        after_kill = _start(freshet)
        records, sizes = _states(settings)
        found = Recovery(
            len(sizes), sent, float(np.mean(sizes)), float(np.median(sizes)), int(np.max(sizes)), world.real.hidden,
            on_disk / len(sizes), records, empty, with_data, wiped, after_kill, settings.session_timeout,
            recovered / max(wiped - with_data, 1e-3), idle, rss, load,
        )  # fmt: skip
        said(found)
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


def _states(settings: Settings) -> tuple[int, list[int]]:
    """Records of the changelog, and the size of each user's last one."""
    last: dict[bytes, int] = {}
    count = 0
    for record in read_all(settings, settings.changelog_topic):
        if record.key == CLAIM_KEY:
            continue
        count += 1
        last[record.key] = len(record.value)
    return count, list(last.values())


def as_json(found: list[Recovery]) -> dict[str, object]:
    return {"measurements": [asdict(one) for one in found]}
