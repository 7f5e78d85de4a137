"""What one partition of the source topics holds, and what became of each record. Flat arrays keep it: 60 bytes per record."""

from __future__ import annotations

import re
from array import array
from collections.abc import Iterator, Sequence
from hashlib import blake2b, sha256
from struct import Struct
from typing import Protocol
from zlib import crc32

from deploy.clients.dead_letter_headers import HEADER
from deploy.clients.log_reader import Log, Place, Record, Span
from deploy.verify.keys import Keys
from deploy.verify.validator import Accepted, Misplaced, Validator

# What became of a record. ABSENT: no record was read at this offset.
ABSENT, INVALID, ACCEPTED, APPLIED, DUPLICATE, SKIPPED, UNSEEN = range(7)
# Flags of a record. LETTER: it has a dead letter. NAMED: a slate names it. POISON: it was set aside because the model failed on
# it. OWN: the producer's `id` has the form of a place. MOVED: only its partition is wrong, and it may have been forwarded.
# TWICE: it was reported as `double` already.
LETTER, NAMED, POISON, OWN, MOVED, TWICE = 1, 2, 4, 8, 16, 32

NONE = -1
ORIGINAL_RECORD = "original-record"
"""Header of a redriven dead letter: topic/partition/offset of the first record."""

FORWARDED = "forwarded"
"""Header of the copy of a record that lay on the wrong partition: topic/partition/offset of that record."""

WHOLE = 4 << 20  # bytes of key and value that a dead letter keeps
HEADERS_ROOM = 32 << 10
LONGEST_PLACE = 300

_FORM = re.compile(r"(?:id:)*(.{1,249})/(?:0|[1-9][0-9]{0,9})/(?:0|[1-9][0-9]{0,18})", re.ASCII)
_PLACE = re.compile(r"(.{1,249})/(0|[1-9][0-9]{0,9})/(0|[1-9][0-9]{0,18})", re.ASCII)
_BEFORE_TEXTS = Struct("<Bfq")
_REASONS = 10_000  # reasons kept; there are more only in a flood of bad records


class RecordReader(Protocol):
    """Something else that sees every source record, such as the producer log."""

    def see(self, topic: str, record: Record, hashed: bytes) -> None:
        """Read one source record. hashed: The sha256 of its value."""


class SourcePartition:
    """One partition of one source topic. All arrays are indexed by offset - start.

    Attributes:
        topic: Name of the topic.
        partition: Number of the partition.
        start, end: The offsets that are read; `end` is exclusive.
        first: The first offset that the log still has.
        due: (from, to), the offsets that are judged.
        state, flags: What became of each record, and its flags, see above.
        digest: 16 bytes per record: blake2b-128 of the value; for an unacceptable record, its `fingerprint`.
        user: Index of the user.
        time: Epoch ms.
        item: crc32 of the item's id.
        after: Index of the same user's next event in this partition.
        entry: A hash of the event as a state remembers it.
        seq: The event's number in its user's life.
        sent: The first 8 bytes of the value's sha256; empty without a ledger.
        ids: The ids that producers gave.
        reasons: Index -> why the record is not acceptable, _REASONS at most.
        large: For records that a dead letter cuts: index -> the `fingerprint` of what the letter keeps, and the sha256 of the
            whole value, in hex.
    """

    def __init__(self, topic: str, partition: int, span: Span, first: int, due: tuple[int, int], hashed: bool) -> None:
        size = span.end - span.start
        self.topic = topic
        self.partition = partition
        self.start = span.start
        self.end = span.end
        self.first = first
        self.due = due
        self.state = bytearray(size)
        self.flags = bytearray(size)
        self.digest = bytearray(16 * size)
        self.user = array("i", [NONE]) * size
        self.time = array("q", [0]) * size
        self.item = array("I", [0]) * size
        self.after = array("i", [NONE]) * size
        self.entry = array("q", [0]) * size
        self.seq = array("q", [0]) * size
        self.sent = bytearray(8 * size if hashed else 0)
        self.ids = Ids(size)
        self.reasons: dict[int, str] = {}
        self.large: dict[int, tuple[bytes, str]] = {}
        self._headers = array("q")

    def identity(self, index: int) -> bytes:
        """Return the event id: the producer's `id`, or the place that an `original-record` header names, or else
        topic/partition/offset."""
        given = self.ids.get(index)
        return given.encode() if given else f"{self.topic}/{self.partition}/{self.start + index}".encode()

    def remembered(self, index: int) -> str:
        """Return what a state remembers of the event to recognize a duplicate; "" without an `id` and a header.

        Only the worker itself uses places as ids. A producer's `id` in the form of a place is remembered with `id:` before it.
        """
        given = self.ids.get(index)
        return "id:" + given if self.flags[index] & OWN else given

    def keep_headers(self, index: int, mark: int) -> None:
        """Keep the mark of a record's headers, see `kept_headers`. Takes next to no memory if no record has headers."""
        if not self._headers:
            self._headers = array("q", [0]) * len(self.state)
        self._headers[index] = mark

    def headers(self, index: int) -> int:
        """Return the mark that was kept, or 0 if the record has no headers."""
        return self._headers[index] if self._headers else 0

    @property
    def narrowed(self) -> bool:
        """Whether only a later part of the log is judged."""
        return self.due[0] > self.first


class Ids:
    """The ids that producers gave, by index. Takes next to no memory if they gave none."""

    def __init__(self, size: int) -> None:
        self._size = size
        self._at = array("q")
        self._text = bytearray()

    def put(self, index: int, given: str) -> None:
        if not self._at:
            self._at = array("q", [NONE]) * self._size
        raw = given.encode()
        self._at[index] = len(self._text)
        self._text += len(raw).to_bytes(2, "little") + raw

    def get(self, index: int) -> str:
        """Return the id; "" if there is none."""
        if not self._at or self._at[index] == NONE:
            return ""
        at = self._at[index]
        return self._text[at + 2 : at + 2 + int.from_bytes(self._text[at : at + 2], "little")].decode()


class User:
    """How far one user's events have been followed while the changelog is read."""

    __slots__ = (
        "applied",
        "at",
        "chain",
        "cursor",
        "entries",
        "exposed",
        "flagged",
        "key",
        "keys",
        "last_time",
        "marks",
        "oldest",
        "recent",
        "recent_seq",
        "ring",
        "row",
        "seen",
        "seq",
        "slate",
        "tail",
    )  # fmt: skip

    def __init__(self, key: bytes, keys: Keys) -> None:
        self.key = key
        self.keys = keys
        self.at = array("i", (NONE, NONE, NONE))  # index of the next event of each topic that no state has passed yet
        self.tail = array("i", (NONE, NONE, NONE))
        self.seq = 0
        self.chain = bytes(16)
        self.applied = array("q", (-1, -1, -1))
        self.last_time = -1
        self.ring = array("q")  # the last events, 64 or more: topic index, index (see `ring_entry`)
        self.marks = array("q")  # hashes of what a state remembers of them
        self.entries = array("q")  # hashes of the events that the user's state must remember, 64 or more
        self.seen = array("I")  # crc32 of the items that the user's state must have as seen, in order
        self.recent = b""  # recent events of an adopted state: only it has their ids
        self.recent_seq = 0  # number of events applied to that state
        self.row = NONE  # row of this user's last state; NONE if no state was read
        self.oldest = NONE
        self.cursor = NONE
        self.flagged = -1  # highest seq that a slate flagged as a replay has shown
        self.slate = b""  # digest of the last slate
        self.exposed: tuple[int, int] | None = None  # (offset, seq) of a fenced record, if it is this user's last

    @property
    def name(self) -> str:
        return self.keys.name(self.key)


def entry(behaviour: int, value: float, time: int, item: str, scene: str, given: str, action: str = "") -> bytes:
    """Return an event as a state's recent events hold it, without the length before it."""
    texts = [text.encode() for text in (item, scene, given, *([action] if action else []))]
    return _BEFORE_TEXTS.pack(behaviour, value, time) + b"".join(len(raw).to_bytes(2, "little") + raw for raw in texts)


def ring_entry(topic: int, index: int) -> int:
    return topic << 40 | index


def ring_place(entry: int) -> tuple[int, int]:
    """Return (topic index, index) of an entry."""
    return entry >> 40, entry & (1 << 40) - 1


def fingerprint(key: bytes | None, value: bytes | None) -> bytes:
    """Return 16 bytes that identify key and value of a record. Null and empty give different bytes."""
    size = b"-" if key is None else str(len(key)).encode()
    return blake2b(b"%b:%b%b" % (size, key or b"", b"-" if value is None else b"+" + value), digest_size=16).digest()


def cut(key: bytes | None, value: bytes | None) -> tuple[bytes | None, bytes | None]:
    """Return what a dead letter keeps of key and value: WHOLE bytes in total, those of the key first."""
    room = WHOLE - len(key or b"")
    return key and key[:WHOLE], value and value[: max(0, room)]


def kept_headers(headers: Sequence[tuple[str, bytes | None]]) -> int:
    """Return a mark of those received headers that a dead letter keeps; 0 if it keeps none.

    It does not keep headers with the worker's own names. It keeps the first `original-record`, unless that is too long for a
    place. It keeps the others that fit into 32 KiB, each with 10 bytes for its frame.
    """
    kept: list[tuple[str, bytes | None]] = []
    room = HEADERS_ROOM
    named_one = False
    for name, value in headers:
        size = len(value or b"")
        if name.startswith(HEADER):
            continue
        if name == ORIGINAL_RECORD:
            if not named_one and size <= LONGEST_PLACE:
                kept.append((name, value))
            named_one = True
            continue
        room -= 10 + len(name.encode()) + size
        if room >= 0:
            kept.append((name, value))
    return headers_mark(kept)


def headers_mark(headers: Sequence[tuple[str, bytes | None]]) -> int:
    return hash(tuple((name, value) for name, value in headers)) if headers else 0


class SourceIndex:
    """All source records of one partition, judged.

    Attributes:
        topics: The source topics.
        partition: Number of the partition.
        sources: The partition of each source topic, by topic index.
        users: Users in the order of their first event.
        since: Append time (epoch ms) of the oldest record that is judged; NONE without one.
        copies: Place that a copy's header names -> fingerprint -> (topic index, index) of those copies.
        moved: (topic index, index) of the misplaced records.
        bare: Hash of an entry with an action -> hash of the same entry without it: earlier versions knew no actions.
        keys: The form of the users' keys.
    """

    def __init__(
        self,
        topics: Sequence[str],
        spans: dict[Place, Span],
        validator: Validator,
        partition: int,
        first: dict[Place, int] | None = None,
        due: dict[Place, tuple[int, int]] | None = None,
        producer_log: RecordReader | None = None,
    ) -> None:
        """Prepare the index; `read` fills it.

        Args:
            topics: The source topics.
            spans: The offsets to read.
            validator: Judges each record.
            partition: Number of the partition.
            first: The first offset that each log still has; by default that of its span.
            due: (from, to), the offsets that are judged; by default all offsets that are read.
            producer_log: Sees every record, too.
        """
        self.topics = tuple(topics)
        self.partition = partition
        self.sources = []
        for place in ((topic, partition) for topic in topics):
            span = spans[place]
            start = (first or {}).get(place, span.start)
            judged = (due or {}).get(place, (start, span.end))
            self.sources.append(SourcePartition(*place, span, start, judged, producer_log is not None))
        self.users: list[User] = []
        self.copies: dict[str, dict[bytes, list[tuple[int, int]]]] = {}
        self.moved: list[tuple[int, int]] = []
        self.bare: dict[int, int] = {}
        self.since = NONE
        self._index: dict[bytes, int] = {}
        self._validator = validator
        self.keys = validator.keys
        self._producer_log = producer_log

    def read(self, log: Log, spans: dict[Place, Span]) -> None:
        """Judge every record of the source topics."""
        for behaviour, topic in enumerate(self.topics):
            source = self.sources[behaviour]
            begin, end = source.due
            for record in log.records(topic, spans):
                value = record.value
                at, offset = record.timestamp, record.offset
                verdict = self._validator.validate(behaviour, record.partition, at, record.key, value, offset)
                index = record.offset - source.start
                if isinstance(verdict, str):
                    source.state[index] = INVALID
                    if isinstance(verdict, Misplaced):
                        source.flags[index] |= MOVED
                        self.moved.append((behaviour, index))
                    if len(source.reasons) < _REASONS:
                        source.reasons[index] = verdict
                    digest = fingerprint(record.key, value)
                else:
                    self._put(behaviour, source, index, verdict, record)
                    digest = blake2b(value or b"", digest_size=16).digest()
                source.digest[16 * index : 16 * index + 16] = digest
                if len(record.key or b"") + len(value or b"") > WHOLE:
                    source.large[index] = fingerprint(*cut(record.key, value)), sha256(value or b"").hexdigest()
                if record.headers:
                    self._note_copy(behaviour, index, record)
                    source.keep_headers(index, kept_headers(record.headers))
                if begin <= record.offset < end and not 0 <= self.since <= record.timestamp:
                    self.since = record.timestamp
                if self._producer_log is not None:
                    hashed = sha256(value or b"").digest()
                    source.sent[8 * index : 8 * index + 8] = hashed[:8]
                    self._producer_log.see(topic, record, hashed)

    def _put(self, behaviour: int, source: SourcePartition, index: int, verdict: Accepted, record: Record) -> None:
        number = self.user_number(verdict.user)
        user = self.users[number]
        source.state[index] = ACCEPTED
        source.user[index] = number
        source.time[index] = verdict.time
        source.item[index] = crc32(verdict.item.encode())
        if given := verdict.id or (record.headers and self.original_record_of(record)):
            source.ids.put(index, given)
        if (formed := _FORM.fullmatch(verdict.id)) and formed[1] in self.topics:
            source.flags[index] |= OWN
        remembered = source.remembered(index)
        said = behaviour, verdict.value, verdict.time, verdict.item, verdict.scene, remembered
        source.entry[index] = hash(entry(*said, verdict.action))
        if verdict.action:
            self.bare[source.entry[index]] = hash(entry(*said))
        before = user.tail[behaviour]
        if before == NONE:
            user.at[behaviour] = index
        else:
            source.after[before] = index
        user.tail[behaviour] = index

    def _note_copy(self, behaviour: int, index: int, record: Record) -> None:
        for name, value in record.headers:
            if name == FORWARDED:
                place = (value or b"").decode("ascii", "replace")
                found = _PLACE.fullmatch(place)
                if found and found[1] == self.topics[behaviour] and int(found[2]) != record.partition:
                    copies = self.copies.setdefault(place, {}).setdefault(fingerprint(record.key, record.value), [])
                    if (behaviour, index) not in copies[-1:]:  # a record may have the header twice
                        copies.append((behaviour, index))

    def original_record_of(self, record: Record) -> str:
        """Return the place that a well-formed `original-record` header names; "" if there is none."""
        for name, value in record.headers:
            if name == ORIGINAL_RECORD:
                text = (value or b"").decode("ascii", "replace")
                found = _PLACE.fullmatch(text)
                return text if found and found[1] in self.topics else ""
        return ""

    def same_event(self, one: tuple[int, int], other: tuple[int, int]) -> bool:
        """Return whether two records, each (topic index, index), have the same id, or are the same redriven record."""
        return self.sources[one[0]].remembered(one[1]) == self.sources[other[0]].remembered(other[1]) != ""

    def user_number(self, key: bytes) -> int:
        """Return the index of a user. Add the user if it is new."""
        number = self._index.setdefault(key, len(self.users))
        if number == len(self.users):
            self.users.append(User(key, self.keys))
        return number

    def find(self, key: bytes) -> int | None:
        return self._index.get(key)

    def topic_index(self, topic: str) -> int:
        """Return the index of a source topic; NONE for any other topic."""
        return self.topics.index(topic) if topic in self.topics else NONE

    def places(self) -> Iterator[tuple[SourcePartition, int, int]]:
        """Yield (source, index, offset) of every offset that is judged."""
        for source in self.sources:
            for offset in range(max(source.due[0], source.start), min(source.due[1], source.end)):
                yield source, offset - source.start, offset
