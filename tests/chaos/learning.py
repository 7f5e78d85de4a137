"""Faults 24, 58 and 59: what learns and what exchanges bundles is killed under traffic: swaps, a tally, a capture."""

from __future__ import annotations

import signal
import subprocess
import threading
import time
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import Any, Final

import numpy as np

from deploy.clients import activations
from deploy.clients.activations import Followed
from deploy.clients.log_reader import KafkaLog
from deploy.learning.capture import HALF
from deploy.verify import Report
from stream.settings import Settings
from tests.activations import activate
from tests.bench.processes import resident_mib
from tests.capture_process import captured, command, held, ranges_in
from tests.chaos.trial import BACKOFF, READY, Trial
from tests.tally_kills import MOMENTS
from tests.tally_process import TallyProcess, closings, elsewhere
from tests.worker_process import environment, read_all, slates, until

SWAP: Final = 120.0
"""Seconds within which all partitions must have switched, on a machine that is busy besides."""
CALM: Final = 10.0
"""Seconds before and after a swap of which latencies and memory are compared with those during it."""
GROWTH: Final = 1.1
"""Times as much memory as before that a worker may have CALM seconds after a swap and a rollback."""


# 58


class SupervisedTally:
    """One `freshet tally` that is started again whenever it ends. exits: its exit codes."""

    def __init__(self, tally: TallyProcess) -> None:
        self.tally = tally
        self.exits: list[int] = []
        self._plain = list(tally.command)
        self._lock = threading.Lock()
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._watch, daemon=True)

    def __enter__(self) -> SupervisedTally:
        self.tally.start().wait_ready()
        self._thread.start()
        return self

    def __exit__(self, *error: object) -> None:
        self.end()
        self.tally.close()

    def end(self) -> None:
        """Supervise no longer."""
        self._over.set()
        self._thread.join()

    def kill(self, moment: str = "") -> None:
        """SIGKILL now, or restart it so that it kills itself at a moment of tests.tally_kills."""
        before = len(self.exits)
        with self._lock:
            if moment:
                self.tally.command = ["tests.tally_kills", moment]
            self.tally.send_signal(signal.SIGKILL)
        until(lambda: len(self.exits) > before + bool(moment), READY, f"it dies: {moment or 'now'}")

    def _watch(self) -> None:
        while not self._over.wait(0.05):
            code = self.tally.process.poll()
            if code is None:
                continue
            self.exits.append(code)
            self._over.wait(BACKOFF[0])
            with self._lock:
                self.tally.start()
                self.tally.command = list(self._plain)  # of the next start


def tally_kills(settings: Settings, bundles: Path, folder: Path, seed: int, rounds: int) -> None:
    """Fault 58: a tally is killed beside two workers that serve its epochs: at seeded instants and at each of the moments of
    tests.tally_kills. `freshet verify` counts the newest epoch again and scores slates with the epochs that they name, and a
    tally that was never killed finds the same hash."""
    tally = TallyProcess(settings, folder, bundles=bundles, tally_epoch_seconds=0.5)

    def judged(report: Report) -> None:
        assert report.table_epoch > 1
        assert report.ranked > 0
        tally.once()
        closed = closings(settings)[-1]
        TallyProcess(elsewhere(settings), folder, "t2", bundles=bundles).once()
        assert closings(settings)[-1] == closed, "a tally that was never killed counts otherwise"
        epochs = {slate["tables"] for slate in slates(settings) if "tables" in slate}
        assert len(epochs) > 1, epochs
        trial.note = (
            f"{rounds} kills at seeded instants and {len(MOMENTS)} at named moments; {report.table_epoch} epochs, the newest "
            f"with {report.table_rows} rows, counted again alike; slates name {len(epochs)} of them"
        )

    trial = Trial(
        58, "a tally is killed", seed, settings, bundles, folder, also=judged,
        judged={"tables": True, "bundle": bundles},
    )  # fmt: skip
    with SupervisedTally(tally) as supervised:
        with trial:
            moments = trial.draw.sample(list(MOMENTS), len(MOMENTS))
            plan: list[str] = trial.draw.sample([*moments, *[""] * rounds], len(moments) + rounds)
            for moment in plan:
                until(partial(trial.ready, tally), READY, partial(tally.awaited, "ready"))
                trial.pause(0.2, 1.5)
                supervised.kill(moment)
                trial.kills += 1 + bool(moment)
            trial.works()
            newest = closings(settings)[-1].epoch
            until(lambda: closings(settings)[-1].epoch > newest + 1, READY, "epochs go on")
            supervised.end()
            tally.send_signal(signal.SIGTERM)
            assert tally.wait(35) == 0, tally.tail()
        odd = [code for code in supervised.exits if code != -signal.SIGKILL]
        assert not odd, f"the tally ended with {odd}"


# 59


def capture_kills(settings: Settings, bundles: Path, folder: Path, seed: int, rounds: int) -> None:
    """Fault 59: a capture is killed while it writes files beside two workers; in the end its folder has each record of the
    source topics once, no other, and nothing half-made."""
    kept = folder / "kept"
    kinds = {topic: topic.removeprefix(settings.prefix) for topic in settings.sources}

    def complete(report: Report) -> None:
        done = captured(settings, kept, "--json")
        assert done.returncode == 0, done.stderr
        found = held(settings, kept)
        assert set(found.values()) == {1}, "a record is there twice"
        there = {
            (kinds[topic], record.partition, record.offset)
            for topic in settings.sources
            for record in read_all(settings, topic)
        }
        assert set(found) == there
        assert not list(kept.rglob(f"{HALF}*")), "something half-made is left"
        trial.note = f"{rounds} kills; {len(found)} records in {ranges_in(kept)} ranges, each once"

    trial = Trial(59, "a capture is killed", seed, settings, bundles, folder, also=complete)
    with trial:
        for _ in range(rounds):
            enough = ranges_in(kept) + trial.draw.randint(1, 12)
            running = subprocess.Popen(
                command(kept, "--every", "0.05"), env=environment(settings), stdout=subprocess.DEVNULL
            )
            try:
                until(partial(_has, kept, enough), READY, "it has captured more")
                trial.pause(0, 0.3)
                running.send_signal(signal.SIGKILL)
            finally:
                with suppress(ProcessLookupError):
                    running.kill()
                running.wait()
            trial.kills += 1


def _has(folder: Path, count: int) -> bool:
    return ranges_in(folder) >= count


# 24


class Fleet:
    """The workers of a trial, and what the topic says of their bundles."""

    def __init__(self, trial: Trial) -> None:
        self.trial = trial
        self.settings = trial.settings
        self.log = KafkaLog(trial.settings)

    def followed(self, number: int) -> Followed:
        return activations.followed(self.log, self.settings).entries[number]

    def served(self, bundle: str) -> bool:
        """Whether the last switch of each partition names a bundle."""
        last = activations.followed(self.log, self.settings).last
        return [one.bundle for one in last.values()] == [bundle] * self.settings.partitions

    def switched(self, bundle: str) -> None:
        until(partial(self.served, bundle), SWAP, f"every partition is served by {bundle[:12]}")

    def resident(self) -> list[float]:
        """MiB of each worker that runs."""
        return [resident_mib(worker.process.pid) for worker in self.trial.workers if worker.name not in self.trial.down]


def hot_swaps(
    settings: Settings, bundles: Path, both: tuple[str, str], folder: Path, seed: int, rounds: int, rate: float = 1000.0
) -> None:
    """Fault 24: a bundle is activated and rolled back under `rate` events a second with two workers: once while nobody is
    killed, to compare latencies and memory, then in each round with a kill at a seeded instant of the swap. Every slate must be
    by the bundle that the topic says (`freshet verify`: slate-bundle), and no activation be left unfollowed (bundle-stale)."""
    own, other = both
    figures: dict[str, Any] = {}

    def by_both(report: Report) -> None:
        made = {slate["bundle"] for slate in slates(settings)}
        assert made == {own, other}, made
        for one, two in zip(*figures["memory"], strict=True):
            assert two <= GROWTH * one, f"memory: {one:.0f} MiB before, {two:.0f} MiB after swap and rollback"
        before, during, after = (percentile(settings, *figures[name]) for name in ("before", "during", "after"))
        rss = ", ".join(f"{one:.0f} to {two:.0f} MiB" for one, two in zip(*figures["memory"], strict=True))
        trial.note = (
            f"{rate:g} events/s; swap and rollback, then {rounds} swaps with a kill in each; all partitions switched after "
            f"{figures['seconds'][0]:.1f} and {figures['seconds'][1]:.1f} s; p99 of clicks {before:.0f} ms before, "
            f"{during:.0f} ms during, {after:.0f} ms after; memory of the workers before the swap and after the rollback {rss}"
        )

    trial = Trial(
        24, "hot swap and rollback", seed, settings, bundles, folder, rate=rate, also=by_both,
        judged={"bundle": bundles, "swap_limit": SWAP},
    )  # fmt: skip
    with trial:
        fleet = Fleet(trial)
        try:
            trial.works(500)
            time.sleep(CALM)
            start, memory = _now(), fleet.resident()
            figures["before"] = start - CALM * 1000, start
            numbers = []
            for bundle in (other, own):
                numbers.append(activate(settings, bundle))
                fleet.switched(bundle)
            end = _now()
            time.sleep(CALM)
            figures |= {"during": (start, end), "after": (end, _now()), "memory": (memory, fleet.resident())}
            followed = [fleet.followed(number) for number in numbers]
            assert not [one for one in followed if one.refused]
            figures["seconds"] = [one.seconds(settings.partitions) for one in followed]
            for number in range(rounds):
                bundle = both[(number + 1) % 2]
                activate(settings, bundle, f"round {number}")
                trial.pause(0, 6)
                trial.kill(trial.one())
                fleet.switched(bundle)
                trial.wait_ready()
                trial.works()
        finally:
            fleet.log.close()


def percentile(settings: Settings, since: float, until_: float) -> float:
    """The 99th percentile of latency_ms of the slates for clicks between two times (epoch ms)."""
    found = [
        slate["latency_ms"]
        for slate in slates(settings)
        if since <= slate["time"] < until_
        and not slate["replay"]
        and any(topic == settings.sources[0] for topic, _, _ in slate["events"])
    ]
    return float(np.percentile(found, 99)) if found else float("nan")


def _now() -> float:
    return time.time() * 1000
