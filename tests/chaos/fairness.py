"""Fault 42: one user sends far more than anybody can read of it; nobody else waits for that."""

from __future__ import annotations

import json
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from stream.settings import Settings
from tests.chaos.trial import Trial
from tests.worker_process import read_all, until

WORDS = 12  # of each comment of the flood
CALM = 4.0  # seconds of events before the flood
LIMIT = 50  # the setting held_events


class Event(NamedTuple):
    """One of the others'. Epoch ms of the broker's clock, and ms from its append to the append of its slate."""

    appended: int
    latency: int


class Flood(NamedTuple):
    """What one user sent: the append times of its first event and of the last slate that shows one of them, epoch ms."""

    first: int
    over: int


def comments(settings: Settings, bundles: Path, folder: Path, seed: int, *, count: int = 400) -> None:
    """One user's distinct comments, eight times what may wait: the others' events beside it."""
    with watched("one user's comments", settings, bundles, folder, seed) as trial:
        calm(trial)
        flooder = f"flood{seed}"
        for number in range(count):
            put(trial, flooder, "comment", text=text(trial, number))
        measure(trial, flooder, f"{count} comments of one user")


def clicks(settings: Settings, bundles: Path, folder: Path, seed: int, *, count: int = 3000) -> None:
    """One user's comments, and thousands of clicks behind them: more than may wait in all. Its own partition may stop for the
    time that the comments take, and memory stays bounded."""
    with watched("one user's clicks behind comments", settings, bundles, folder, seed) as trial:
        calm(trial)
        flooder = f"flood{seed}"
        for number in range(2 * LIMIT):
            put(trial, flooder, "comment", text=text(trial, number))
        for _ in range(count):
            put(trial, flooder, "click")
        measure(trial, flooder, f"{2 * LIMIT} comments and {count} clicks of one user", apart=True)


def watched(name: str, settings: Settings, bundles: Path, folder: Path, seed: int) -> Trial:
    """One worker; the others send clicks and ratings, 100 a second."""
    trial = Trial(42, name, seed, settings, bundles, folder, workers=1, rate=100.0, allowed=(), held_events=LIMIT)
    trial.traffic.events.weights = (80, 20, 0)
    return trial


def calm(trial: Trial) -> None:
    trial.works(200)
    time.sleep(CALM)  # the calm that the flood is compared with


def text(trial: Trial, number: int) -> str:
    return f"{number} " + " ".join(trial.draw.choice(("good", "dull", "funny", "long")) for _ in range(WORDS))


def put(trial: Trial, user: str, kind: str, **fields: Any) -> None:
    trial.traffic.put(*trial.traffic.events.one(user=user, kind=kind, **fields))


def measure(trial: Trial, flooder: str, what: str, *, apart: bool = False) -> None:
    """The others' events during the flood, beside those of the calm before it. apart: without the flooder's partition."""
    most = 0.0

    def over() -> bool:
        nonlocal most
        held = trial.metric("freshet_held_events")
        most = max(most, held)
        return most > 0 and held == 0 == trial.metric("freshet_lag_records", topic=trial.settings.sources[2])

    trial.traffic.events.producer.flush()
    until(over, 120, "the flood is over")
    until(lambda: trial.metric("freshet_lag_records") < trial.traffic.rate, 30, "nobody is behind")
    flood, events = read(trial.settings, flooder, apart)
    before = [event.latency for event in events if flood.first - CALM * 1000 <= event.appended < flood.first]
    beside = [event.latency for event in events if flood.first <= event.appended < flood.over]
    drain = flood.over - flood.first
    trial.note = (
        f"{what}, `held_events` {LIMIT}: over after {drain / 1000:.1f} s, up to {most:.0f} held; append to slate of "
        f"{len(beside)} events of others meanwhile: p50 {quantile(beside, 50)} ms, p99 {quantile(beside, 99)} ms; "
        f"of {len(before)} before: p50 {quantile(before, 50)} ms, p99 {quantile(before, 99)} ms"
    )
    print(trial.note)
    assert len(before) > 50, trial.note
    assert len(beside) > 10, trial.note
    assert quantile(beside, 99) < drain / 4, f"they wait for the flood: {trial.note}"
    bound = 2 * LIMIT + 4 * trial.settings.micro_batch
    assert most <= bound, f"{most:.0f} events were held, at most {bound} may be"


def quantile(found: Sequence[int], percent: int) -> int:
    return int(np.percentile(found, percent)) if found else -1


def read(settings: Settings, flooder: str, apart: bool) -> tuple[Flood, list[Event]]:
    """The flood, and what the others have sent and seen. apart: those of the flooder's partition left out."""
    users = {
        (topic, record.partition, record.offset): (record.key.decode(), record.timestamp)
        for topic in settings.sources
        for record in read_all(settings, topic)
    }
    shown: dict[tuple[str, int, int], int] = {}
    for record in read_all(settings, settings.recommendations_topic):
        for topic, partition, offset in json.loads(record.value)["events"]:
            shown.setdefault((topic, partition, offset), record.timestamp)
    flood = [position for position, (user, _) in users.items() if user == flooder]
    home = flood[0][1]
    found = [
        Event(when, shown[position] - when)
        for position, (user, when) in users.items()
        if user != flooder and position in shown and not (apart and position[1] == home)
    ]
    return Flood(min(users[position][1] for position in flood), max(shown[position] for position in flood)), found
