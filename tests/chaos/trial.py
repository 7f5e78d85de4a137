"""One fault with one seed: real workers under traffic and a supervisor; at the end all of them are held to the promise.

with Trial(fault=1, name="SIGKILL mid-batch", seed=3, settings=..., bundles=..., folder=...) as trial:
    trial.pause(1, 3)
    trial.kill(trial.one())

While the block runs, events are sent, each with a line in a producer log, and whichever worker ends is started again, as a
supervisor does in production. When it ends without an exception (`finish`): every worker is ready within READY seconds of
the last fault, all that was sent is committed, lag is 0, memory was bounded, no exit code but the allowed ones was seen,
every worker stops cleanly within 30 s, and `freshet verify` is green over topics, producer log and RocksDB folders. The outcome
is recorded (tests.chaos.outcomes).
"""

from __future__ import annotations

import json
import os
import random
import shutil
import signal
import threading
import time
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from functools import partial
from hashlib import sha256
from itertools import pairwise
from pathlib import Path
from types import TracebackType
from typing import Any

from deploy.verify import Report, Scope, run
from deploy.verify.producer_log import SEND_ID
from stream.core.keys import ANYONE_KEY
from stream.settings import Settings
from tests.bench.processes import resident_mib
from tests.chaos.outcomes import Outcome, record
from tests.worker_process import Events, WorkerProcess, all_committed, read_all, until

RATE = float(os.environ.get("TRIAL_RATE", "300"))  # events a second, where a fault does not say
READY = 60.0  # seconds from the last fault until every worker is ready
FINISHED = 120.0  # seconds from then until all that was sent is committed
MEMORY = 1500.0  # MiB that a worker may have resident
BACKOFF = (0.2, 5.0)  # seconds until a worker is started again: at first, at most
STOP = 30.0  # seconds that a clean stop may take
DELIVERY = 150.0  # seconds that the producer gets at the end; what it has not delivered then is indeterminate


class Traffic(threading.Thread):
    """Events at `rate` a second until `stop`; every send is a line of the producer log. `sent` counts those that the client
    took; `acked`, once it has ended: those that Kafka acknowledged."""

    def __init__(self, settings: Settings, producer_log: Path, seed: int, rate: float, users: int) -> None:
        super().__init__(daemon=True)
        self.events = Events(settings, seed=seed, users=users)
        self.rate = rate
        self.sends: list[tuple[str, str, bytes, Any]] = []
        self._producer_log = producer_log
        self._over = threading.Event()
        self.paused = threading.Event()
        self.acked = 0

    @property
    def sent(self) -> int:
        return self.events.sent

    def run(self) -> None:
        began, number = time.monotonic(), 0
        while not self._over.is_set():
            if self.paused.is_set():
                self._over.wait(0.05)
                began, number = time.monotonic(), 0
                continue
            topic, message = self.events.one()
            self.put(topic, message)
            number += 1
            ahead = began + number / self.rate - time.monotonic()
            if ahead > 0:
                self._over.wait(ahead)
            elif ahead < -1:  # the client was held up: no burst to catch up
                began, number = time.monotonic(), 0

    def put(self, topic: str, message: dict[str, Any]) -> None:
        """One acceptable event, by the producer log. Never raises for a broker that is not there."""
        value = json.dumps(message).encode()
        future = None
        with suppress(Exception):  # no metadata, no room: nothing was sent, the producer log says so
            future = self.events.put(topic, message, [(SEND_ID, str(len(self.sends)).encode())])
        self.sends.append((topic, message["user"], value, future))

    def stop(self) -> int:
        """End, wait for all acknowledgements, write the producer log -> how many were acknowledged."""
        self._over.set()
        self.join()
        with suppress(Exception):
            self.events.producer.flush(DELIVERY)
        self.acked = 0
        with self._producer_log.open("w", encoding="utf-8") as out:
            for number, (topic, user, value, future) in enumerate(self.sends):
                line: dict[str, Any] = {
                    "id": str(number), "topic": topic, "key": user, "sha256": sha256(value).hexdigest(),
                }  # fmt: skip
                if future is None:
                    line["status"] = "failed"
                elif not future.succeeded():
                    line["status"] = "indeterminate"
                else:
                    self.acked += 1
                    position = future.value
                    line |= {"status": "acked", "partition": position.partition, "offset": position.offset}
                out.write(json.dumps(line) + "\n")
        return self.acked


class Trial:
    """See the module. workers: how many; rate: events a second; bad, duplicates: source records that the block has sent
    besides the traffic, to become dead letters or to be counted as duplicates; poison_events: acceptable ones, which the
    producer log lacks too, that are set aside since the model fails on them; misplaces: the traffic's records may lie on
    wrong partitions, so that copies are sent on, after a kill some of them twice; foreign: violations that the check must
    name, and no others, of records that the block has forged; allowed: exit codes that a worker may end with before it is
    asked to; also: what else is asked of the report; judged: what else
    `freshet verify` is to check, as fields of Scope; more: settings of the workers alone, each: further ones of one worker
    each. The supervisor leaves the workers in `down` alone; those in it before the block are not started."""

    def __init__(
        self,
        fault: int,
        name: str,
        seed: int,
        settings: Settings,
        bundles: Path,
        folder: Path,
        *,
        workers: int = 2,
        rate: float = RATE,
        users: int = 200,
        allowed: tuple[int, ...] = (-signal.SIGKILL, 75),
        also: Callable[[Report], None] = lambda report: None,
        judged: Mapping[str, Any] = {},
        each: Sequence[Mapping[str, Any]] = (),
        **more: Any,
    ) -> None:
        self.fault, self.name, self.seed = fault, name, seed
        self.settings, self.bundles, self.folder = settings, bundles, folder
        self.draw = random.Random(seed)
        self.workers = [
            WorkerProcess(settings, folder, f"w{n + 1}", bundles=bundles, **more, **(each[n] if each else {}))
            for n in range(workers)
        ]
        self.traffic = Traffic(settings, folder / "ledger.jsonl", seed, rate, users)
        self.allowed = set(allowed)
        self.also = also
        self.judged = judged
        self.down: set[str] = set()
        self.exits: list[tuple[str, int]] = []
        self.kills = self.restarts = self.bad = self.duplicates = self.poison_events = 0
        self.misplaces = False
        self.foreign: Counter[str] = Counter()
        self.memory = 0.0
        self.most = MEMORY
        self.note = ""
        self.report: Report | None = None
        self._lock = threading.RLock()
        self._over = threading.Event()
        self._backoff: dict[str, float] = {}
        self._due: dict[str, float] = {}  # worker that has ended -> when it is started again
        self._supervisor = threading.Thread(target=self._supervise, daemon=True)
        self._began = time.monotonic()

    # the block's side

    def pause(self, low: float, high: float) -> None:
        """Let it work for a seeded time: the fault's own instant, nothing is waited for."""
        time.sleep(self.draw.uniform(low, high))

    def one(self) -> WorkerProcess:
        """A seeded choice among the workers."""
        return self.draw.choice(self.workers)

    def kill(self, worker: WorkerProcess, *, wipe: bool = False, again: bool = True) -> None:
        """SIGKILL, its data folder deleted where asked; it is started again at once, or stays down."""
        with self._lock:
            if worker.process.poll() is None:
                worker.kill()
                self.kills += 1
            else:
                self._ended(worker)
            if wipe:
                shutil.rmtree(worker.data_dir, ignore_errors=True)
            if again:
                self._start(worker)
            else:
                self._due.pop(worker.name, None)
                self.down.add(worker.name)

    def start(self, worker: WorkerProcess) -> None:
        """Start a worker that was down; from here on it is supervised."""
        with self._lock:
            self.down.discard(worker.name)
            worker.start()

    def stop(self, worker: WorkerProcess) -> float:
        """SIGTERM; it ends with 0 -> the seconds that it took. It stays down."""
        with self._lock:
            self.down.add(worker.name)
        began = time.monotonic()
        code = worker.terminate(STOP + 5)
        took = time.monotonic() - began
        assert code == 0, f"{worker.name} ended with {code} when asked to stop:\n{worker.tail()}"
        assert took <= STOP, f"{worker.name} took {took:.1f} s to stop"
        return took

    def ready(self, worker: WorkerProcess) -> bool:
        return worker.process.poll() is None and bool(worker.port()) and worker.get("/readyz")[0] == 200

    def wait_ready(self, seconds: float = READY) -> None:
        """Every supervised worker is ready."""
        for worker in self.workers:
            if worker.name not in self.down:
                until(partial(self.ready, worker), seconds, partial(worker.awaited, "ready"))

    def metric(self, name: str, **labels: str) -> float:
        """Sum over the workers that answer."""
        return sum(worker.metric(name, **labels) for worker in self.workers if worker.name not in self.down)

    def applied(self) -> float:
        return self.metric("freshet_events_total", outcome="applied")

    def works(self, events: int = 50, seconds: float = READY) -> None:
        """Wait until so many more events are applied by the workers that run now."""
        before = self.applied()
        until(lambda: not before <= self.applied() < before + events, seconds, f"{events} events applied")

    # from beginning to end

    def __enter__(self) -> Trial:
        try:
            self.traffic.events.send_items()
            first = [worker for worker in self.workers if worker.name not in self.down]
            for worker in first:
                worker.start()
            for worker in first:
                worker.wait_ready(READY)
            self._supervisor.start()
            self.traffic.start()
            until(lambda: self.applied() > 0, 30, "the first event is applied")
        except BaseException:
            self._close()
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        try:
            if kind is None:
                self.finish()
        finally:
            self._close()

    def finish(self) -> None:
        """The last fault is over: see the module."""
        self.wait_ready()
        acked = self.traffic.stop()
        all_committed(self.settings, seconds=FINISHED)
        until(lambda: self.metric("freshet_lag_records") == 0, 20, "lag 0")
        self._quit_supervising()
        for worker in self.workers:
            if worker.name not in self.down:
                self.stop(worker)
        self.report = report = run(self.settings, scope=self._scope())
        self._hold(report, acked)
        longest = unavailable(self.settings)
        record(
            Outcome(
                self.fault, self.name, self.seed, events=report.input, lost=report.lost, double=report.double,
                uncovered=report.uncovered, repeats=report.replays, kills=self.kills, restarts=self.restarts,
                unavailable=round(longest, 1), memory=round(self.memory), seconds=round(time.monotonic() - self._began, 1),
                note=self.note,
            )
        )  # fmt: skip

    def _scope(self) -> Scope:
        folders = tuple(worker.data_dir for worker in self.workers if worker.data_dir.is_dir())
        return Scope(producer_log=self.folder / "ledger.jsonl", data_dirs=folders, **self.judged)

    def _hold(self, report: Report, acked: int) -> None:
        violations = "\n".join(str(violation) for violation in report.violations[:5])
        assert report.kinds == self.foreign, f"expected {dict(self.foreign)}, {dict(report.kinds)}:\n{violations}"
        assert report.exit_code == (1 if self.foreign else 0), (
            f"exit code {report.exit_code}, {dict(report.kinds)}:\n{violations}"
        )
        assert (report.lost, report.double, report.uncovered, report.pending) == (0, 0, 0, 0)
        assert report.conserved
        assert report.acked == acked
        found = acked + report.failed_found + report.indeterminate_found
        assert report.input == found + self.bad + self.poison_events + report.duplicates + report.forwarded
        assert (report.dead_letters, report.inference) == (self.bad, self.poison_events)
        assert report.duplicates == self.duplicates or (self.misplaces and report.duplicates > self.duplicates)
        assert bool(report.forwarded) == self.misplaces
        assert report.applied == found
        self.also(report)
        assert self.memory < self.most, f"{self.memory:.0f} MiB"
        odd = [one for one in self.exits if one[1] not in self.allowed]
        assert not odd, f"workers ended with {odd}"

    # the supervisor

    def _supervise(self) -> None:
        while not self._over.wait(0.1):
            for worker in self.workers:
                with self._lock:
                    if worker.name in self.down:
                        continue
                    if worker.process.poll() is None:
                        with suppress(OSError):
                            self.memory = max(self.memory, resident_mib(worker.process.pid))
                    elif worker.name not in self._due:
                        self._ended(worker)
                        pause = self._backoff.get(worker.name, BACKOFF[0])
                        self._backoff[worker.name] = min(2 * pause, BACKOFF[1])
                        self._due[worker.name] = time.monotonic() + pause
                    elif time.monotonic() >= self._due[worker.name]:
                        self._start(worker)

    def _ended(self, worker: WorkerProcess) -> None:
        self.exits.append((worker.name, worker.process.poll() or 0))

    def _start(self, worker: WorkerProcess) -> None:
        self._due.pop(worker.name, None)
        worker.start()
        self.restarts += 1

    def _quit_supervising(self) -> None:
        self._over.set()
        self._supervisor.join()

    def _close(self) -> None:
        self._over.set()
        if self._supervisor.is_alive():
            self._supervisor.join()
        if self.traffic.is_alive():
            self.traffic.stop()
        with suppress(Exception):
            self.traffic.events.close(5.0)  # where the block has failed, the broker may be away
        for worker in self.workers:
            worker.close()


def unavailable(settings: Settings) -> float:
    """The longest time in seconds in which one partition's users got no slate, between its first slate and its last."""
    times: dict[int, list[int]] = {}
    for slate in read_all(settings, settings.recommendations_topic):
        if slate.key != ANYONE_KEY:
            times.setdefault(slate.partition, []).append(slate.timestamp)
    gaps = [later - one for stamps in times.values() for one, later in pairwise(sorted(stamps))]
    return max(gaps, default=0) / 1000
