"""What each user's standing slate shows: the items of the newest slate in `recommendations`, kept beside the states.

A slate stands until the next one of its placement replaces it, so a worker must know which of them show an item that is
withdrawn. The folder holds one entry per user and placement, written when a slate is acknowledged, and the offset up to
which the partition of `recommendations` is in the entries. A folder that does not reach the partition's end is behind: it
is new, or another worker has written since. Then the missing slates are read from the topic
(stream.pipeline.slate_reader), while slates that this worker sends meanwhile are newer than what is read.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any, Final, NamedTuple

import msgspec
import rocksdict

from stream.kafka.state_store import InterestStore

ENTRY: Final = b"\xffstanding\0"
"""The prefix of an entry's key; then come the user, END and the placement. It is longer than a key that is a number, so no user
has such a key."""

END: Final = b"\xff"
"""Ends the user in an entry's key. The name of a placement is ASCII, and users' keys have no END or all the same length."""

REACHED: Final = b"\xffstanding"
"""The key of the offset up to which slates are in the entries."""


class Shown(msgspec.Struct, array_like=True, gc=False):
    """What a slate shows. seq: Of the state that it shows."""

    seq: int
    items: list[str]


class Slot(NamedTuple):
    """Where a slate stands: the key of its user, and the name of its placement, "" for the default one."""

    user: bytes
    placement: str = ""

    @property
    def key(self) -> bytes:
        """What follows ENTRY in the entry's key."""
        return self.user + END + self.placement.encode()


class Standing(NamedTuple):
    """A standing slate."""

    slot: Slot
    shown: Shown


@dataclass
class _Behind:
    """A partition whose entries do not reach the topic's end.

    Attributes:
        end: Offset up to which the topic must be read, not included; -1 if it is not known yet.
        fresh: Slots whose slates were sent since: what is read is older.
        gone: Users of whom a tombstone was sent since.
        first: Offset of the first slate sent since; -1 for none, or if it is not known.
        last: Offset of the last one.
    """

    end: int = -1
    fresh: set[Slot] = field(default_factory=set)
    gone: set[bytes] = field(default_factory=set)
    first: int = -1
    last: int = -1


_DECODER: Final = msgspec.msgpack.Decoder(Shown)


class StandingSlates:
    """The standing slates of this worker's partitions.

    Args:
        store: The table's partitions.
    """

    def __init__(self, store: InterestStore) -> None:
        self._store = store
        self._encoder = msgspec.msgpack.Encoder()
        self._next: dict[int, int] = {}  # offset after the last slate in the entries, of partitions that are not behind
        self._behind: dict[int, _Behind] = {}
        self._others: dict[int, set[int]] = {}  # offsets of this worker's own records that are no user's slates

    def begin(self, partitions: Iterable[int]) -> None:
        """Take over partitions: each is behind until its end is read."""
        self.forget()
        self._behind = {partition: _Behind() for partition in partitions}

    def forget(self) -> None:
        """Forget all partitions: they are given up."""
        self._next.clear()
        self._behind.clear()
        self._others.clear()

    def behind(self) -> list[int]:
        """Return the partitions whose entries do not reach the topic's end."""
        return sorted(self._behind)

    def reached(self, partition: int) -> int:
        """Return the offset up to which slates are in the entries; -1 for none."""
        found = self._store.read(partition, [REACHED])[0]
        return -1 if found is None else int(found)

    def read(self, partition: int, slots: Sequence[Slot]) -> list[Shown | None]:
        """Return what standing slates show; None where none is known."""
        found = self._store.read(partition, [ENTRY + slot.key for slot in slots])
        return [None if value is None else _DECODER.decode(value) for value in found]

    def scan(self, partition: int, after: bytes, count: int) -> list[Standing]:
        """Return the next `count` standing slates after that of a slot with the key `after`, by key; b"": from the first."""

        def some(database: Any) -> list[Standing]:
            found: list[Standing] = []
            entries = database.iter()
            entries.seek(ENTRY + after + b"\0" if after else ENTRY)
            while len(found) < count and entries.valid() and (key := entries.key()).startswith(ENTRY):
                user, _, placement = key[len(ENTRY) :].rpartition(END)
                found.append(Standing(Slot(user, str(placement, "ascii")), _DECODER.decode(entries.value())))
                entries.next()
            entries.status()  # raises if it ended early because of damage
            return found

        return self._store.use(partition, some)

    def sent(self, partition: int, slates: Sequence[tuple[Slot, Shown | None]], last: int) -> None:
        """Note slates that are acknowledged.

        Args:
            partition: The partition.
            slates: (slot, what the slate shows) in the order sent; None for a tombstone, which is for all of a user's slots.
            last: Offset of the last one; -1 if the broker did not report it.
        """
        first = last - len(slates) + 1 if last >= 0 else -1
        behind = self._behind.get(partition)
        if behind is None:
            expected = self._expected(partition)
            if first == expected >= 0:
                self._next[partition] = last + 1
                self._write(partition, slates, last)
                return
            # somebody else has written in between: what this worker sends now is newer than that
            behind = self._behind[partition] = _Behind(first)
            self._next.pop(partition, None)
        for slot, shown in slates:
            if shown is None:
                behind.gone.add(slot.user)
            else:
                behind.fresh.add(slot)
        if behind.first < 0:
            behind.first = first
        elif first != behind.last + 1:
            behind.end, behind.first = -1, first  # read on to the end that there is then
        behind.last = last
        self._write(partition, slates, -1)

    def passed(self, partition: int, offset: int) -> None:
        """Note a record that this worker has sent and that is no user's slate: nobody else has written there."""
        if offset >= 0 and partition in self._next:
            self._others.setdefault(partition, set()).add(offset)

    def _expected(self, partition: int) -> int:
        """Return the offset after the last slate in the entries and the worker's other records; -1 if it is not known."""
        expected, others = self._next.get(partition, -1), self._others.get(partition)
        while others and expected in others:
            others.remove(expected)
            expected += 1
        return expected

    def target(self, partition: int) -> int:
        """Return the offset up to which a partition that is behind must be read, not included; -1 if `aim` must say."""
        return self._behind[partition].end

    def aim(self, partition: int, end: int) -> None:
        """Set the offset up to which a partition that is behind must be read, not included."""
        self._behind[partition].end = end

    def take(self, partition: int, slates: Sequence[tuple[Slot, Shown | None]], last: int) -> None:
        """Note slates that were read from the topic, up to the offset `last`."""
        behind = self._behind[partition]
        older: list[tuple[Slot, Shown | None]] = []
        for slot, shown in slates:
            if slot.user in behind.gone:
                continue
            if shown is not None:
                if slot not in behind.fresh:
                    older.append((slot, shown))
            elif all(one.user != slot.user for one in behind.fresh):
                older.append((slot, None))
        self._write(partition, older, last)

    def caught_up(self, partition: int) -> bool:
        """Note that a partition is read up to its target. Return False if more must be read, up to a new target."""
        behind = self._behind[partition]
        if behind.first > behind.end:
            behind.end = behind.first
            return False
        del self._behind[partition]
        last = max(behind.end - 1, behind.last)
        self._next[partition] = last + 1
        self._write(partition, [], last)
        return True

    def drop(self, partition: int) -> None:
        """Delete all entries of a partition: they are of another log."""
        while found := self.scan(partition, b"", 1000):
            self._write(partition, [(one.slot, None) for one in found], -1)
        self._store.use(partition, lambda database: database.delete(REACHED))

    def remove(self, partition: int, users: Iterable[bytes]) -> None:
        """Delete the entries of users."""
        self._write(partition, [(Slot(user), None) for user in users], -1)

    def _write(self, partition: int, slates: Iterable[tuple[Slot, Shown | None]], last: int) -> None:
        batch = rocksdict.WriteBatch(raw_mode=True)
        encode = self._encoder.encode
        for slot, shown in slates:
            if shown is None:
                batch.delete_range(ENTRY + slot.user + END, ENTRY + slot.user + END + END)
            else:
                batch.put(ENTRY + slot.key, encode(shown))
        if last >= 0:
            batch.put(REACHED, b"%d" % last)
        self._store.use(partition, lambda database: database.write(batch))
