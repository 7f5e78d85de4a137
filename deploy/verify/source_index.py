"""What one partition of the source topics holds, and what became of each record."""

from __future__ import annotations

import re
from array import array
from collections.abc import Iterator, Sequence
from hashlib import blake2b, sha256
from typing import Protocol
from zlib import crc32

from deploy.clients.log_reader import Log, Record, Span, TopicPartition
from deploy.verify.fingerprints import ORIGINAL_RECORD, WHOLE, cut, dead_letter_headers_mark, fingerprint
from deploy.verify.recent_events import entry
from deploy.verify.source_partition import ACCEPTED, CONTROL, INVALID, MAX_REASONS, MOVED, NONE, OWN, SourcePartition
from deploy.verify.users import User
from deploy.verify.validator import Accepted, ForgetRequest, Misplaced, Validator

FORWARDED = "forwarded"
"""Header of the copy of a record that lay on the wrong partition: topic/partition/offset of that record."""

_OWN_ID = re.compile(r"(?:id:)*(.{1,249})/(?:0|[1-9][0-9]{0,9})/(?:0|[1-9][0-9]{0,18})", re.ASCII)
_POSITION = re.compile(r"(.{1,249})/(0|[1-9][0-9]{0,9})/(0|[1-9][0-9]{0,18})", re.ASCII)


class RecordReader(Protocol):
    """Something else that sees every source record, such as the producer log."""

    def see(self, topic: str, record: Record, hashed: bytes) -> None:
        """Read one source record. hashed: The sha256 of its value."""


class SourceIndex:
    """All source records of one partition, validated.

    Attributes:
        topics: The source topics.
        partition: Number of the partition.
        sources: The partition of each source topic, by topic index.
        users: Users in the order of their first event.
        since: Append time (epoch ms) of the oldest record to check; NONE without one.
        copies: Position that a copy's header names -> fingerprint -> (topic index, index) of those copies.
        moved: (topic index, index) of the misplaced records.
        bare: Hash of an entry with an action -> hash of the same entry without it: earlier versions knew no actions.
        keys: The form of the users' keys.
    """

    def __init__(
        self,
        topics: Sequence[str],
        spans: dict[TopicPartition, Span],
        validator: Validator,
        partition: int,
        first: dict[TopicPartition, int] | None = None,
        due: dict[TopicPartition, tuple[int, int]] | None = None,
        producer_log: RecordReader | None = None,
    ) -> None:
        """Prepare the index; `read` fills it.

        Args:
            topics: The source topics.
            spans: The offsets to read.
            validator: Decides whether a record is acceptable.
            partition: Number of the partition.
            first: The first offset that each log still has; by default that of its span.
            due: (from, to), the offsets to check; by default all offsets that are read.
            producer_log: Sees every record, too.
        """
        self.topics = tuple(topics)
        self.partition = partition
        self.sources = []
        for tp in ((topic, partition) for topic in topics):
            span = spans[tp]
            start = (first or {}).get(tp, span.start)
            self.sources.append(
                SourcePartition(*tp, span, start, (due or {}).get(tp, (start, span.end)), producer_log is not None)
            )
        self.users: list[User] = []
        self.copies: dict[str, dict[bytes, list[tuple[int, int]]]] = {}
        self.moved: list[tuple[int, int]] = []
        self.bare: dict[int, int] = {}
        self.since = NONE
        self.timed = False
        """Whether append times are kept."""
        self._index: dict[bytes, int] = {}
        self._validator = validator
        self.keys = validator.keys
        self._producer_log = producer_log

    def read(self, log: Log, spans: dict[TopicPartition, Span]) -> None:
        """Validate every record of the source topics."""
        for behaviour, topic in enumerate(self.topics):
            source = self.sources[behaviour]
            begin, end = source.due
            if self.timed:
                source.appended = array("q", [0]) * len(source.state)
            for record in log.records(topic, spans):
                self._take(behaviour, source, record)
                if self.timed:
                    source.appended[record.offset - source.start] = record.timestamp
                if begin <= record.offset < end and not 0 <= self.since <= record.timestamp:
                    self.since = record.timestamp

    def _take(self, behaviour: int, source: SourcePartition, record: Record) -> None:
        key, value, offset = record.key, record.value, record.offset
        verdict = self._validator.validate(
            behaviour, record.partition, record.timestamp, key, value, offset, record.headers
        )
        index = offset - source.start
        if isinstance(verdict, str):
            self._put_invalid(behaviour, source, index, verdict)
            digest = fingerprint(key, value)
        else:
            if isinstance(verdict, ForgetRequest):
                source.flags[index] |= CONTROL
                source.time[index] = record.timestamp
                self._put_user(behaviour, source, index, verdict.user)
            else:
                self._put_accepted(behaviour, source, index, verdict, record)
            digest = blake2b(value or b"", digest_size=16).digest()
        source.digest[16 * index : 16 * index + 16] = digest
        if len(key or b"") + len(value or b"") > WHOLE:
            source.large[index] = fingerprint(*cut(key, value)), sha256(value or b"").hexdigest()
        if record.headers:
            self._note_copy(behaviour, index, record)
            source.put_headers(index, dead_letter_headers_mark(record.headers))
        if self._producer_log is not None:
            hashed = sha256(value or b"").digest()
            source.sent[8 * index : 8 * index + 8] = hashed[:8]
            self._producer_log.see(source.topic, record, hashed)

    def _put_invalid(self, behaviour: int, source: SourcePartition, index: int, reason: str) -> None:
        source.state[index] = INVALID
        if isinstance(reason, Misplaced):
            source.flags[index] |= MOVED
            self.moved.append((behaviour, index))
        if len(source.reasons) < MAX_REASONS:
            source.reasons[index] = reason

    def _put_accepted(
        self, behaviour: int, source: SourcePartition, index: int, event: Accepted, record: Record
    ) -> None:
        self._put_user(behaviour, source, index, event.user)
        source.time[index] = event.time
        source.item[index] = crc32(event.item.encode())
        if given := event.id or (record.headers and self.original_record_of(record)):
            source.ids.put(index, given)
        if (own := _OWN_ID.fullmatch(event.id)) and own[1] in self.topics:
            source.flags[index] |= OWN
        fields = behaviour, event.value, event.time, event.item, event.scene, source.remembered(index)
        source.entry[index] = hash(entry(*fields, event.action))
        if event.action:
            self.bare[source.entry[index]] = hash(entry(*fields))

    def _put_user(self, behaviour: int, source: SourcePartition, index: int, key: bytes) -> None:
        """Add an acceptable record to the events of its user."""
        user = self.user(key)
        source.state[index] = ACCEPTED
        source.user[index] = user.number
        before = user.tail[behaviour]
        if before == NONE:
            user.at[behaviour] = user.first[behaviour] = user.head[behaviour] = index
        else:
            source.after[before] = index
        user.tail[behaviour] = index

    def _note_copy(self, behaviour: int, index: int, record: Record) -> None:
        for name, value in record.headers:
            if name == FORWARDED:
                position = (value or b"").decode("ascii", "replace")
                found = _POSITION.fullmatch(position)
                if found and found[1] == self.topics[behaviour] and int(found[2]) != record.partition:
                    copies = self.copies.setdefault(position, {}).setdefault(fingerprint(record.key, record.value), [])
                    if (behaviour, index) not in copies[-1:]:  # a record may have the header twice
                        copies.append((behaviour, index))

    def original_record_of(self, record: Record) -> str:
        """Return the position that a well-formed `original-record` header names; "" if there is none."""
        for name, value in record.headers:
            if name == ORIGINAL_RECORD:
                text = (value or b"").decode("ascii", "replace")
                found = _POSITION.fullmatch(text)
                return text if found and found[1] in self.topics else ""
        return ""

    def same_event(self, one: tuple[int, int], other: tuple[int, int]) -> bool:
        """Return whether two records, each (topic index, index), have the same id, or are the same redriven record."""
        return self.sources[one[0]].remembered(one[1]) == self.sources[other[0]].remembered(other[1]) != ""

    def user(self, key: bytes) -> User:
        """Return the user of a key. Add the user if it is new."""
        number = self._index.setdefault(key, len(self.users))
        if number == len(self.users):
            self.users.append(User(number, key, self.keys))
        return self.users[number]

    def find(self, key: bytes) -> User | None:
        """Return the user of a key; None if no record has it."""
        number = self._index.get(key)
        return None if number is None else self.users[number]

    def topic_index(self, topic: str) -> int:
        """Return the index of a source topic; NONE for any other topic."""
        return self.topics.index(topic) if topic in self.topics else NONE

    def to_check(self) -> Iterator[tuple[SourcePartition, int, int]]:
        """Yield (source, index, offset) of every offset to check."""
        for source in self.sources:
            for offset in range(max(source.due[0], source.start), min(source.due[1], source.end)):
                yield source, offset - source.start, offset
