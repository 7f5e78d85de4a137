"""One user while the changelog is followed: the last state, and what the next one must hold."""

from __future__ import annotations

from array import array
from bisect import bisect_left

from deploy.verify.keys import Keys
from deploy.verify.source_partition import NONE
from stream.core.state import MAX_RECENT, MAX_SEEN


class User:
    """How far one user's events have been followed while the changelog is read."""

    __slots__ = (
        "applied",
        "at",
        "chain",
        "cursor",
        "entries",
        "exposed",
        "first",
        "flagged",
        "head",
        "key",
        "keys",
        "last_time",
        "least_life",
        "life",
        "lives",
        "marks",
        "number",
        "oldest",
        "recent",
        "recent_seq",
        "ring",
        "row",
        "seen",
        "seq",
        "shown",
        "slate",
        "tail",
    )  # fmt: skip

    def __init__(self, number: int, key: bytes, keys: Keys) -> None:
        self.number = number  # index in the source index
        self.key = key
        self.keys = keys
        self.at = array("i", (NONE, NONE, NONE))  # index of the next event of each topic that no state has passed yet
        self.tail = array("i", (NONE, NONE, NONE))
        self.first = array("i", (NONE, NONE, NONE))
        self.head = array("i", (NONE, NONE, NONE))  # index of the first event of each topic that is not forgotten
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
        self.lives: list[tuple[int, int]] = []  # (oldest, row) before each time that the user was forgotten
        self.life = -1  # of the last slate, as an index into `lives`; -1: no slate
        self.least_life = 0  # below it, slates show what is forgotten
        self.flagged = -1  # highest seq that a slate flagged as a replay has shown
        self.slate = b""  # digest of the last slate
        self.shown: array[int] | None = None  # crc32 of the items of the last slate; None: no slate was read
        self.exposed: tuple[int, int] | None = None  # (offset, seq) of a fenced record, if it is this user's last

    @property
    def name(self) -> str:
        return self.keys.name(self.key)

    def see(self, item: int) -> None:
        """Insert the crc32 of an item into `seen`, in order. If `seen` is full, insert nothing."""
        seen = self.seen
        at = bisect_left(seen, item)
        if len(seen) < MAX_SEEN and (at == len(seen) or seen[at] != item):
            seen.insert(at, item)

    def trim(self) -> None:
        """Drop what no state remembers any more. A little more stays: trimming every time would cost more than it saves."""
        if len(self.ring) >= MAX_RECENT:
            self.recent = b""
        if len(self.entries) > 2 * MAX_RECENT:
            del self.entries[:-MAX_RECENT]
        if len(self.ring) > 2 * MAX_RECENT:
            del self.ring[:-MAX_RECENT], self.marks[:-MAX_RECENT]


def ring_entry(topic: int, index: int) -> int:
    return topic << 40 | index


def ring_event(entry: int) -> tuple[int, int]:
    """Return (topic index, index) of an entry."""
    return entry >> 40, entry & (1 << 40) - 1
