"""The dead letters: every unacceptable source record is among them, and no acceptable one."""

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
    CULPRIT,
    INVALID,
    LETTER,
    NONE,
    Ledger,
    Shelf,
    fingerprint,
    headers_mark,
)

INFERENCE = "inference"
"""Stage of an acceptable event that the model failed on, proved by running it alone."""


class Letters:
    """Reads the dead-letters topic against the ledger."""

    def __init__(self, ledger: Ledger, topic: str, items_topic: str, report: Report) -> None:
        self._ledger = ledger
        self._topic = topic
        self._items = items_topic
        self._report = report
        self._validator = jsonschema_rs.validator_for(schema("dead-letter-headers"))
        self.gone = False
        self.hidden = False  # there are more, behind an open transaction of somebody else
        self.reached = [NONE] * len(ledger.shelves)  # by topic: the last deleted offset that a letter accounts for

    def read(self, log: Log, spans: dict[Place, Span]) -> None:
        narrowed = any(shelf.narrowed for shelf in self._ledger.shelves)
        self.gone = spans[self._topic, self._ledger.partition].start > 0 and not narrowed
        for record in log.records(self._topic, spans):
            self._take(record)

    def _take(self, record: Record) -> None:
        named = headers(record)
        if not self._validator.is_valid(named):
            first = next(iter(self._validator.iter_errors(named)))
            said = ".".join(map(str, first.instance_path)) or "headers"
            self._blame(f"its headers are against the published schema: {said}: {first.message}"[:400], record)
            return
        names = [name for name, _ in record.headers if name.startswith(HEADER)]
        if len(set(names)) < len(names):
            self._blame("a header of the worker's stands in it twice", record)
        topic, source, at = (named[HEADER + field] for field in ("topic", "partition", "offset"))
        if topic == self._items:
            self._blame("of an item: no worker writes one", record)
            return
        behaviour = self._ledger.topic_index(topic)
        if (
            behaviour == NONE
            or source != str(self._ledger.partition)
            or not (at.isdecimal() and at.isascii() and len(at) < 19)
        ):
            self._blame(f"says it came from {topic[:100]}/{source[:20]}/{at[:20]}", record)
            return
        shelf = self._ledger.shelves[behaviour]
        index = int(at) - shelf.start
        if int(at) < shelf.due[0]:
            self.reached[behaviour] = max(self.reached[behaviour], int(at))
        if index < 0:
            self._report.unverifiable += not shelf.narrowed
            return
        if int(at) >= shelf.end:
            self._blame("of a source record that does not exist", record)
            return
        inference = named[HEADER + "stage"] == INFERENCE
        found = shelf.state[index]
        if found == ABSENT:
            self._blame("of a source record that does not exist", record)
        elif found not in (INVALID, APPLIED) and inference:
            shelf.flags[index] |= CULPRIT
            self._compare(shelf, index, record, named)
        elif found != INVALID:
            user = self._ledger.users[shelf.user[index]].name
            self._report.add(
                Violation(
                    "valid-dead-letter",
                    f"an acceptable record is a dead letter ({named[HEADER + 'reason'][:40]})",
                    user, -1, topic, int(source), int(at),
                )
            )  # fmt: skip
        else:
            self._compare(shelf, index, record, named)
            shelf.flags[index] |= LETTER

    def _compare(self, shelf: Shelf, index: int, record: Record, named: dict[str, str]) -> None:
        """A letter holds what was received: key, value, headers, cut where there is no room."""
        wrong = []
        digest = bytes(shelf.digest[16 * index : 16 * index + 16])
        large = shelf.large.get(index)
        if large is not None:
            kept, hashed = fingerprint(record.key, record.value) == large[0], large[1]
        else:
            hashed = sha256(record.value or b"").hexdigest()
            if shelf.state[index] == INVALID:
                kept = fingerprint(record.key, record.value) == digest
            else:
                key = self._ledger.users[shelf.user[index]].key
                kept = record.key == key and blake2b(record.value or b"", digest_size=16).digest() == digest
        if not kept:
            wrong.append("key or value")
        elif named[HEADER + "payload.sha256"] != hashed:
            wrong.append("the hash in its header")
        if (named[HEADER + "truncated"] == "true") != (large is not None):
            wrong.append(
                f"`truncated` {named[HEADER + 'truncated']!r}, though it {'does not fit' if large else 'fits'},"
            )
        if headers_mark([pair for pair in record.headers if not pair[0].startswith(HEADER)]) != shelf.headers(index):
            wrong.append("the received headers")
        if wrong:
            place = f"{shelf.topic}/{shelf.partition}/{shelf.start + index}"
            self._blame(f"not what was received: {', '.join(wrong)} is not that of {place}", record)

    def _blame(self, message: str, record: Record) -> None:
        self._report.add(
            Violation("dead-letter", message, topic=self._topic, partition=record.partition, offset=record.offset)
        )
