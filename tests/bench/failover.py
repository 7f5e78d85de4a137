"""Failover: how long a worker's users wait for slates when it is killed, and when it is stopped: python -m tests.bench.failover

Two workers share four partitions and the states of so many users; events of all users come at a steady rate. Again and again
one of the two, in turn, is killed (SIGKILL) and not started again until the other has all partitions, or is stopped
(SIGTERM), or is killed and started again at once, as a supervisor does. What counts is the longest time in which any partition's
users got no slate, by the times at which the slates were sent. With a standby, the other worker has followed the states already.
"""

from __future__ import annotations

import argparse
import json
import statistics
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from itertools import pairwise
from pathlib import Path

from kafka import KafkaConsumer, TopicPartition

from deploy.clients.arguments import client_arguments
from stream.core.keys import ANYONE_KEY
from stream.settings import Settings
from tests.bench.machine import describe
from tests.bench.sender import Order
from tests.bench.traffic import NO_COMMENTS, Message, send_all, send_items
from tests.bench.world import World, world
from tests.worker_process import WorkerProcess, environment, until

WAYS = ("killed", "stopped", "restarted")
SETTLED = 1.5  # seconds of slates after the takeover, so that the gap has both its ends


@dataclass(frozen=True)
class Plan:
    """rounds: of each way; rate: events a second meanwhile."""

    users: int = 100_000
    rounds: int = 10
    rate: int = 200
    session_timeout: float = 10.0
    standbys: tuple[int, ...] = (0, 1)
    ways: tuple[str, ...] = WAYS


@dataclass(frozen=True)
class Failover:
    """seconds: the longest time without slates, by round."""

    way: str
    standby: int
    users: int
    session_timeout: float
    seconds: list[float]

    @property
    def median(self) -> float:
        return statistics.median(self.seconds)


def measure(made: World, plan: Plan) -> Iterator[Failover]:
    for standby in plan.standbys:
        settings = made.settings(
            session_timeout=plan.session_timeout, inference_timeout=plan.session_timeout / 2, standby_replicas=standby
        )
        yield from _measure(made, plan, settings)


def _measure(made: World, plan: Plan, settings: Settings) -> Iterator[Failover]:
    send_items(settings, made.real.items)
    send_all(settings, first_events(plan.users, made.real.items))
    folder = made.scratch()
    workers = [WorkerProcess(settings, folder, name, bundles=made.real.folder) for name in ("w1", "w2")]
    try:
        for worker in workers:
            worker.start()
        for worker in workers:
            worker.wait_ready(120)
        until(lambda: sum(worker.applied() for worker in workers) >= plan.users, 300, "every user has a state")
        with steady(made, plan, settings), closing_reader(settings) as reader:
            for way in plan.ways:
                seconds = [_round(workers, n, way, settings, reader) for n in range(plan.rounds)]
                yield Failover(way, settings.standby_replicas, plan.users, plan.session_timeout, seconds)
    finally:
        for worker in workers:
            worker.close()


def first_events(users: int, items: Sequence[str]) -> Iterator[Message]:
    for number in range(users):
        user = f"user-{number}"
        body = {"user": user, "item": items[number % len(items)], "time": int(time.time() * 1000)}
        yield Message(0, user.encode(), json.dumps(body).encode())


def _round(workers: list[WorkerProcess], number: int, way: str, settings: Settings, reader: Reader) -> float:
    leaving, staying = workers[number % 2], workers[1 - number % 2]
    until(lambda: all(assigned(worker) for worker in workers), 60, "both workers have partitions")
    reader.until_all(time.time())
    began = time.time()
    if way == "stopped":
        leaving.process.terminate()
    else:
        leaving.kill()
    if way == "restarted":
        leaving.start()
        until(lambda: leaving.ready() and assigned(leaving), 60, "the worker is back")
    else:
        until(lambda: assigned(staying) == 3 * settings.partitions, 60, "the other worker has everything")
    reader.until_all(time.time())
    reader.wait(SETTLED)
    gap = reader.longest(began)
    if way != "restarted":
        leaving.wait(40)
        leaving.start().wait_ready(60)
    return round(gap, 2)


def assigned(worker: WorkerProcess) -> float:
    """Its source partitions, once it is ready; 0 before."""
    return worker.metric("freshet_partitions_assigned") if worker.ready() else 0


class Reader:
    """Times of slates, epoch seconds by their sender's clock, from now on."""

    def __init__(self, settings: Settings) -> None:
        self._consumer = KafkaConsumer(enable_auto_commit=False, **client_arguments(settings))
        self._tps = [TopicPartition(settings.recommendations_topic, n) for n in range(settings.partitions)]
        self._consumer.assign(self._tps)
        self._consumer.seek_to_end(*self._tps)
        self._times: dict[int, list[float]] = {tp.partition: [] for tp in self._tps}

    def poll(self) -> None:
        for tp, slates in self._consumer.poll(timeout_ms=200).items():
            self._times[tp.partition] += [s.timestamp / 1000 for s in slates if s.key != ANYONE_KEY]

    def wait(self, seconds: float) -> None:
        end = time.monotonic() + seconds
        while time.monotonic() < end:
            self.poll()

    def until_all(self, after: float) -> None:
        """Every partition has a slate that was sent after that."""

        def seen() -> bool:
            self.poll()
            return all(times and times[-1] > after for times in self._times.values())

        until(seen, 120, "slates in every partition")

    def gaps(self, since: float) -> dict[int, list[float]]:
        """The seconds between two slates, by partition, from the last slate before `since` on."""
        found = {}
        for partition, times in self._times.items():
            first = max((n for n, at in enumerate(times) if at <= since), default=0)
            kept = self._times[partition] = times[first:]
            found[partition] = [later - one for one, later in pairwise(kept)]
        return found

    def longest(self, since: float) -> float:
        """The longest time in seconds without slates in a partition, from the last slate before `since` on."""
        return max(max(gaps, default=0.0) for gaps in self.gaps(since).values())

    def close(self) -> None:
        self._consumer.close()


@contextmanager
def closing_reader(settings: Settings) -> Iterator[Reader]:
    reader = Reader(settings)
    try:
        yield reader
    finally:
        reader.close()


@contextmanager
def steady(made: World, plan: Plan, settings: Settings) -> Iterator[None]:
    """Events at plan.rate from a process of its own."""
    import subprocess

    mix = asdict(NO_COMMENTS)
    order = Order(plan.rate, 100_000, 1, plan.users, mix, str(made.real.folder))
    child = subprocess.Popen(
        [sys.executable, "-m", "tests.bench.sender", order.text()], env=environment(settings), stdout=subprocess.DEVNULL
    )
    try:
        yield
    finally:
        child.kill()
        child.wait(10)


def line(one: Failover) -> str:
    with_standby = "with a standby" if one.standby else "without standby"
    seconds = " ".join(f"{value:.1f}" for value in one.seconds)
    return (
        f"{one.way}, {with_standby}: median {one.median:.1f} s, most {max(one.seconds):.1f} s of {len(one.seconds)} "
        f"({one.users:,} users, session timeout {one.session_timeout:g} s): {seconds}"
    )


def compare(plan: Plan, ways: Sequence[str], out: Path | None) -> None:
    from tests.bench import memberships

    trials = []
    with world() as made:
        for one in memberships.compare(made, plan, ways or list(memberships.WAYS)):
            print(memberships.trial_line(one), flush=True)
            trials.append(one)
            if out:
                figures = [asdict(trial) for trial in trials]
                out.write_text(json.dumps({"machine": describe(), "memberships": figures}, indent=1) + "\n")
    for message in memberships.summary(trials):
        print(message)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--users", type=int, default=Plan.users)
    parser.add_argument("--rounds", type=int, default=Plan.rounds)
    parser.add_argument("--session-timeout", type=float, default=Plan.session_timeout)
    parser.add_argument("--ways", nargs="+", choices=WAYS, default=WAYS)
    parser.add_argument("--standbys", nargs="+", type=int, default=Plan.standbys)
    parser.add_argument(
        "--memberships", nargs="*", metavar="WAY",
        help="compare freshet's hand-over with static membership instead, in all ways or these: see tests.bench.memberships",
    )  # fmt: skip
    parser.add_argument("--json", type=Path, help="write the figures there")
    options = parser.parse_args()
    plan = Plan(
        options.users, options.rounds, session_timeout=options.session_timeout, standbys=tuple(options.standbys),
        ways=tuple(options.ways),
    )  # fmt: skip
    if options.memberships is not None:
        compare(plan, options.memberships, options.json)
        return
    found = []
    with world() as made:
        for one in measure(made, plan):
            print(line(one), flush=True)
            found.append(asdict(one))
    if options.json:
        options.json.write_text(json.dumps({"machine": describe(), "failover": found}, indent=1) + "\n")


if __name__ == "__main__":
    main()
