"""The dead letters: each unacceptable source record must be among them, and no acceptable one may be."""

from __future__ import annotations

from hashlib import blake2b, sha256

import jsonschema_rs

from deploy.clients.dead_letter_headers import HEADER, headers
from deploy.clients.log_reader import Log, Place, Record, Span
from deploy.clients.schema import schema
from deploy.verify.report import Report, Violation
from deploy.verify.source_index import (
    ABSENT,
    APPLIED,
    INVALID,
    LETTER,
    NONE,
    POISON,
    SourceIndex,
    SourcePartition,
    fingerprint,
    headers_mark,
)

INFERENCE = "inference"
"""The stage of poison: an acceptable event that the model fails on, proved by running it alone."""


class DeadLetters:
    """Checks the dead-letters topic against the source index."""

    def __init__(self, source_index: SourceIndex, topic: str, items_topic: str, report: Report) -> None:
        self._source_index = source_index
        self._topic = topic
        self._items = items_topic
        self._report = report
        self._validator = jsonschema_rs.validator_for(schema("dead-letter-headers"))
        self.gone = False
        self.hidden = False  # more letters lie behind an open transaction of another producer
        self.reached = [NONE] * len(
            source_index.sources
        )  # per topic: the last deleted offset that a letter accounts for

    def read(self, log: Log, spans: dict[Place, Span]) -> None:
        narrowed = any(source.narrowed for source in self._source_index.sources)
        self.gone = spans[self._topic, self._source_index.partition].start > 0 and not narrowed
        for record in log.records(self._topic, spans):
            self._take(record)

    def _take(self, record: Record) -> None:
        named = headers(record)
        if not self._validator.is_valid(named):
            first = next(iter(self._validator.iter_errors(named)))
            said = ".".join(map(str, first.instance_path)) or "headers"
            self._blame(f"its headers violate the published schema: {said}: {first.message}"[:400], record)
            return
        names = [name for name, _ in record.headers if name.startswith(HEADER)]
        if len(set(names)) < len(names):
            self._blame("a header that the worker sets is in it twice", record)
        topic, partition, at = (named[HEADER + field] for field in ("topic", "partition", "offset"))
        if topic == self._items:
            self._blame("it names an item's record: no worker writes such a letter", record)
            return
        behaviour = self._source_index.topic_index(topic)
        if (
            behaviour == NONE
            or partition != str(self._source_index.partition)
            or not (at.isdecimal() and at.isascii() and len(at) < 19)
        ):
            self._blame(
                f"its headers name {topic[:100]}/{partition[:20]}/{at[:20]}, not a place in this source partition",
                record,
            )
            return
        source = self._source_index.sources[behaviour]
        index = int(at) - source.start
        if int(at) < source.due[0]:
            self.reached[behaviour] = max(self.reached[behaviour], int(at))
        if index < 0:
            self._report.unverifiable += not source.narrowed
            return
        if int(at) >= source.end:
            self._blame("it names a source record that does not exist", record)
            return
        inference = named[HEADER + "stage"] == INFERENCE
        found = source.state[index]
        if found == ABSENT:
            self._blame("it names a source record that does not exist", record)
        elif found not in (INVALID, APPLIED) and inference:
            source.flags[index] |= POISON
            self._compare(source, index, record, named)
        elif found != INVALID:
            user = self._source_index.users[source.user[index]].name
            self._report.add(
                Violation(
                    "valid-dead-letter",
                    f"an acceptable record is a dead letter ({named[HEADER + 'reason'][:40]})",
                    user, -1, topic, int(partition), int(at),
                )
            )  # fmt: skip
        else:
            self._compare(source, index, record, named)
            source.flags[index] |= LETTER

    def _compare(self, source: SourcePartition, index: int, record: Record, named: dict[str, str]) -> None:
        """Check that a letter holds what was received: key, value and headers, cut if there is not enough room."""
        wrong = []
        digest = bytes(source.digest[16 * index : 16 * index + 16])
        large = source.large.get(index)
        if large is not None:
            kept, hashed = fingerprint(record.key, record.value) == large[0], large[1]
        else:
            hashed = sha256(record.value or b"").hexdigest()
            if source.state[index] == INVALID:
                kept = fingerprint(record.key, record.value) == digest
            else:
                key = self._source_index.users[source.user[index]].key
                kept = record.key == key and blake2b(record.value or b"", digest_size=16).digest() == digest
        if not kept:
            wrong.append("key or value")
        elif named[HEADER + "payload.sha256"] != hashed:
            wrong.append("the hash in its header")
        if (named[HEADER + "truncated"] == "true") != (large is not None):
            wrong.append(
                f"`truncated` is {named[HEADER + 'truncated']!r}, though the record {'does not fit' if large else 'fits'}"
            )
        if headers_mark([pair for pair in record.headers if not pair[0].startswith(HEADER)]) != source.headers(index):
            wrong.append("the received headers")
        if wrong:
            place = f"{source.topic}/{source.partition}/{source.start + index}"
            self._blame(f"it does not hold what was received at {place}; wrong: {', '.join(wrong)}", record)

    def _blame(self, message: str, record: Record) -> None:
        self._report.add(
            Violation("dead-letter", message, topic=self._topic, partition=record.partition, offset=record.offset)
        )
