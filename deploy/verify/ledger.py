"""What the source topics hold, and what became of each record. Kept in flat arrays: about 60 bytes a record."""

from __future__ import annotations

from array import array
from collections.abc import Sequence
from hashlib import blake2b
from zlib import crc32

from deploy.verify.judge import Accepted, Judge
from deploy.verify.log import Log, Place, Span

# What became of a record. ABSENT: no such record is to be seen.
ABSENT, INVALID, ACCEPTED, APPLIED, DUPLICATE, SKIPPED, UNSEEN = range(7)
# Flags beside it.
LETTER, NAMED = 1, 2

NONE = -1


class Shelf:
    """One partition of one source topic; all arrays are indexed by offset - start.

    state, flags: as above; digest: 16 bytes each, blake2b-128 of the value, of an unacceptable record its `fingerprint`;
    user: index of the user; time: epoch ms; item: crc32 of its id; after: index of the same user's next event here;
    seq: the event's number in its user's life.
    """

    def __init__(self, topic: str, partition: int, span: Span) -> None:
        size = span.end - span.start
        self.topic = topic
        self.partition = partition
        self.start = span.start
        self.end = span.end
        self.state = bytearray(size)
        self.flags = bytearray(size)
        self.digest = bytearray(16 * size)
        self.user = array("i", [NONE]) * size
        self.time = array("q", [0]) * size
        self.item = array("I", [0]) * size
        self.after = array("i", [NONE]) * size
        self.seq = array("q", [0]) * size
        self.ids: dict[int, str] = {}
        self.reasons: dict[int, str] = {}

    def identity(self, index: int) -> bytes:
        """The event id: the producer's `id`, else topic/partition/offset."""
        given = self.ids.get(index)
        return given.encode() if given else f"{self.topic}/{self.partition}/{self.start + index}".encode()


class User:
    """Where one user stands while the changelog is read."""

    __slots__ = (
        "at", "chain", "fence", "given", "key", "last_time", "partition", "replayed", "ring", "row", "seq", "slate",
        "tail",
    )  # fmt: skip

    def __init__(self, key: bytes, partition: int) -> None:
        self.key = key
        self.partition = partition
        self.at = [NONE, NONE, NONE]  # index of the next event of each topic that no state has passed yet
        self.tail = [NONE, NONE, NONE]
        self.seq = 0
        self.chain = bytes(16)
        self.fence = [-1, -1, -1]
        self.last_time = -1
        self.ring: list[tuple[int, int]] = []  # (topic index, index) of the last 64 events
        self.given: frozenset[str] = frozenset()  # ids of earlier events that only a record tells of
        self.row = NONE  # the last state of this user; NONE: none seen
        self.replayed = -1  # highest seq that a replay slate has shown
        self.slate = b""  # digest of the last slate

    @property
    def name(self) -> str:
        return self.key.decode(errors="replace")


def fingerprint(key: bytes | None, value: bytes | None) -> bytes:
    """16 bytes that tell key and value of a record, null and empty apart."""
    size = b"-" if key is None else str(len(key)).encode()
    return blake2b(b"%b:%b%b" % (size, key or b"", b"-" if value is None else b"+" + value), digest_size=16).digest()


class Ledger:
    """All source records, judged. shelves[topic index][partition]; users in the order of their first event."""

    def __init__(self, topics: Sequence[str], spans: dict[Place, Span], judge: Judge, partitions: int) -> None:
        self.topics = tuple(topics)
        self.shelves = [
            [Shelf(topic, partition, spans[topic, partition]) for partition in range(partitions)] for topic in topics
        ]
        self.users: list[User] = []
        self._index: dict[bytes, int] = {}
        self._judge = judge

    def read(self, log: Log, spans: dict[Place, Span]) -> None:
        """Judge every record of the source topics."""
        for behaviour, topic in enumerate(self.topics):
            shelves = self.shelves[behaviour]
            for record in log.records(topic, spans):
                shelf = shelves[record.partition]
                value = record.value
                verdict = self._judge.judge(behaviour, record.partition, record.timestamp, record.key, value)
                index = record.offset - shelf.start
                if isinstance(verdict, str):
                    shelf.state[index] = INVALID
                    shelf.reasons[index] = verdict
                    digest = fingerprint(record.key, value)
                else:
                    self._put(behaviour, shelf, index, verdict)
                    digest = blake2b(value or b"", digest_size=16).digest()
                shelf.digest[16 * index : 16 * index + 16] = digest

    def _put(self, behaviour: int, shelf: Shelf, index: int, verdict: Accepted) -> None:
        number = self.user_number(verdict.user, shelf.partition)
        user = self.users[number]
        shelf.state[index] = ACCEPTED
        shelf.user[index] = number
        shelf.time[index] = verdict.time
        shelf.item[index] = crc32(verdict.item.encode())
        if verdict.id:
            shelf.ids[index] = verdict.id
        before = user.tail[behaviour]
        if before == NONE:
            user.at[behaviour] = index
        else:
            shelf.after[before] = index
        user.tail[behaviour] = index

    def user_number(self, key: bytes, partition: int) -> int:
        """Index of a user; made on first sight."""
        number = self._index.setdefault(key, len(self.users))
        if number == len(self.users):
            self.users.append(User(key, partition))
        return number

    def find(self, key: bytes) -> int | None:
        return self._index.get(key)

    def topic_index(self, topic: str) -> int:
        """Index of a source topic, NONE for any other."""
        return self.topics.index(topic) if topic in self.topics else NONE
