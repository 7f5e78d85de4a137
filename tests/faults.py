"""Seeded faults on real worker processes under load, each judged by `freshet verify`'s own check."""

from __future__ import annotations

import random
import shutil
import signal
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from deploy.verify import Report, run
from stream.settings import Settings
from tests.worker_process import Events, WorkerProcess, until


@dataclass
class Plan:
    """How much, how fast, and what happens meanwhile. Gaps in seconds, drawn from (low, high)."""

    seed: int
    rate: float = 400.0
    gap: tuple[float, float] = (1.0, 3.0)
    users: int = 60
    workers: list[WorkerProcess] = field(default_factory=list)


@contextmanager
def traffic(settings: Settings, plan: Plan) -> Iterator[Events]:
    """Events at plan.rate in a thread until the block ends."""
    events = Events(settings, seed=plan.seed, users=plan.users)
    events.send_items()
    over = threading.Event()
    sender = threading.Thread(target=events.send, args=(10_000_000, plan.rate, over.is_set))
    sender.start()
    try:
        yield events
    finally:
        over.set()
        sender.join()
        events.producer.flush()


def judge(settings: Settings, sent: int, seconds: float = 60) -> Report:
    """Wait until the workers have finished everything, then hold them to the promise."""
    report = run(settings, wait=seconds)
    said = "\n".join(str(violation) for violation in report.violations[:5])
    assert report.exit_code == 0, f"exit code {report.exit_code}, {dict(report.kinds)}:\n{said}"
    assert (report.lost, report.double, report.uncovered) == (0, 0, 0)
    assert report.input == sent
    assert report.applied == sent
    return report


def kills(settings: Settings, bundles: Path, folder: Path, plan: Plan, count: int, wipes: int) -> Report:
    """SIGKILL one worker `count` times under load, with its data deleted `wipes` of these times; restart it each time."""
    draw = random.Random(plan.seed)
    wiped = set(draw.sample(range(count), wipes))
    worker = WorkerProcess(settings, folder, bundles=bundles).start().wait_ready()
    try:
        with traffic(settings, plan) as events:
            for number in range(count):
                time.sleep(draw.uniform(*plan.gap))  # the fault's own instant, nothing is waited for
                assert worker.kill() == -signal.SIGKILL
                if number in wiped:
                    shutil.rmtree(worker.data_dir)
                worker.start()
                if draw.random() < 0.5:  # else it is killed again while it joins or recovers
                    worker.wait_ready()
        worker.wait_ready()
        return judge(settings, events.sent)
    finally:
        worker.close()


def coming_and_going(settings: Settings, bundles: Path, folder: Path, plan: Plan, rounds: int) -> Report:
    """A second worker joins and leaves under load (SIGTERM and SIGKILL in turn), `rounds` times."""
    draw = random.Random(plan.seed)
    first = WorkerProcess(settings, folder, "w1", bundles=bundles).start().wait_ready()
    second = WorkerProcess(settings, folder, "w2", bundles=bundles)
    try:
        with traffic(settings, plan) as events:
            for number in range(rounds):
                second.start().wait_ready()
                time.sleep(draw.uniform(*plan.gap))
                if number % 2:
                    second.kill()
                else:
                    assert second.terminate(30) == 0
                time.sleep(draw.uniform(*plan.gap))
        first.wait_ready()
        return judge(settings, events.sent)
    finally:
        first.close()
        second.close()


def zombie(settings: Settings, bundles: Path, folder: Path, plan: Plan) -> Report:
    """A worker is stopped past its session timeout while another takes over; woken, it exits with 75."""
    first = WorkerProcess(settings, folder, "w1", bundles=bundles).start().wait_ready()
    second = WorkerProcess(settings, folder, "w2", bundles=bundles).start().wait_ready()
    try:
        with traffic(settings, plan) as events:
            until(lambda: second.metric("freshet_events_total", outcome="applied") > 50, 30, "the second worker works")
            second.send_signal(signal.SIGSTOP)
            time.sleep(settings.session_timeout * 1.8)  # the fault: longer than the session
            second.send_signal(signal.SIGCONT)
            assert second.wait(20) == 75
        first.wait_ready()
        return judge(settings, events.sent)
    finally:
        first.close()
        second.close()


def late_writer(settings: Settings, bundles: Path, folder: Path, plan: Plan) -> Report:
    """A worker without a lease is stopped right before a write and wakes when another has its partitions: the write is
    fenced, the worker ends with 75, and nothing of it is in a state."""
    first = WorkerProcess(settings, folder, "w1", bundles=bundles).start().wait_ready()
    second = WorkerProcess(settings, folder, "w2", mutant="stalls", bundles=bundles).start().wait_ready()
    try:
        with traffic(settings, plan) as events:
            until(second.stopped, 30, "the second worker stops before a write")
            owned = settings.partitions
            until(lambda: first.metric("freshet_partitions_assigned") == 3 * owned, 30, "the first worker owns all")
            applied = first.metric("freshet_events_total", outcome="applied")
            until(lambda: first.metric("freshet_events_total", outcome="applied") > applied + 200, 30, "it works")
            second.send_signal(signal.SIGCONT)
            assert second.wait(20) == 75, second.tail()
        first.wait_ready()
        report = judge(settings, events.sent)
        assert report.fenced > 0
        return report
    finally:
        first.close()
        second.close()


Scenario = Callable[[Settings, Path, Path, Plan], Report]
