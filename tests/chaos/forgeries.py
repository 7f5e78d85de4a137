"""Fault 46: somebody who is no worker writes to the changelog and the slates of a deployment at work."""

from __future__ import annotations

import json
import random
import time
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

from kafka import KafkaProducer

from deploy.verify.judge import murmur2
from stream.claims import CLAIM_KEY, WRITER, Claim, encode, epoch_of, stamp
from stream.interest import ZERO_CHAIN
from stream.popularity import ANYONE
from stream.settings import Settings
from tests.chaos.trial import Trial
from tests.worker_process import read_all, until

STRANGER = "e" * 32  # in the form of a worker's name
LEFT_OUT = "forged claim in the changelog, left out"


def forgeries(
    settings: Settings, bundles: Path, folder: Path, seed: int, *, rounds: int, workers: int, near: bool, rate: float
) -> None:
    """Claims that no worker writes, a user's older state and a tombstone under the owner's epoch, a tombstone among the slates, a
    slate for anyone unknown; near: also a claim just above the one in force. Workers go on, or end with 75 for that one and come
    back; each forgery is in a log or among what `freshet verify` names, and nothing else is."""
    draw = random.Random(seed)
    with Trial(46, "forgeries", seed, settings, bundles, folder, workers=workers, rate=rate) as trial:
        trial.works(300)
        forger = Forger(trial, draw)
        kinds = [Forger.claim, Forger.state, Forger.erased, Forger.slate, Forger.anyone] * rounds
        draw.shuffle(kinds)
        for forge in kinds:
            forge(forger)
            trial.pause(0.05, 0.4)
        until(partial(forger.told, trial), 60, "every forged claim is named in a log")
        if near:
            before = len(trial.exits)
            forger.near()
            until(lambda: 75 in [code for _, code in trial.exits[before:]], 60, "the owner ends with 75")
        trial.works(100)
        forger.close()
        trial.note = (
            f"{len(kinds)} forged records: {forger.claims} claims left out and named in the log, older states and tombstones "
            f"written over by the owner{', a near claim: its owner 75, claimed back' if near else ''}; verify names "
            + ", ".join(f"{kind} {count}" for kind, count in sorted(trial.foreign.items()))
        )


class Forger:
    """Writes one forged record a call, and says to the trial what `freshet verify` must name."""

    def __init__(self, trial: Trial, draw: random.Random) -> None:
        self._trial = trial
        self._settings = trial.settings
        self._draw = draw
        self._producer = KafkaProducer(acks="all", **trial.settings.kafka_python())
        self.claims = 0

    def claim(self) -> None:
        """An epoch that no takeover comes to, another name, another epoch in the header."""
        epoch, worker, header = self._draw.choice(
            [
                (10**17, STRANGER, 10**17),
                (2**63 - 1, STRANGER, 2**63 - 1),
                (10**30, STRANGER, 1),
                (9, "evil", 9),
                (9, STRANGER, 8),
            ]
        )
        value = json.dumps({"epoch": epoch, "worker": worker, "time": _now(), "topics": {}, "partitions": 0}).encode()
        self._write(self._partition(), CLAIM_KEY, value, header)
        self.claims += 1
        self._trial.foreign["forged-claim"] += 1

    def near(self) -> None:
        """One that cannot be told from a worker's."""
        partition = self._partition()
        epoch = self._epoch(partition) + self._draw.randrange(1, 100)
        self._write(partition, CLAIM_KEY, encode(Claim(epoch, STRANGER, _now())), epoch)

    def state(self) -> None:
        """A user's first state, under the epoch in force."""
        record, _ = self._user()
        self._write(record.partition, record.key, record.value, self._epoch(record.partition))
        self._trial.foreign["stale"] += 1

    def erased(self) -> None:
        record, _ = self._user()
        self._write(record.partition, record.key, None, self._epoch(record.partition))
        self._trial.foreign["state"] += 1

    def slate(self) -> None:
        """A tombstone on a user's slate."""
        record, _ = self._user()
        topic = self._settings.recommendations_topic
        self._producer.send(topic, key=record.key, value=None, partition=record.partition).get(30)
        self._trial.foreign["slate"] += 1

    def anyone(self) -> None:
        """A slate for anyone unknown as a worker writes it, but for the epoch."""
        slate = {
            "user": ANYONE, "slate": f"popular-{_now():x}", "seq": 0, "chain": ZERO_CHAIN.hex(),
            "items": [{"item": "item-7", "score": 99.0}], "time": _now(), "latency_ms": -1, "events": [], "applied": {},
            "catalogue": 49, "bundle": "b", "strategy": "popularity", "replay": False,
        }  # fmt: skip
        key = ANYONE.encode()
        home = murmur2(key) % self._settings.partitions
        headers = self._draw.choice(([], [(WRITER, b"4711")]))
        topic, value = self._settings.recommendations_topic, json.dumps(slate).encode()
        self._producer.send(topic, key=key, value=value, headers=headers, partition=home).get(30)
        self._trial.foreign["slate"] += 1

    def told(self, trial: Trial) -> bool:
        """Each forged claim is in a log. One that is read again after a restart is told again."""
        lines = [line for worker in trial.workers for line in worker.lines() if line["message"].startswith(LEFT_OUT)]
        return len({(line["partition"], line["offset"]) for line in lines}) >= self.claims

    def close(self) -> None:
        self._producer.close()

    def _write(self, partition: int, key: bytes | None, value: bytes | None, epoch: int) -> None:
        topic = self._settings.changelog_topic
        self._producer.send(topic, key=key, value=value, headers=stamp(epoch), partition=partition).get(30)

    def _partition(self) -> int:
        return self._draw.randrange(self._settings.partitions)

    def _states(self) -> Iterator[Any]:
        return (
            record for record in read_all(self._settings, self._settings.changelog_topic) if record.key != CLAIM_KEY
        )

    def _user(self) -> tuple[Any, int]:
        """The first state of some user who has three at least, and how many he has."""
        first: dict[bytes, Any] = {}
        count: dict[bytes, int] = {}
        for record in self._states():
            first.setdefault(record.key, record)
            count[record.key] = count.get(record.key, 0) + 1
        key = self._draw.choice(sorted(key for key, many in count.items() if many > 2))
        return first[key], count[key]

    def _epoch(self, partition: int) -> int:
        """Of the last worker's record there."""
        found = [
            epoch_of(record.headers)
            for record in self._states()
            if record.partition == partition and record.value is not None
        ]
        return found[-1]


def _now() -> int:
    return int(time.time() * 1000)
