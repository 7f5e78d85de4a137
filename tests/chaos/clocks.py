"""Fault 40: a worker's clock is wrong or jumps, and records are far older than their topic keeps its own.

The broker looks every second for what its retention may delete. That it did so after the last slate is seen by a control: an old
record in a topic that keeps its senders' times.
"""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any

from kafka import KafkaProducer
from kafka.admin import ConfigResource, ConfigResourceType

from deploy.clients.admin import admin
from deploy.clients.arguments import client_arguments
from deploy.clients.log_reader import KafkaLog
from deploy.dead_letters.reader import opened
from stream.core.keys import ANYONE_KEY
from stream.settings import Settings
from tests.chaos.trial import Trial
from tests.clocks import wrong_by
from tests.failing_kafka import FailingKafka
from tests.settings import SETTINGS, with_topics
from tests.worker_process import read_all, until

HOUR, DAY = 3600.0, 86_400.0
WRONG = {
    "60 days behind": -60 * DAY,
    "two hours ahead": 2 * HOUR,
    "ten years ahead": 3650 * DAY,
    "in 1970": -time.time() + 1000,
    "before 1970": -time.time() - 1000,
}
"""Seconds by which a worker's clock is ahead."""

NEAR = 3.0  # seconds: how far the worker's idea of the brokers' time may be off on a crowded machine


class Tidy(FailingKafka):
    """A broker that looks every second for what it may delete."""

    def _write(self, port: int) -> None:
        super()._write(port)
        file = self.directory / "server.properties"
        file.write_text(file.read_text() + "log.retention.check.interval.ms=1000\nlog.initial.task.delay.ms=1000\n")


def wrong_clock(folder: Path, bundles: Path, seed: int, name: str) -> None:
    """One of two workers has a wrong clock from its start on."""
    with tidy(folder) as settings:
        trial = clocked(f"clock {name}", settings, bundles, folder, seed, WRONG[name], 0.0)
        with trial:
            trial.works(300)
            poison(trial, 20)
            kept = all_kept(settings, trial)
            shown = trial.workers[0].metric("freshet_clock_offset_seconds")
            assert abs(shown + WRONG[name]) < NEAR, f"the metric says {shown:g} s"
            warnings = [line for line in trial.workers[0].lines() if "clock differs" in line["message"]]
            assert len(warnings) == 1, warnings
            trial.note = f"{kept} nothing of it deleted; freshet_clock_offset_seconds {shown:,.0f}, one line in the log"


def jumping_clocks(folder: Path, bundles: Path, seed: int) -> None:
    """The clocks of both workers jump by seconds, hours and months, forth and back, while they work."""
    with tidy(folder) as settings:
        trial = clocked("clocks that jump", settings, bundles, folder, seed, 0.0, 0.0)
        with trial:
            for _ in range(8):
                for number in range(2):
                    jump = trial.draw.choice((5.0, HOUR, 2 * HOUR, 60 * DAY)) * trial.draw.choice((-1, 1))
                    wrong_by(file(folder, number), jump)
                trial.works(100)
                lag = max(trial.metric("freshet_lag_seconds", topic=topic) for topic in settings.sources)
                assert lag < 30, f"a lag of {lag:,.0f} s is said"
            poison(trial, 20)
            trial.note = f"{all_kept(settings, trial)} nothing of it deleted after 8 jumps of each clock"


def old_records(folder: Path, bundles: Path, seed: int) -> None:
    """Source records of months ago, and of no time at all, that are not acceptable: their dead letters stay."""
    with tidy(folder) as settings:
        clicks = settings.sources[0]
        old = (int((time.time() - 60 * DAY) * 1000), 1, int((time.time() + 1800) * 1000))
        change(settings, clicks, {"message.timestamp.type": "CreateTime", "retention.ms": "-1"})
        with producer(settings) as sender:
            for stamp in old:
                sender.send(clicks, key=b"x", value=b"not json", timestamp_ms=stamp)
        change(settings, clicks, {"message.timestamp.type": "LogAppendTime", "retention.ms": "-1"})
        trial = clocked("old records", settings, bundles, folder, seed, 0.0, 0.0)
        trial.bad += len(old)
        with trial:
            trial.works(200)
            kept = all_kept(settings, trial)
            with opened(settings) as box:
                appended = {letter.appended_ms for letter in box.read()}
            assert appended >= set(old[:2]), appended
            trial.note = f"{kept} those of records appended 60 days ago and in 1970 among them, and say so"


def clocked(name: str, settings: Settings, bundles: Path, folder: Path, seed: int, *offsets: float) -> Trial:
    """A trial whose workers have clocks of their own."""
    trial = Trial(40, name, seed, settings, bundles, folder, workers=len(offsets), rate=200.0, allowed=())
    for number, (worker, offset) in enumerate(zip(trial.workers, offsets, strict=True)):
        wrong_by(file(folder, number), offset)
        worker.command = ["tests.clocks", str(file(folder, number))]
    return trial


def file(folder: Path, number: int) -> Path:
    return folder / f"clock-{number}"


@contextmanager
def tidy(folder: Path) -> Iterator[Settings]:
    with Tidy(folder / "kafka") as kafka:
        yield with_topics(kafka.bootstrap, **SETTINGS)


@contextmanager
def producer(settings: Settings) -> Iterator[Any]:
    made = KafkaProducer(acks="all", **client_arguments(settings))
    try:
        yield made
        made.flush()
    finally:
        made.close()


def change(settings: Settings, topic: str, values: dict[str, str]) -> None:
    with admin(settings) as client:
        client.alter_configs([ConfigResource(ConfigResourceType.TOPIC, topic, values)])


def poison(trial: Trial, count: int) -> None:
    with producer(trial.settings) as sender:
        for number in range(count):
            sender.send(trial.settings.sources[0], key=b"x%d" % number, value=b"not json")
    trial.bad += count


def all_kept(settings: Settings, trial: Trial) -> str:
    """All letters are there and the broker has looked for what to delete since -> what it kept, in words.

    Every slate's `time` and `latency_ms` are by the broker's clock, whatever the worker's says.
    """
    until(lambda: count(settings, settings.dead_letters_topic) == trial.bad, 60, "all dead letters")
    swept(settings)
    log = KafkaLog(settings)
    try:
        outputs = (settings.recommendations_topic, settings.changelog_topic, settings.dead_letters_topic)
        starts = {tp: span.start for tp, span in log.spans(outputs).items() if span.start}
    finally:
        log.close()
    assert not starts, f"deleted up to {starts}"
    number = 0
    for record in read_all(settings, settings.recommendations_topic):
        slate = json.loads(record.value)
        if record.key == ANYONE_KEY and number == 0:
            continue  # may be sent before any acknowledgement has told the time
        number += 1
        assert abs(slate["time"] - record.timestamp) < 1000 * NEAR, slate
        assert -1 <= slate["latency_ms"] < 1000 * 60, slate
    return f"{number} slates and {trial.bad} dead letters,"


def count(settings: Settings, topic: str) -> int:
    return sum(1 for _ in read_all(settings, topic))


def swept(settings: Settings) -> None:
    """The broker has deleted what is too old, twice, since this was called."""
    for number in range(2):
        name = f"control-{number}"
        with admin(settings) as client:
            new = {"num_partitions": 1, "replication_factor": 1, "configs": {"retention.ms": "86400000"}}
            client.create_topics({name: new}, wait_for_metadata=True)
        with producer(settings) as sender:
            sender.send(name, value=b"old", timestamp_ms=int((time.time() - 10 * DAY) * 1000))
        until(partial(begins_at, settings, name, 1), 60, "the broker deletes the control")


def begins_at(settings: Settings, topic: str, offset: int) -> bool:
    log = KafkaLog(settings)
    try:
        return log.spans([topic])[topic, 0].start == offset
    finally:
        log.close()
