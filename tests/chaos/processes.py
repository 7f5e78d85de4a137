"""Faults 1 to 7: worker processes killed, stopped, held up, added and taken away under traffic."""

from __future__ import annotations

import signal
import time
from functools import partial
from pathlib import Path

from deploy.clients.log_reader import KafkaLog
from deploy.verify import Report
from stream.settings import Settings
from tests.chaos.trial import STOP, Trial
from tests.points import POINTS
from tests.worker_process import COMMAND, WorkerProcess, until

ZOMBIE = 75  # exit code of a worker that the group may have given up


def kills(settings: Settings, bundles: Path, folder: Path, seed: int, count: int) -> None:
    """Fault 1: SIGKILL one of two workers, `count` times; now and then while one still joins or recovers."""
    with Trial(1, "SIGKILL mid-batch", seed, settings, bundles, folder) as trial:
        working = 0
        for _ in range(count):
            at_work = trial.draw.random() < 0.6
            if at_work:
                trial.works()
            trial.pause(0.5, 2)
            ready = [worker for worker in trial.workers if trial.ready(worker)]
            victim = trial.draw.choice(ready) if at_work and ready else trial.one()
            working += victim in ready
            trial.kill(victim)
        trial.note = f"{count} kills at seeded instants, {working} of them of a worker that was ready"


def points(settings: Settings, bundles: Path, folder: Path, seed: int, count: int) -> None:
    """Fault 2: whichever of two workers first comes by a named point dies there; `count` points, in seeded order."""
    order = folder / "order"
    trial = Trial(2, "kill at named points", seed, settings, bundles, folder)
    for worker in trial.workers:
        worker.command = ["tests.points", str(order)]
    with trial:
        for point in trial.draw.sample(list(POINTS), count):
            trial.works()
            trial.pause(0, 1)
            order.write_text(point)
            if point in ("recovering", "claimed"):  # which happens at a takeover only
                trial.kill(trial.one(), wipe=point == "recovering")
            until(partial(_died, trial, order, len(trial.exits)), 60, f"a worker dies at {point}")
            trial.kills += 1
        trial.note = f"died once at each of {count} points: the last {point}"


def _died(trial: Trial, order: Path, before: int) -> bool:
    """The order was carried out, and the supervisor has seen one exit more."""
    return not order.exists() and len(trial.exits) > before


def wipes(settings: Settings, bundles: Path, folder: Path, seed: int, count: int) -> None:
    """Fault 3: SIGKILL and the data folder deleted, `count` times: of one worker or of both at once."""
    with Trial(3, "SIGKILL and data deleted", seed, settings, bundles, folder) as trial:
        both = 0
        for _ in range(count):
            trial.works()
            trial.pause(0.5, 2)
            if trial.draw.random() < 0.3:
                both += 1
                for worker in trial.workers:
                    trial.kill(worker, wipe=True)
            else:
                trial.kill(trial.one(), wipe=True)
        trial.note = f"{count} times a worker lost its disk, {both} of them both workers at once"


def clean_stops(settings: Settings, bundles: Path, folder: Path, seed: int, count: int) -> None:
    """Fault 4: SIGTERM, `count` times: 0 within 30 s, and no event is read a second time.

    Comments are of few texts, which a worker soon knows: behind one that waits for longer than a stop does, all is read again.
    """

    def nothing_again(report: Report) -> None:
        assert report.replays == 0, f"{report.replays} slates of events that were read again"

    trial = Trial(4, "SIGTERM", seed, settings, bundles, folder, allowed=(), also=nothing_again)
    trial.traffic.events.words = 1
    with trial:
        longest = 0.0
        for _ in range(count):
            trial.works()
            trial.pause(0, 2)
            worker = trial.one()
            longest = max(longest, trial.stop(worker))
            trial.pause(0, 2)
            trial.start(worker)
            trial.wait_ready()
        trial.note = f"{count} stops, the longest took {longest:.1f} s of {STOP:g}; no event was read again"


def comes_and_goes(settings: Settings, bundles: Path, folder: Path, seed: int, rounds: int) -> None:
    """Fault 5: a third worker joins two and leaves, by SIGTERM and SIGKILL in turn, `rounds` times."""
    trial = Trial(5, "a worker comes and goes", seed, settings, bundles, folder, workers=3)
    third = trial.workers[2]
    trial.down.add(third.name)
    joined = 0
    with trial:
        for number in range(rounds):
            trial.start(third)
            until(lambda: started(third), 60, f"it starts:\n{third.tail()}")
            if trial.draw.random() < 0.5:  # else it leaves while it joins
                until(lambda: trial.ready(third), 60, f"it is ready:\n{third.tail()}")
                trial.pause(0, 2)
            joined += trial.ready(third)
            if number % 2:
                trial.kill(third, again=False)
            else:
                trial.stop(third)
            trial.pause(0, 1)
        trial.note = f"{rounds} times a third worker was started and taken away, {joined} of them after it was ready"


def started(worker: WorkerProcess) -> bool:
    """It has said so, and takes signals."""
    assert worker.process.poll() is None, worker.tail()
    return bool(worker.port())


def before_first_commit(settings: Settings, bundles: Path, folder: Path, seed: int) -> None:
    """Fault 6: nothing is committed yet when the worker crashes, and when another joins; even seeds in this order."""
    trial = Trial(6, "rebalance before the first commit", seed, settings, bundles, folder, commit_interval=15.0)
    first, second = trial.workers
    trial.down.add(second.name)
    with trial:
        trial.pause(0, 2)
        crash_first = seed % 2 == 0
        assert not committed(settings), "committed before the fault"
        if crash_first:
            trial.kill(first)
            until(lambda: trial.ready(first), 60, "ready again")
            assert not committed(settings), "committed before the second worker joins"
        trial.start(second)
        trial.wait_ready()
        if not crash_first:
            trial.works()
            trial.kill(first)
            trial.wait_ready()
        what = ("a second worker joined, then the first crashed", "the first worker crashed, then a second joined")
        trial.note = f"{what[crash_first]}, nothing was committed before"


def committed(settings: Settings) -> dict[tuple[str, int], int]:
    log = KafkaLog(settings)
    try:
        return {tp: offset for tp, offset in log.committed().items() if offset > 0}
    finally:
        log.close()


def zombie(settings: Settings, bundles: Path, folder: Path, seed: int) -> None:
    """Fault 7: a worker is stopped past its session timeout while another takes over; woken, it ends with 75."""
    with Trial(7, "zombie", seed, settings, bundles, folder, allowed=(ZOMBIE,)) as trial:
        trial.pause(0, 2)
        victim = trial.one()
        other = next(worker for worker in trial.workers if worker is not victim)
        seconds = trial.draw.uniform(1.2, 2) * settings.session_timeout
        victim.send_signal(signal.SIGSTOP)
        time.sleep(seconds)  # the fault
        until(lambda: owns_all(other), 30, "the other worker has taken over")
        victim.send_signal(signal.SIGCONT)
        until(lambda: trial.exits, 20, "the zombie ends")
        trial.note = (
            f"stopped for {seconds:.1f} s with a session timeout of {settings.session_timeout:g} s, ended with 75"
        )


def late_writer(settings: Settings, bundles: Path, folder: Path, seed: int) -> None:
    """Fault 7: a worker without a lease is stopped right before a write and wakes when another has its partitions: the write
    is fenced, the worker ends with 75, and nothing of it is in a state."""

    def fenced(report: Report) -> None:
        assert report.fenced > 0
        trial.note = f"{report.fenced} late records fenced, their writer ended with 75"

    trial = Trial(7, "late writer", seed, settings, bundles, folder, allowed=(ZOMBIE,), also=fenced)
    late = trial.one()
    other = next(worker for worker in trial.workers if worker is not late)
    late.command = ["tests.mutants", "stalls"]
    with trial:
        until(late.stopped, 30, "stopped before a write")
        late.command = list(COMMAND)
        until(lambda: owns_all(other), 30, "the other worker has taken over")
        before = other.applied()
        until(lambda: other.applied() > before + 200, 30, "it works")
        trial.pause(0, 3)
        late.send_signal(signal.SIGCONT)
        until(lambda: trial.exits, 20, "the late writer ends")


def owns_all(worker: WorkerProcess) -> bool:
    return worker.metric("freshet_partitions_assigned") == 3 * worker.settings.partitions
