"""One partition of one source topic: what became of each record. Flat arrays hold it: 60 bytes per record."""

from __future__ import annotations

from array import array

from deploy.clients.log_reader import Span

# What became of a record. ABSENT: no record was read at this offset.
# FORGOTTEN: a control record erased it, or is it (deploy.verify.control_records).
ABSENT, INVALID, ACCEPTED, APPLIED, DUPLICATE, SKIPPED, UNSEEN, FORGOTTEN = range(8)
# Flags of a record. DEAD_LETTER: it has a dead letter. NAMED: a slate names it. POISON: it was set aside because the model
# failed on it. OWN: the producer's `id` has the form of a position. MOVED: only its partition is wrong, and it may have been
# forwarded. TWICE: it was reported as `double` already. CONTROL: it asks for its user to be forgotten.
DEAD_LETTER, NAMED, POISON, OWN, MOVED, TWICE, CONTROL = 1, 2, 4, 8, 16, 32, 64

NONE = -1
MAX_REASONS = 10_000
"""Reasons that are stored per partition; there are more only in a flood of bad records."""


class SourcePartition:
    """One partition of one source topic. All arrays are indexed by offset - start.

    Attributes:
        topic: Name of the topic.
        partition: Number of the partition.
        start, end: The offsets that are read; `end` is exclusive.
        first: The first offset that the log still has.
        due: (from, to), the offsets to check.
        state, flags: What became of each record, and its flags, see above.
        digest: 16 bytes per record: blake2b-128 of the value; for an unacceptable record, its `fingerprint`.
        user: Index of the user.
        time: Epoch ms.
        appended: Epoch ms, when the record was appended; empty if it is not needed.
        item: crc32 of the item's id.
        after: Index of the same user's next event in this partition.
        entry: A hash of the event as a state remembers it.
        seq: The event's number in its user's life.
        sent: The first 8 bytes of the value's sha256; empty without a producer log.
        ids: The ids that producers gave.
        reasons: Index -> why the record is not acceptable, MAX_REASONS at most.
        large: For records that a dead letter cuts: index -> the `fingerprint` of what the dead letter holds, and the sha256 of
            the whole value, in hex.
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
        self.appended = array("q")
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
        """Return the event id: the producer's `id`, or the position that an `original-record` header names, or else
        topic/partition/offset."""
        given = self.ids.get(index)
        return given.encode() if given else f"{self.topic}/{self.partition}/{self.start + index}".encode()

    def remembered(self, index: int) -> str:
        """Return what a state remembers of the event to recognize a duplicate; "" without an `id` and a header.

        Only the worker itself uses positions as ids. A producer's `id` in the form of a position is remembered with `id:` before
        it.
        """
        given = self.ids.get(index)
        return "id:" + given if self.flags[index] & OWN else given

    def put_headers(self, index: int, mark: int) -> None:
        """Store the `dead_letter_headers_mark` of a record. Takes next to no memory if no record has headers."""
        if not self._headers:
            self._headers = array("q", [0]) * len(self.state)
        self._headers[index] = mark

    def headers(self, index: int) -> int:
        """Return the stored mark, or 0 if the record has no headers."""
        return self._headers[index] if self._headers else 0

    @property
    def narrowed(self) -> bool:
        """Whether only a later part of the log is checked."""
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
