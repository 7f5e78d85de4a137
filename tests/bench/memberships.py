"""freshet's own hand-over next to static membership (KIP-345), in turn: python -m tests.bench.failover --memberships

Each trial has topics, folders and two workers of its own. Every user has a state, so a worker that gets a partition for
the first time reads its states back. Events come at a steady rate while something happens to one worker (`Way`). Then
`freshet verify` judges the whole log: two workers that both wrote would be a fork.
"""

from __future__ import annotations

import shutil
import statistics
import time
import uuid
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from signal import SIGCONT, SIGSTOP

from stream.kafka.membership import FILE
from stream.settings import Settings
from tests.bench.failover import Plan, Reader, assigned, closing_reader, first_events, steady
from tests.bench.static_worker import LEAVES
from tests.bench.traffic import send_all, send_items
from tests.bench.verify import run_verify
from tests.bench.world import World
from tests.worker_process import WorkerProcess, all_committed, until

MEMBERSHIPS = ("own", "static", "static, leaves")
SETTLED = 2.0  # seconds of slates after the last change
SHORT = 0.5  # seconds without a slate that are no pause yet
COPIED = 20.0  # seconds for which two workers have one identity, from when the second has joined


@dataclass(frozen=True)
class Trial:
    """What happened in one trial.

    Attributes:
        longest: Seconds without slates in the partition that waited longest.
        shortest: The same in the partition that waited least.
        paused: Seconds in pauses longer than SHORT, the mean of all partitions.
        rebalances: How often a worker was assigned partitions meanwhile.
        read_back: Changelog records that were read back meanwhile.
        exits: Exit codes of workers that ended without being asked to.
        verified: Exit code of `freshet verify`; 0: nothing lost, double or forked.
    """

    membership: str
    way: str
    users: int
    session_timeout: float
    longest: float
    shortest: float
    paused: float
    rebalances: int
    read_back: int
    exits: list[int]
    verified: int


class Group:
    """Two workers, and what they have done since `reset`."""

    def __init__(self, made: World, settings: Settings, membership: str) -> None:
        self.settings = settings
        self._bundles = made.real.folder
        self._membership = membership
        self._folder = made.scratch()
        self.workers = [self._worker(name, uuid.uuid4().hex) for name in ("w1", "w2")]
        self._copies: list[WorkerProcess] = []
        self.exits: list[int] = []
        self._before = dict.fromkeys(self.workers, (0, 0))
        self._total = (0, 0)

    def _worker(self, name: str, instance: str) -> WorkerProcess:
        worker = WorkerProcess(self.settings, self._folder, name, bundles=self._bundles)
        if self._membership != "own":
            more = [LEAVES] if self._membership.endswith(LEAVES) else []
            worker.command = ["tests.bench.static_worker", instance, *more]
        return worker

    def copy(self, worker: WorkerProcess) -> WorkerProcess:
        """Another worker with the identity of this one and a folder of its own, as on another machine."""
        made = WorkerProcess(self.settings, self._folder, f"{worker.name}-copy", bundles=self._bundles)
        made.command = worker.command
        made.data_dir.mkdir(parents=True)
        shutil.copy(worker.data_dir / FILE, made.data_dir / FILE)
        self._copies.append(made)
        return made

    def reset(self) -> None:
        self._before = {worker: _figures(worker) for worker in self.workers}
        self._total = (0, 0)

    def count(self, worker: WorkerProcess) -> None:
        """Add what the worker has done in this life. Call this before it is ended on purpose."""
        before, now = self._before[worker], _figures(worker)
        self._total = (self._total[0] + now[0] - before[0], self._total[1] + now[1] - before[1])
        self._before[worker] = (0, 0)

    def start_again(self, worker: WorkerProcess) -> None:
        """Start a worker that has ended on its own. What it did in that life is not counted."""
        worker.start()
        self._before[worker] = (0, 0)

    def total(self, living: Sequence[WorkerProcess]) -> tuple[int, int]:
        for worker in living:
            self.count(worker)
        return self._total

    def whole(self) -> bool:
        """Both are ready, and have all partitions between them."""
        found = [assigned(worker) for worker in self.workers]
        return all(found) and sum(found) == 3 * self.settings.partitions

    def close(self) -> None:
        for worker in (*self.workers, *self._copies):
            worker.close()


def _figures(worker: WorkerProcess) -> tuple[int, int]:
    names = "freshet_rebalances_total", "freshet_recovered_records_total"
    first, second = (int(worker.metric(name)) for name in names)
    return first, second


def _restart(group: Group, worker: WorkerProcess) -> None:
    group.count(worker)
    if (code := worker.terminate()) != 0:
        group.exits.append(code)
    worker.start()
    until(group.whole, 90, "both workers are back")


def _clean(group: Group) -> Sequence[WorkerProcess]:
    _restart(group, group.workers[0])
    return group.workers


def _rolling(group: Group) -> Sequence[WorkerProcess]:
    for worker in group.workers:
        _restart(group, worker)
    return group.workers


def _killed(group: Group) -> Sequence[WorkerProcess]:
    worker = group.workers[0]
    group.count(worker)
    worker.kill()
    worker.start()
    until(group.whole, 90, "both workers are back")
    return group.workers


def _removed(group: Group) -> Sequence[WorkerProcess]:
    leaving, staying = group.workers
    group.count(leaving)
    leaving.process.terminate()
    until(lambda: assigned(staying) == 3 * group.settings.partitions, 90, "the other worker has everything")
    leaving.wait(40)
    return [staying]


def _lost(group: Group) -> Sequence[WorkerProcess]:
    leaving, staying = group.workers
    group.count(leaving)
    leaving.kill()
    until(lambda: assigned(staying) == 3 * group.settings.partitions, 90, "the other worker has everything")
    return [staying]


def _stalled(group: Group) -> Sequence[WorkerProcess]:
    worker = group.workers[0]
    group.count(worker)
    worker.send_signal(SIGSTOP)
    time.sleep(1.3 * group.settings.session_timeout)
    worker.send_signal(SIGCONT)
    group.exits.append(worker.wait(30))
    worker.start()
    until(group.whole, 90, "both workers are back")
    return group.workers


def _copied(group: Group) -> Sequence[WorkerProcess]:
    worker = group.workers[0]
    copy = group.copy(worker)
    copy.start()
    joined = False
    end = time.monotonic() + 120.0
    while time.monotonic() < end:
        for one in (worker, copy):
            if (code := one.process.poll()) is not None:
                group.exits.append(code)
                group.start_again(one)
        if not joined and copy.metric("freshet_rebalances_total"):
            joined, end = True, time.monotonic() + COPIED
        time.sleep(0.2)
    if copy.process.poll() is None:
        copy.terminate()
    if (last := worker.process.poll()) is not None:
        group.exits.append(last)
        group.start_again(worker)
    until(group.whole, 90, "both workers are back")
    return group.workers


WAYS: dict[str, Callable[[Group], Sequence[WorkerProcess]]] = {
    "clean": _clean,  # stopped in order and started again
    "rolling": _rolling,  # the same with both, one after the other
    "killed": _killed,  # SIGKILL, started again at once
    "removed": _removed,  # stopped in order for good
    "lost": _lost,  # SIGKILL for good
    "stalled": _stalled,  # SIGSTOP past the session timeout; started again when it has ended itself
    "copied": _copied,  # a second worker has its identity for COPIED seconds; whoever ends is started again
}


def compare(made: World, plan: Plan, ways: Sequence[str]) -> Iterator[Trial]:
    for number in range(plan.rounds):
        for way in ways:
            first = number % len(MEMBERSHIPS)
            for membership in MEMBERSHIPS[first:] + MEMBERSHIPS[:first]:
                yield trial(made, plan, membership, way)


def trial(made: World, plan: Plan, membership: str, way: str) -> Trial:
    """Let one of WAYS happen to two workers of one of MEMBERSHIPS."""
    settings = made.settings(
        session_timeout=plan.session_timeout, inference_timeout=min(5.0, plan.session_timeout / 2), standby_replicas=0
    )
    send_items(settings, made.real.items)
    group = Group(made, settings, membership)
    try:
        for worker in group.workers:
            worker.start()
        until(group.whole, 120, "both workers have partitions")
        send_all(settings, first_events(plan.users, made.real.items))
        until(lambda: sum(worker.applied() for worker in group.workers) >= plan.users, 300, "every user has a state")
        with closing_reader(settings) as reader, steady(made, plan, settings):
            reader.until_all(time.time())
            group.reset()
            began = time.time()
            living = WAYS[way](group)
            reader.until_all(time.time())
            reader.wait(SETTLED)
            longest, shortest, paused = _pauses(reader, began)
            rebalances, read_back = group.total(living)
        all_committed(settings)
        report = run_verify(settings, [])
        return Trial(
            membership, way, plan.users, plan.session_timeout, longest, shortest, paused, rebalances, read_back,
            group.exits, report["exit_code"],
        )  # fmt: skip
    finally:
        group.close()


def _pauses(reader: Reader, since: float) -> tuple[float, float, float]:
    gaps = reader.gaps(since).values()
    worst = [max(one) for one in gaps]
    sums = [sum(gap for gap in one if gap > SHORT) for one in gaps]
    return round(max(worst), 2), round(min(worst), 2), round(statistics.mean(sums), 2)


def trial_line(one: Trial) -> str:
    exits = f", exits {one.exits}" if one.exits else ""
    return (
        f"{one.way}, {one.membership}: longest {one.longest:.1f} s, shortest {one.shortest:.1f} s, paused "
        f"{one.paused:.1f} s, {one.rebalances} assignments, {one.read_back:,} records read back, verify {one.verified}{exits}"
    )


def summary(trials: Sequence[Trial]) -> Iterator[str]:
    """Medians of each way, side by side."""
    for way in dict.fromkeys(one.way for one in trials):
        for membership in MEMBERSHIPS:
            found = [one for one in trials if (one.way, one.membership) == (way, membership)]
            if found:
                said = [
                    f"{name} {statistics.median(getattr(one, name) for one in found):g}"
                    for name in ("longest", "shortest", "paused", "rebalances", "read_back")
                ]
                yield f"{way}, {membership}, {len(found)} rounds, medians: {', '.join(said)}"
