"""What one partition of the source topics holds, and what became of each record. Kept in flat arrays: 60 bytes a record."""

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

# What became of a record. ABSENT: no such record is to be seen.
ABSENT, INVALID, ACCEPTED, APPLIED, DUPLICATE, SKIPPED, UNSEEN = range(7)
# Flags beside it. POISON: set aside since the model failed on it; OWN: the producer's `id` has the form of a place; MOVED: it
# is good but for its partition, and may have been sent on; TWICE: blamed as `double` already.
LETTER, NAMED, POISON, OWN, MOVED, TWICE = 1, 2, 4, 8, 16, 32

NONE = -1
ORIGINAL_RECORD = "original-record"
"""Header of a dead letter that was sent back: topic/partition/offset of the record that it was."""

FORWARDED = "forwarded"
"""Header of the copy of a record that lay on a wrong partition: topic/partition/offset of that record."""

WHOLE = 4 << 20  # bytes of key and value that a dead letter keeps
HEADERS_ROOM = 32 << 10
LONGEST_PLACE = 300

_FORM = re.compile(r"(?:id:)*(.{1,249})/(?:0|[1-9][0-9]{0,9})/(?:0|[1-9][0-9]{0,18})", re.ASCII)
_PLACE = re.compile(r"(.{1,249})/(0|[1-9][0-9]{0,9})/(0|[1-9][0-9]{0,18})", re.ASCII)
_BEFORE_TEXTS = Struct("<Bfq")
_REASONS = 10_000  # kept; more of them would be a flood of bad records


class RecordReader(Protocol):
    """Whoever else is shown every source record, such as the producer's log."""

    def see(self, topic: str, record: Record, hashed: bytes) -> None:
        """hashed: sha256 of the record's value."""


class SourcePartition:
    """One partition of one source topic; all arrays are indexed by offset - start.

    start, end: offsets that are read; first: the log's own first offset; due: (from, to), the offsets that are judged.
    state, flags: as above; digest: 16 bytes each, blake2b-128 of the value, of an unacceptable record its `fingerprint`;
    user: index of the user; time: epoch ms; item: crc32 of its id; after: index of the same user's next event here;
    large: of records that a dead letter cuts, the `fingerprint` of what it keeps and the sha256 of the whole value, in hex;
    entry: a hash of the event as a state remembers it;
    seq: the event's number in its user's life; sent: the first 8 bytes of the value's sha256, where a ledger asks for it.
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
        """The event id: the producer's `id`, else the place that an `original-record` header names, else
        topic/partition/offset."""
        given = self.ids.get(index)
        return given.encode() if given else f"{self.topic}/{self.partition}/{self.start + index}".encode()

    def remembered(self, index: int) -> str:
        """What a state remembers of the event, and knows a duplicate by; "" where no `id` and no header was given. Places are
        the worker's own: a producer's `id` in that form goes by `id:` and itself."""
        given = self.ids.get(index)
        return "id:" + given if self.flags[index] & OWN else given

    def keep_headers(self, index: int, mark: int) -> None:
        """mark: of the headers that a dead letter keeps, see `kept_headers`; next to nothing where no record has any."""
        if not self._headers:
            self._headers = array("q", [0]) * len(self.state)
        self._headers[index] = mark

    def headers(self, index: int) -> int:
        """The mark that was kept, 0 where there are no headers."""
        return self._headers[index] if self._headers else 0

    @property
    def narrowed(self) -> bool:
        """Only a later part of the log is judged."""
        return self.due[0] > self.first


class Ids:
    """Ids that producers gave, by index; next to nothing where they give none."""

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
        """The id; "" where there is none."""
        if not self._at or self._at[index] == NONE:
            return ""
        at = self._at[index]
        return self._text[at + 2 : at + 2 + int.from_bytes(self._text[at : at + 2], "little")].decode()


class User:
    """Where one user stands while the changelog is read."""

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
        self.ring = array("q")  # the last events, 64 at least: topic index, index (see `ring_entry`)
        self.marks = array("q")  # hashes of what is remembered of them
        self.entries = array("q")  # hashes of the events that its state must remember, 64 at least
        self.seen = array("I")  # of the items that its state must have seen, in order
        self.recent = b""  # of an adopted state: its recent events, whose ids only it tells of
        self.recent_seq = 0  # how many events that state had taken in
        self.row = NONE  # the last state of this user; NONE: none seen
        self.oldest = NONE
        self.cursor = NONE
        self.flagged = -1  # highest seq that a replay slate has shown
        self.slate = b""  # digest of the last slate
        self.exposed: tuple[int, int] | None = None  # (offset, seq) of a fenced record, the last one of this user

    @property
    def name(self) -> str:
        return self.keys.name(self.key)


def entry(behaviour: int, value: float, time: int, item: str, scene: str, given: str, action: str = "") -> bytes:
    """An event as a state's recent events hold it, behind its length."""
    texts = [text.encode() for text in (item, scene, given, *([action] if action else []))]
    return _BEFORE_TEXTS.pack(behaviour, value, time) + b"".join(len(raw).to_bytes(2, "little") + raw for raw in texts)


def ring_entry(topic: int, index: int) -> int:
    return topic << 40 | index


def ring_place(entry: int) -> tuple[int, int]:
    """(topic index, index)"""
    return entry >> 40, entry & (1 << 40) - 1


def fingerprint(key: bytes | None, value: bytes | None) -> bytes:
    """16 bytes that tell key and value of a record, null and empty apart."""
    size = b"-" if key is None else str(len(key)).encode()
    return blake2b(b"%b:%b%b" % (size, key or b"", b"-" if value is None else b"+" + value), digest_size=16).digest()


def cut(key: bytes | None, value: bytes | None) -> tuple[bytes | None, bytes | None]:
    """What a dead letter keeps of key and value: together WHOLE bytes, the key's first."""
    room = WHOLE - len(key or b"")
    return key and key[:WHOLE], value and value[: max(0, room)]


def kept_headers(headers: Sequence[tuple[str, bytes | None]]) -> int:
    """A mark of the headers that a dead letter keeps of those received, 0 for none: not the worker's own names; of
    `original-record` the first one, unless it is too long for a place; of the others those that fit into 32 KiB, each
    with 10 bytes for its frame."""
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
    """All source records of one partition, judged. shelves[topic index]; users in the order of their first event.

    first: the logs' own first offsets; due: the offsets that are judged, all of those that are read where it has none.
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
        self.topics = tuple(topics)
        self.partition = partition
        self.sources = []
        for place in ((topic, partition) for topic in topics):
            span = spans[place]
            start = (first or {}).get(place, span.start)
            judged = (due or {}).get(place, (start, span.end))
            self.sources.append(SourcePartition(*place, span, start, judged, producer_log is not None))
        self.users: list[User] = []
        # place that a copy's header names -> fingerprint -> (topic index, index) of those copies
        self.copies: dict[str, dict[bytes, list[tuple[int, int]]]] = {}
        self.moved: list[tuple[int, int]] = []  # (topic index, index) of the misplaced records
        # hash of an entry with an action -> of the same without: earlier versions knew none
        self.bare: dict[int, int] = {}
        self.since = NONE  # append time (epoch ms) of the oldest record that is judged
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
                    if (behaviour, index) not in copies[-1:]:  # the header may stand there twice
                        copies.append((behaviour, index))

    def original_record_of(self, record: Record) -> str:
        """The place that a well-formed `original-record` header names; "" without."""
        for name, value in record.headers:
            if name == ORIGINAL_RECORD:
                text = (value or b"").decode("ascii", "replace")
                found = _PLACE.fullmatch(text)
                return text if found and found[1] in self.topics else ""
        return ""

    def same_event(self, one: tuple[int, int], other: tuple[int, int]) -> bool:
        """Two records, each (topic index, index), were given one id, or are one record that was sent back."""
        return self.sources[one[0]].remembered(one[1]) == self.sources[other[0]].remembered(other[1]) != ""

    def user_number(self, key: bytes) -> int:
        """Index of a user; made on first sight."""
        number = self._index.setdefault(key, len(self.users))
        if number == len(self.users):
            self.users.append(User(key, self.keys))
        return number

    def find(self, key: bytes) -> int | None:
        return self._index.get(key)

    def topic_index(self, topic: str) -> int:
        """Index of a source topic, NONE for any other."""
        return self.topics.index(topic) if topic in self.topics else NONE

    def places(self) -> Iterator[tuple[SourcePartition, int, int]]:
        """(shelf, index, offset) of every record that is judged."""
        for source in self.sources:
            for offset in range(max(source.due[0], source.start), min(source.due[1], source.end)):
                yield source, offset - source.start, offset
