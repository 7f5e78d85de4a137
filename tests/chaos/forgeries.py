"""Fault 46: somebody who is no worker writes to the changelog and the slates of a deployment at work."""

from __future__ import annotations

import json
import random
import time
from functools import partial
from pathlib import Path
from typing import Any

from kafka import KafkaProducer

from deploy.clients.arguments import client_arguments
from deploy.clients.log_reader import KafkaLog, Span
from deploy.clients.murmur2 import murmur2
from stream.core.fencing_log import CLAIM_KEY, WRITER, Claim, decode, encode, stamp
from stream.core.keys import ANYONE, ANYONE_KEY
from stream.core.state import ZERO_CHAIN
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
        until(partial(forger.all_named, trial), 60, "every forged claim is named in a log")
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
        self._producer = KafkaProducer(acks="all", **client_arguments(trial.settings))
        self._log = KafkaLog(trial.settings)
        self._first = _first_states(trial.settings)
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
        partition = self._partition()
        self._settled(partition, self._write(partition, CLAIM_KEY, value, header))
        self.claims += 1
        self._trial.foreign["forged-claim"] += 1

    def near(self) -> None:
        """One that cannot be told from a worker's."""
        partition = self._partition()
        epoch = self._epoch(partition) + self._draw.randrange(1, 100)
        self._write(partition, CLAIM_KEY, encode(Claim(epoch, STRANGER, _now())), epoch)

    def state(self) -> None:
        """A user's first state, under the epoch in force."""
        record = self._user()
        partition = record.partition
        self._settled(partition, self._write(partition, record.key, record.value, self._epoch(partition)))
        self._trial.foreign["stale"] += 1

    def erased(self) -> None:
        record = self._user()
        partition = record.partition
        self._settled(partition, self._write(partition, record.key, None, self._epoch(partition)))
        self._trial.foreign["state"] += 1

    def slate(self) -> None:
        """A tombstone on a user's slate."""
        record = self._user()
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
        key = ANYONE_KEY
        home = murmur2(key) % self._settings.partitions
        headers = self._draw.choice(([], [(WRITER, b"4711")]))
        topic, value = self._settings.recommendations_topic, json.dumps(slate).encode()
        self._producer.send(topic, key=key, value=value, headers=headers, partition=home).get(30)
        self._trial.foreign["slate"] += 1

    def all_named(self, trial: Trial) -> bool:
        """Each forged claim is in a log. One that is read again after a restart is told again."""
        lines = [line for worker in trial.workers for line in worker.lines() if line["message"].startswith(LEFT_OUT)]
        return len({(line["partition"], line["offset"]) for line in lines}) >= self.claims

    def close(self) -> None:
        self._producer.close()
        self._log.close()

    def _write(self, partition: int, key: bytes | None, value: bytes | None, epoch: int) -> int:
        topic = self._settings.changelog_topic
        sent = self._producer.send(topic, key=key, value=value, headers=stamp(epoch), partition=partition)
        return int(sent.get(30).offset)

    def _settled(self, partition: int, offset: int) -> None:
        """The owner has noticed what lies at `offset`, and claimed the partition again: its epoch is known to stand still."""
        until(lambda: self._last_claim(partition).offset > offset, 60, "the owner claims its partition again")

    def _partition(self) -> int:
        return self._draw.randrange(self._settings.partitions)

    def _user(self) -> Any:
        """The first state of some user who had several when the forger came."""
        return self._draw.choice(self._first)

    def _last_claim(self, partition: int) -> Any:
        """The last one that a worker wrote; looked for among the last records first."""
        tp = self._settings.changelog_topic, partition
        end = self._log.spans([tp[0]])[tp].end
        for back in (500, 5000, end):
            records = self._log.records(tp[0], {tp: Span(max(0, end - back), end)})
            claims = [one for one in records if one.key == CLAIM_KEY and STRANGER not in (one.value or b"").decode()]
            claims = [one for one in claims if b"evil" not in (one.value or b"")]
            if claims:
                return claims[-1]
        raise AssertionError(f"nobody has claimed partition {partition}")

    def _epoch(self, partition: int) -> int:
        """The one in force."""
        return decode(self._last_claim(partition).value).epoch


def _first_states(settings: Settings) -> list[Any]:
    """The first state of every user who has three or more."""
    found: dict[bytes, list[Any]] = {}
    for record in read_all(settings, settings.changelog_topic):
        if record.key != CLAIM_KEY:
            found.setdefault(record.key, []).append(record)
    return [records[0] for _, records in sorted(found.items()) if len(records) > 2]


def _now() -> int:
    return int(time.time() * 1000)
