"""Faults 8 to 11: the broker stands still, is killed, is not there yet, or is at the end of a bad line."""

from __future__ import annotations

import time
from collections import Counter
from pathlib import Path
from typing import Any

from stream.settings import Settings
from tests.chaos.trial import RATE, Trial
from tests.failing_kafka import FailingKafka
from tests.settings import SETTINGS, with_topics
from tests.worker_process import WorkerProcess, until

LEASE = 0.75  # of the session timeout
AWAY = (75, 69)  # the lease ran out; no broker answered within startup_timeout of the next start


def settings_for(kafka: FailingKafka, **values: Any) -> Settings:
    """Topics on a broker of the test's own -> the settings of who reaches it directly."""
    return with_topics(kafka.bootstrap, **SETTINGS | values)


def stands_still(
    kafka: FailingKafka,
    bundles: Path,
    folder: Path,
    seed: int,
    seconds: float,
    *,
    workers: int = 2,
    rate: float = RATE,
) -> None:
    """Fault 8: the broker is stopped by SIGSTOP for longer than the lease. The workers end with 75 and are started again;
    those that find no broker within startup_timeout end with 69."""
    settings = settings_for(kafka)
    name = f"broker stopped for {seconds:g} s"
    with Trial(8, name, seed, settings, bundles, folder, workers=workers, rate=rate, allowed=AWAY) as trial:
        trial.pause(1, 4)
        began = time.monotonic()
        kafka.suspend()
        _all_end_with_75(trial)
        time.sleep(max(0.0, began + seconds - time.monotonic()))  # the fault's own duration
        kafka.resume()
        trial.note = f"SIGSTOP for {seconds:g} s under {rate:g} events/s; {_ended(trial)}; {_back(trial)}"


def stands_still_briefly(kafka: FailingKafka, bundles: Path, folder: Path, seed: int, seconds: float) -> None:
    """Fault 8: stopped for less than the lease. The workers wait, live, and nobody ends. The lease is three times as long, since
    a machine may stand still as a whole for seconds besides."""
    settings = settings_for(kafka, session_timeout=20.0)
    assert seconds + settings.heartbeat_interval < LEASE * settings.session_timeout
    with Trial(8, f"broker stopped for {seconds:g} s", seed, settings, bundles, folder, allowed=()) as trial:
        trial.pause(1, 4)
        began = time.monotonic()
        kafka.suspend()
        while time.monotonic() < began + seconds:
            assert [worker.get("/healthz")[0] for worker in trial.workers] == [200, 200]
            time.sleep(0.2)  # the fault's own duration
        kafka.resume()
        back = _back(trial)
        assert trial.exits == []
        trial.note = (
            f"SIGSTOP for {seconds:g} s, lease {LEASE * settings.session_timeout:g} s: all live, none ended; {back}"
        )


def stands_still_and_all_is_wiped(
    kafka: FailingKafka, bundles: Path, folder: Path, seed: int, seconds: float = 30.0
) -> None:
    """Fault 9: while the broker is stopped, every worker is killed and its data folder deleted."""
    settings = settings_for(kafka)
    allowed = (-9, *AWAY)
    with Trial(
        9, "broker stopped, workers killed and wiped", seed, settings, bundles, folder, allowed=allowed
    ) as trial:
        trial.pause(3, 8)
        began = time.monotonic()
        kafka.suspend()
        instants = sorted((trial.draw.uniform(0, 0.8 * seconds), number) for number in range(len(trial.workers)))
        for instant, number in instants:  # some within the lease, some while a new process waits for the broker
            time.sleep(max(0.0, began + instant - time.monotonic()))  # the fault's own instant
            trial.kill(trial.workers[number], wipe=True)
        time.sleep(max(0.0, began + seconds - time.monotonic()))
        kafka.resume()
        when = " and ".join(f"{instant:.1f}" for instant, _ in instants)
        trial.note = (
            f"SIGSTOP for {seconds:g} s, workers killed and wiped after {when} s; {_ended(trial)}; {_back(trial)}"
        )


def bounces(kafka: FailingKafka, bundles: Path, folder: Path, seed: int, rounds: int = 4) -> None:
    """Fault 10: the broker is stopped and started again under load, cleanly and by SIGKILL."""
    settings = settings_for(kafka)
    with Trial(10, "broker bounced", seed, settings, bundles, folder, allowed=AWAY) as trial:
        hard = [number % 2 == 0 for number in range(rounds)]
        trial.draw.shuffle(hard)
        for one in hard:
            trial.pause(1, 4)
            if one:
                kafka.kill()
            else:
                kafka.stop()
            trial.pause(0, 6)
            kafka.start()
            if trial.draw.random() < 0.6:  # else again while they come back
                trial.wait_ready()
                trial.works()
        how = ", ".join("SIGKILL" if one else "SIGTERM" for one in hard)
        trial.note = f"{how}; {_ended(trial)}; {_back(trial)}"


def not_there_at_the_start(kafka: FailingKafka, bundles: Path, folder: Path, seed: int) -> None:
    """Fault 10: a worker that finds no broker tries for startup_timeout, then ends with 69; one whose broker comes up in time
    starts, without having ended."""
    settings = settings_for(kafka)
    with Trial(
        10, "no broker at the start", seed, settings, bundles, folder, allowed=(), startup_timeout=60.0
    ) as trial:
        trial.pause(1, 3)
        for worker in trial.workers:
            trial.stop(worker)
        kafka.kill() if trial.draw.random() < 0.5 else kafka.stop()
        given = trial.draw.uniform(1, 5)
        hasty = WorkerProcess(settings, folder, "hasty", bundles=bundles, startup_timeout=given)
        began = time.monotonic()
        try:
            assert hasty.start().wait(60) == 69, hasty.tail()
        finally:
            hasty.close()
        gave_up = time.monotonic() - began
        assert gave_up >= given
        *before, line = hasty.log.read_text().splitlines()
        assert all("waiting for a Kafka broker" in one for one in before), before
        assert f"no Kafka broker answers at {settings.brokers}" in line
        for worker in trial.workers:
            trial.start(worker)
        trial.pause(2, 15)
        assert trial.exits == []
        assert not any(worker.port() for worker in trial.workers)
        kafka.start()
        back = _back(trial)
        assert trial.exits == []
        trial.note = f"startup_timeout {given:.1f} s: 69 after {gave_up:.1f} s, named; 60 s: waits, no exit, {back}"


def bad_lines(
    kafka: FailingKafka, bundles: Path, folder: Path, seed: int, *, seconds: float = 15.0, hole: float = 1.5
) -> None:
    """Fault 11: each worker at the end of a line of its own, with 50 to 300 ms of latency there and back, little bandwidth, and
    connections reset; then one line is a black hole for `hole` session timeouts, and what was on its way arrives after it."""
    settings = settings_for(kafka)
    lines = kafka.lines
    each = [{"brokers": line.address} for line in lines]
    with Trial(
        11, "bad lines", seed, settings, bundles, folder, workers=len(lines), rate=200, allowed=AWAY, each=each
    ) as trial:
        for line in lines:
            line.latency = (0.025, 0.15)
            line.bandwidth = trial.draw.uniform(200_000, 600_000)
        narrow = " and ".join(f"{line.bandwidth / 1000:.0f}" for line in lines)
        end, cut, resets = time.monotonic() + seconds, 0, 0
        while time.monotonic() < end:
            trial.pause(0.2, 3)
            cut += trial.draw.choice(lines).reset()
            resets += 1
        deaf = trial.draw.choice(lines)
        deaf.refuse()
        cut += deaf.reset()
        trial.pause(0.5, 3)
        deaf.accept()
        trial.wait_ready()
        trial.works()
        before = _ended(trial)
        number = trial.draw.randrange(len(lines))
        victim = trial.workers[number]
        known = len(trial.exits)
        lines[number].swallow()
        began = time.monotonic()
        until(lambda: (victim.name, 75) in trial.exits[known:], settings.session_timeout + 5, f"75 of {victim.name}")
        time.sleep(max(0.0, began + hole * settings.session_timeout - time.monotonic()))  # the fault's own duration
        lines[number].release()
        for line in lines:
            line.latency, line.bandwidth = (0.0, 0.0), 0.0
        trial.note = (
            f"50-300 ms there and back, {narrow} kB/s, {cut} connections cut by {resets} resets: {before}; "
            f"black hole of {hole * settings.session_timeout:g} s: {victim.name} ended with 75, {_back(trial)}"
        )


def _all_end_with_75(trial: Trial) -> None:
    everyone = {worker.name for worker in trial.workers}
    until(lambda: everyone <= {name for name, code in trial.exits if code == 75}, 15, "every worker ends with 75")


def _ended(trial: Trial) -> str:
    counted = Counter(code for _, code in trial.exits)
    return "exits " + (", ".join(f"{code} x{count}" for code, count in sorted(counted.items())) or "none")


def _back(trial: Trial) -> str:
    """Wait until they work again -> how long that took, in words."""
    began = time.monotonic()
    trial.wait_ready()
    trial.works()
    return f"at work again after {time.monotonic() - began:.1f} s"
