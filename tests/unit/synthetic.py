"""Logs made without Kafka for the tests of `freshet verify`: source records, and a small worker that does it right.

The worker uses the real fold and the real record codec, but none of the hot path's other code. Tests then break its
output in one place and see that the check finds exactly that.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from hashlib import sha256
from typing import Any, NamedTuple

import numpy as np

from deploy.clients.log_reader import Span, TopicPartition
from deploy.clients.murmur2 import murmur2
from deploy.verify.fencing import CLAIM
from deploy.verify.validator import Accepted, ForgetRequest, Validator
from stream.core import state as state_module
from stream.core.errors import TopologyError
from stream.core.forgetting import control
from stream.core.keys import FORMS, key_of
from stream.core.messages import NAN, SourceEvent
from stream.core.origin import mark
from stream.core.state import Interest
from stream.settings import Settings, load

PARTITIONS = 2
HIDDEN = 16
MODEL = bytes(range(16))
NOW = 1_700_000_000_000
Headers = tuple[tuple[str, bytes], ...]


class Row(NamedTuple):
    """One record as a consumer reads it."""

    partition: int
    offset: int
    timestamp: int
    key: bytes | None
    value: bytes | None
    headers: tuple[tuple[str, bytes], ...] = ()


class Lists:
    """A Log (deploy.clients.log_reader) that is lists in memory. `first`: log start offsets other than 0; `open`:
    first offset of an open
    transaction."""

    def __init__(self, topics: Sequence[str], partitions: int = PARTITIONS) -> None:
        self.topics: dict[str, list[list[Row]]] = {topic: [[] for _ in range(partitions)] for topic in topics}
        self.offsets: dict[TopicPartition, int] = {}
        self.first: dict[TopicPartition, int] = {}
        self.open: dict[TopicPartition, int] = {}

    def append(
        self,
        topic: str,
        partition: int,
        key: bytes | None,
        value: bytes | None,
        headers: tuple[tuple[str, bytes], ...] = (),
        timestamp: int = NOW,
    ) -> int:
        rows = self.topics[topic][partition]
        offset = rows[-1].offset + 1 if rows else self.first.get((topic, partition), 0)
        rows.append(Row(partition, offset, timestamp, key, value, headers))
        return offset

    def renumber(self, topic: str) -> None:
        """Offsets without holes: as if what was removed had never been written."""
        for rows in self.topics[topic]:
            rows[:] = [row._replace(offset=offset) for offset, row in enumerate(rows)]

    def all(self, topic: str) -> list[Row]:
        return [row for rows in self.topics[topic] for row in rows]

    # the Log protocol

    def spans(self, topics: Sequence[str]) -> dict[TopicPartition, Span]:
        found = {}
        for topic in topics:
            if topic not in self.topics:
                raise TopologyError(f"topic {topic} is missing")
            for partition, rows in enumerate(self.topics[topic]):
                start = self.first.get((topic, partition), 0)
                end = rows[-1].offset + 1 if rows else start
                found[topic, partition] = Span(start, min(end, self.open.get((topic, partition), end)))
        return found

    def tops(self, topics: Sequence[str]) -> dict[TopicPartition, int]:
        if missing := set(topics) - set(self.topics):
            raise TopologyError(f"topic {min(missing)} is missing")
        return {
            (topic, partition): rows[-1].offset + 1 if rows else self.first.get((topic, partition), 0)
            for topic in topics
            for partition, rows in enumerate(self.topics[topic])
        }

    def committed(self) -> dict[TopicPartition, int]:
        return dict(self.offsets)

    def at(self, times: dict[TopicPartition, int]) -> dict[TopicPartition, int]:
        ends = {tp: span.end for tp, span in self.spans(sorted({topic for topic, _ in times})).items()}
        return {
            (topic, partition): next(
                (row.offset for row in self.topics[topic][partition] if row.timestamp >= when), ends[topic, partition]
            )
            for (topic, partition), when in times.items()
        }

    def records(self, topic: str, spans: dict[TopicPartition, Span]) -> Iterator[Row]:
        for partition, rows in enumerate(self.topics[topic]):
            span = spans.get((topic, partition), Span(0, 0))
            yield from (row for row in rows if span.start <= row.offset < span.end)


def settings() -> Settings:
    return load(app_id="t")


def partition_of(user: str) -> int:
    return murmur2(user.encode()) % PARTITIONS


class World:
    """Sources, a right worker, and its output, all in `log`."""

    def __init__(self, given: Settings | None = None) -> None:
        self.settings = given or settings()
        names = self.settings
        self.log = Lists([*names.sources, names.changelog_topic, names.recommendations_topic, names.dead_letters_topic])
        self.states: dict[bytes, Interest] = {}
        self._validator = Validator(PARTITIONS, names.rating_scale, envelope=names.envelope, key=names.key)
        self._read: dict[TopicPartition, int] = {}
        self._slates = 0
        self._after: dict[bytes, int] = {}  # user -> events of the last batch up to its last control record
        self._epochs: dict[int, int] = {}
        self.now = NOW

    # producers

    def send(
        self, behaviour: int, user: str, item: str = "i1", headers: Headers = (), **fields: Any
    ) -> tuple[int, int, int]:
        """A good event -> (behaviour, partition, offset)."""
        body = {"user": user, "item": item, "time": NOW} | ({}, {"value": 4.0}, {"text": "fine"})[behaviour] | fields
        key = key_of(user, self.settings.key)
        return self.send_raw(behaviour, key, json.dumps(body).encode(), murmur2(key) % PARTITIONS, headers)

    def send_raw(
        self, behaviour: int, key: bytes | None, value: bytes | None, partition: int = 0, headers: Headers = ()
    ) -> tuple[int, int, int]:
        topic = self.settings.sources[behaviour]
        return behaviour, partition, self.log.append(topic, partition, key, value, headers, self.now)

    def forget(self, user: str) -> list[tuple[int, int, int]]:
        """Write the control records that `freshet forget` writes -> (behaviour, partition, offset) of each."""
        key = key_of(user, self.settings.key)
        headers = tuple(control("test"))
        return [self.send_raw(behaviour, key, None, murmur2(key) % PARTITIONS, headers) for behaviour in range(3)]

    # the worker

    def work(self, limit: int = 10**9, again: int = 0) -> None:
        """One micro-batch: up to `limit` records a topic-partition, `again` already finished ones among them."""
        groups: dict[bytes, list[SourceEvent]] = {}
        for behaviour, topic in enumerate(self.settings.sources):
            for partition, rows in enumerate(self.log.topics[topic]):
                start = max(0, self._read.get((topic, partition), 0) - again)
                taken = rows[start : start + limit]
                self._read[topic, partition] = max(start + len(taken), self._read.get((topic, partition), 0))
                for row in taken:
                    verdict = self._validator.validate(
                        behaviour, partition, row.timestamp, row.key, row.value, headers=row.headers
                    )
                    if isinstance(verdict, ForgetRequest):
                        groups.setdefault(verdict.user, []).append(control_event(behaviour, row))
                    elif isinstance(verdict, Accepted):
                        groups.setdefault(verdict.user, []).append(self.event(behaviour, row, verdict))
                    else:
                        self.letter(topic, row, verdict)
        for user, events in groups.items():
            self._fold(user, events)
        self.commit()

    def event(self, behaviour: int, row: Row, verdict: Accepted) -> SourceEvent:
        """What the worker makes of a good record."""
        return event(behaviour, row, verdict)

    def commit(self) -> None:
        self.log.offsets.update(self._read)

    def _fold(self, user: bytes, events: list[SourceEvent]) -> None:
        state = self.states.setdefault(user, state_module.new(MODEL, HIDDEN))
        state.folded = []
        redelivered = passed = emptied = False
        self._after[user] = 0
        for one in events:
            if state_module.is_redelivered(state, one):
                redelivered = True
            elif one.forget:
                state_module.erase(state, one)
                emptied = True
                self._after[user] = len(state.folded)
            elif state_module.is_duplicate(state, one):
                state_module.pass_over(state, one)
                passed = True
            else:
                state_module.fold(state, one, self.settings.sources[one.behaviour])
        if state.folded or passed or emptied:
            state.h = np.full(HIDDEN, state.seq % 7, np.float16)
            self.write(user, events[0].partition, state_module.encode(state))
        if not state.seq and any(one.forget for one in events):
            self.log.append(self.settings.recommendations_topic, events[0].partition, user, None, timestamp=self.now)
            return
        self.slate(user, events[0].partition, redelivered or not state.folded)

    def sweep(self) -> int:
        """Delete the empty states whose events are all committed, with tombstones -> their number."""
        deleted = 0
        for user, state in list(self.states.items()):
            partition = partition_of(user.decode())
            places = [(topic, partition) for topic in self.settings.sources]
            ends = [self.log.offsets.get(place, 0) for place in places]
            if not state.seq and all(last < end for last, end in zip(state.applied, ends, strict=True)):
                if not self._epochs.get(partition):
                    self.claim(partition, 1)
                del self.states[user]
                self.write(user, partition, None)
                deleted += 1
        return deleted

    def claim(self, partition: int, epoch: int) -> int:
        """Another writer takes the changelog partition over -> the epoch."""
        header = ("writer", str(epoch).encode())
        value = json.dumps(
            {"epoch": epoch, "worker": "0" * 32, "time": NOW, "topics": {}, "key": self.settings.key}
        ).encode()
        self.log.append(self.settings.changelog_topic, partition, CLAIM, value, (header,), self.now)
        self._epochs[partition] = epoch
        return epoch

    def write(self, user: bytes, partition: int, record: bytes | None, epoch: int | None = None) -> None:
        """A state record, by the partition's writer or by that of another epoch."""
        epoch = self._epochs.get(partition, 0) if epoch is None else epoch
        headers = (("writer", str(epoch).encode()),) if epoch else ()
        self.log.append(self.settings.changelog_topic, partition, user, record, headers, self.now)

    def anyone(self, epoch: int = 0, partition: int | None = None, **other: Any) -> None:
        """The slate for anyone unknown; epoch 0: by a version that named none."""
        body = {
            "user": "*", "slate": "popular-18bcfe56800", "seq": 0, "chain": "00" * 16, "items": [{"item": "a", "score": 9.0}],
            "time": NOW, "latency_ms": -1, "events": [], "applied": {}, "catalogue": 3, "bundle": "b",
            "strategy": "popularity", "replay": False,
        } | other  # fmt: skip
        home = partition_of("*") if partition is None else partition
        headers = (("writer", str(epoch).encode()),) if epoch else ()
        value = json.dumps(body).encode()
        self.log.append(self.settings.recommendations_topic, home, b"*", value, headers, self.now)

    def slate(self, user: bytes, partition: int, replay: bool, **other: Any) -> None:
        state = self.states[user]
        sources = self.settings.sources
        self._slates += 1
        body = {
            "user": FORMS[self.settings.key].read(user),
            "slate": f"s{self._slates}",
            "seq": state.seq,
            "chain": state.chain.hex(),
            "items": [{"item": "a", "score": 1.5}, {"item": "b", "score": 1.0}],
            "time": NOW,
            "latency_ms": 1,
            "events": [
                [sources[behaviour], partition, offset]
                for behaviour, offset in state.folded[self._after.get(user, 0) :]
            ],
            "applied": {f"{t}/{partition}": o for t, o in zip(sources, state.applied, strict=True) if o >= 0},
            "catalogue": -1,
            "bundle": "b",
            "strategy": "interest",
            "replay": replay,
        } | other
        self.log.append(
            self.settings.recommendations_topic, partition, user, json.dumps(body).encode(), timestamp=self.now
        )

    def letter(self, topic: str, row: Row, why: str, stage: str = "decode") -> None:
        errors = {
            "topic": topic, "partition": row.partition, "offset": row.offset, "stage": stage, "reason": "out_of_range",
            "field": "", "exception": "RecordError", "message": why, "attempt": 1, "app.version": "0",
            "model.sha256": "", "host": "h", "failed.at": NOW, "payload.sha256": sha256(row.value or b"").hexdigest(),
            "truncated": "false",
        }  # fmt: skip
        headers = tuple((f"__rec.errors.{name}", str(text).encode()) for name, text in errors.items()) + row.headers
        self.log.append(self.settings.dead_letters_topic, row.partition, row.key, row.value, headers, row.timestamp)


def control_event(behaviour: int, row: Row) -> SourceEvent:
    return SourceEvent(
        behaviour, row.partition, row.offset, row.timestamp, row.key or b"", "", row.timestamp, NAN, "", "", "", b"",
        forget=True,
    )  # fmt: skip


def event(behaviour: int, row: Row, accepted: Accepted) -> SourceEvent:
    return SourceEvent(
        behaviour, row.partition, row.offset, row.timestamp, accepted.user, accepted.item, accepted.time, accepted.value,
        accepted.scene, "", accepted.id or dict(row.headers).get("original-record", b"").decode(),
        row.value or b"",
        mark=mark(accepted.id),
        action=accepted.action,
    )  # fmt: skip
