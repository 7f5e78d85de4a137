"""Faults 36, 37, 38 and 45: workers that would be alive and do nothing, compressed topics, stops during the start, last words."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from datetime import datetime
from pathlib import Path

from kafka.admin import ConfigResource, ConfigResourceType

from deploy.clients.admin import admin
from stream.settings import Settings
from tests.chaos.trial import STOP, Trial
from tests.failing_kafka import FailingKafka
from tests.worker_process import WorkerProcess, until

STALL = {"stall_timeout": 20.0, "rebalance_timeout": 4.0}
ENDS: dict[str, tuple[int, str]] = {
    "agent": (70, "was cancelled, although nobody asked it to stop"),
    "service": (70, "_restart_recovery of"),
    "coordination": (70, "the task the worker's consumer: group was cancelled"),
    "fetching": (
        70,
        "the task the worker's consumer: fetching ",
    ),  # cancelled, or ended: the client may end it by itself
    "sending": (70, "the task the worker's producer: sending "),
    "items": (70, "the task items was cancelled"),
    "health": (70, "the thread health has ended"),
    "callback": (70, "KeyError: b'nobody'"),
    "thread": (70, "KeyError: b'nobody'"),
    "loop": (70, "waits for the event loop to turn; the main thread is at loop"),
    "consumers_loop": (75, "no heartbeat for"),
    "fetch_stands": (70, "waits for source records to be processed"),
    "commit_stands": (70, "waits for offsets of"),
    "encoding_stands": (70, "behind comments to be encoded"),
}
"""What tests.broken does to a worker -> its exit code, and what its last line says."""
CLOCK = (69, "this machine's clock is")
WORDS: dict[str, tuple[int, str]] = {
    "golden": (65, "golden.npz: not computed within 3 s: a graph does not end"),
    "memory": (70, "out of memory"),
    "descriptors": (70, "too many open files (this process may have"),
}


def nothing_stands(settings: Settings, bundles: Path, folder: Path, seed: int, names: Sequence[str]) -> None:
    """Fault 36: beside a worker that works, another in which each of `names` happens ends with its line; and one whose clock is
    two hours ahead either ends with a line that names the clock, or works."""
    with Trial(36, "ends or stands still", seed, settings, bundles, folder, workers=1) as trial:
        for name in trial.draw.sample(list(names), len(names)):
            ended(trial, name, *ENDS[name])
        worker = broken(trial, "clock").start()
        try:
            until(lambda: worker.process.poll() is not None or trial.ready(worker), 60, lambda: worker.tail())
            ends = worker.process.poll() is not None
            assert not ends or (last(worker) == CLOCK[0] and CLOCK[1] in worker.tail(1)), worker.tail()
        finally:
            worker.close()
        trial.note = f"each ended with a line that names it: {', '.join(sorted(names))}; the clock ahead: " + (
            "named" if ends else "works"
        )


def last_words(settings: Settings, bundles: Path, folder: Path, seed: int, kafka: FailingKafka | None = None) -> None:
    """Fault 45: the last line says what has run out, and nothing follows it. kafka: the broker, to be killed as well."""
    with Trial(45, "last words", seed, settings, bundles, folder, workers=1, allowed=(75, 69)) as trial:
        for name in trial.draw.sample(list(WORDS), len(WORDS)):
            ended(trial, name, *WORDS[name])
        broker_note = ""
        if kafka is not None:
            trial.pause(0.5, 2)
            (worker,) = trial.workers
            lines, ran = worker.lines, worker.process
            kafka.kill()
            until(lambda: ran.poll() is not None, 30, lambda: f"it ends:\n{worker.tail()}")
            found = lines()
            end = next(number for number, line in enumerate(found) if line["level"] == "CRITICAL")
            assert "broker unreachable" in found[end]["message"], found[end]
            assert "another worker" not in found[end]["message"]
            since = [line for line in found[:end] if line["level"] in ("WARNING", "ERROR")]
            assert len(since) < 60, f"{len(since)} lines"
            broker_note = (
                f"; after the broker was killed {len(since)} warnings and errors, then: {found[end]['message']}"
            )
            kafka.start()
        trial.note = f"each named, and nothing after it: {', '.join(sorted(WORDS))}{broker_note}"


def broken(trial: Trial, name: str) -> WorkerProcess:
    worker = WorkerProcess(trial.settings, trial.folder, f"broken-{name}", bundles=trial.bundles)
    worker.command = ["tests.broken", name]
    return worker


def ended(trial: Trial, name: str, code: int, words: str) -> None:
    """A broken worker joins, and ends with `code` and one last line that has `words`."""
    worker = broken(trial, name).start()
    try:
        until(lambda: worker.process.poll() is not None, 90, lambda: f"{name} ends:\n{worker.tail()}")
        lines = worker.lines()
        assert last(worker) == code, f"{name}:\n{worker.tail()}"
        assert words in lines[-1]["message"], f"{name}:\n{worker.tail()}"
        assert lines[-1]["level"] == "CRITICAL"
        assert worker.tail(1).startswith("{"), f"after the last line of {name}: {worker.tail(3)}"
    finally:
        worker.close()


def last(worker: WorkerProcess) -> int:
    return worker.process.wait(10)


def codecs(settings: Settings, bundles: Path, folder: Path, seed: int, names: Sequence[str]) -> None:
    """Fault 37: source topics and the changelog are switched to a codec, sources back again; a worker that has lost its folder
    reads the changelog, and whoever gets its partitions what the sources hold."""
    with Trial(37, "codecs", seed, settings, bundles, folder, allowed=(-signal.SIGKILL, 75, 78)) as trial:
        order = trial.draw.sample(list(names), len(names))
        for name in order:
            trial.works()
            compress(settings, name, settings.changelog_topic, *settings.sources)
            trial.pause(1, 2)
            compress(settings, "uncompressed", *settings.sources)
            trial.kill(trial.one(), wipe=True)
            trial.wait_ready()
        trial.works()
        trial.note = f"in this order: {', '.join(order)}; after each a worker lost its folder and read the changelog"


def compress(settings: Settings, codec: str, *topics: str) -> None:
    """Set compression.type, all other settings as they are."""
    kept = {"cleanup.policy", "message.timestamp.type", "max.message.bytes"}
    with admin(settings) as client:
        for topic in topics:
            resource = ConfigResource(ConfigResourceType.TOPIC, topic)
            has = client.describe_configs([resource])["topic"][topic]
            configs = {name: str(has[name]["value"]) for name in kept if name in has} | {"compression.type": codec}
            client.alter_configs([ConfigResource(ConfigResourceType.TOPIC, topic, configs)])


def stops_during_start(
    settings: Settings,
    bundles: Path,
    folder: Path,
    seed: int,
    *,
    rounds: int = 5,
    new: int = 1500,
    within: float = 12.0,
) -> None:
    """Fault 38: SIGTERM at seeded instants of a start that has `new` items to encode; the last round with a log that nobody
    reads. Gone within 30 s with 0, and nothing is claimed after the signal."""
    with Trial(38, "SIGTERM during the start", seed, settings, bundles, folder, workers=1) as trial:
        trial.traffic.events.send_items(f"new-{number}" for number in range(new))
        longest = 0.0
        for number in range(rounds):
            worker = WorkerProcess(settings, folder, "starting", bundles=bundles)
            unread = number == rounds - 1
            child = into_a_full_pipe(worker) if unread else worker.start().process
            try:
                trial.pause(1.5, within)  # from Python's own start on
                asked = time.time() * 1000
                child.send_signal(signal.SIGTERM)
                began = time.monotonic()
                code = child.wait(STOP + 5)
                longest = max(longest, time.monotonic() - began)
                assert code in ((0, 70, -signal.SIGTERM) if unread else (0, -signal.SIGTERM)), worker.tail()
                assert time.monotonic() - began <= STOP
            finally:
                child.kill()
            if not unread:
                late = [one for one in worker.lines() if one.get("message") == "partitions claimed"]
                assert all(stamp(one["time"]) <= asked + 500 for one in late), worker.tail()
        trial.note = (
            f"{rounds} stops, the longest took {longest:.1f} s of {STOP:g}; {new} items to encode at each start"
        )


def stamp(text: str) -> float:
    return datetime.fromisoformat(text).timestamp() * 1000


def into_a_full_pipe(worker: WorkerProcess) -> subprocess.Popen[bytes]:
    """A worker whose log goes into a pipe that is full."""
    reader, writer = os.pipe()
    os.set_blocking(writer, False)
    try:
        while True:
            os.write(writer, b"x" * 4096)
    except BlockingIOError:
        os.set_blocking(writer, True)
    child = subprocess.Popen(
        [sys.executable, "-m", *worker.command], env=worker._environment, stdin=subprocess.DEVNULL, stderr=writer,
        stdout=subprocess.DEVNULL, pass_fds=(reader,),
    )  # fmt: skip
    os.close(writer)
    os.close(reader)
    return child
