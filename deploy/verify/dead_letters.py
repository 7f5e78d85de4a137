"""The dead letters: each unacceptable source record must be among them, and no acceptable one may be."""

from __future__ import annotations

from hashlib import blake2b, sha256

import jsonschema_rs

from deploy.clients.dead_letter_headers import HEADER, headers
from deploy.clients.log_reader import Log, Record, Span, TopicPartition
from deploy.clients.schema import schema
from deploy.verify.fingerprints import fingerprint, headers_mark
from deploy.verify.report import Report, Violation
from deploy.verify.source_index import SourceIndex
from deploy.verify.source_partition import ABSENT, APPLIED, CONTROL, DEAD_LETTER, INVALID, NONE, POISON, SourcePartition

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
        self.hidden = False  # more dead letters lie behind an open transaction of another producer
        # per topic: the last deleted offset that a dead letter accounts for
        self.reached = [NONE] * len(source_index.sources)

    def read(self, log: Log, spans: dict[TopicPartition, Span]) -> None:
        narrowed = any(source.narrowed for source in self._source_index.sources)
        self.gone = spans[self._topic, self._source_index.partition].start > 0 and not narrowed
        for record in log.records(self._topic, spans):
            self._take(record)

    def _take(self, record: Record) -> None:
        named = headers(record)
        if not self._validator.is_valid(named):
            first = next(iter(self._validator.iter_errors(named)))
            field = ".".join(map(str, first.instance_path)) or "headers"
            self._blame(f"its headers violate the published schema: {field}: {first.message}"[:400], record)
            return
        names = [name for name, _ in record.headers if name.startswith(HEADER)]
        if len(set(names)) < len(names):
            self._blame("a header that the worker sets is in it twice", record)
        found = self._named_record(record, named)
        if found is None:
            return
        behaviour, offset = found
        source = self._source_index.sources[behaviour]
        if offset < source.due[0]:
            self.reached[behaviour] = max(self.reached[behaviour], offset)
        if offset < source.start:
            self._report.unverifiable += not source.narrowed
        elif offset >= source.end or source.state[offset - source.start] == ABSENT:
            self._blame("it names a source record that does not exist", record)
        else:
            self._check_outcome(source, offset - source.start, record, named)

    def _named_record(self, record: Record, named: dict[str, str]) -> tuple[int, int] | None:
        """Return (topic index, offset) of the source record that the headers name. If they name none, report it."""
        topic, partition, offset = (named[HEADER + field] for field in ("topic", "partition", "offset"))
        if topic == self._items:
            self._blame("it names an item's record: no worker writes such a letter", record)
            return None
        behaviour = self._source_index.topic_index(topic)
        if (
            behaviour == NONE
            or partition != str(self._source_index.partition)
            or not (offset.isdecimal() and offset.isascii() and len(offset) < 19)
        ):
            self._blame(
                f"its headers name {topic[:100]}/{partition[:20]}/{offset[:20]}, not a place in this source partition",
                record,
            )
            return None
        return behaviour, int(offset)

    def _check_outcome(self, source: SourcePartition, index: int, record: Record, named: dict[str, str]) -> None:
        """Check that the source record may have a dead letter: it is not acceptable, or the model failed on it."""
        state = source.state[index]
        if (
            state not in (INVALID, APPLIED)
            and not source.flags[index] & CONTROL
            and named[HEADER + "stage"] == INFERENCE
        ):
            source.flags[index] |= POISON
            self._compare(source, index, record, named)
        elif state != INVALID:
            user = self._source_index.users[source.user[index]].name
            message = f"an acceptable record is a dead letter ({named[HEADER + 'reason'][:40]})"
            position = source.topic, source.partition, source.start + index
            self._report.add(Violation("valid-dead-letter", message, user, -1, *position))
        else:
            self._compare(source, index, record, named)
            source.flags[index] |= DEAD_LETTER

    def _compare(self, source: SourcePartition, index: int, record: Record, named: dict[str, str]) -> None:
        """Check that a dead letter holds what was received: key, value and headers, cut if there is not enough room."""
        wrong = []
        digest = bytes(source.digest[16 * index : 16 * index + 16])
        large = source.large.get(index)
        if large is not None:
            same, hashed = fingerprint(record.key, record.value) == large[0], large[1]
        else:
            hashed = sha256(record.value or b"").hexdigest()
            if source.state[index] == INVALID:
                same = fingerprint(record.key, record.value) == digest
            else:
                key = self._source_index.users[source.user[index]].key
                same = record.key == key and blake2b(record.value or b"", digest_size=16).digest() == digest
        if not same:
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
            position = f"{source.topic}/{source.partition}/{source.start + index}"
            self._blame(f"it does not hold what was received at {position}; wrong: {', '.join(wrong)}", record)

    def _blame(self, message: str, record: Record) -> None:
        self._report.add(
            Violation("dead-letter", message, topic=self._topic, partition=record.partition, offset=record.offset)
        )
