"""States that show no event, until they are deleted.

A user who was forgotten (stream.core.forgetting) keeps a state without events for a moment: its `applied` keeps events
that are read again after a crash from coming back. Once the group has committed what it covers, no such event can come,
and a tombstone deletes the state.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Final

from stream.core import state as interest
from stream.kafka.state_store import InterestStore

MOST: Final = 256
"""States of a partition that are deleted in one micro-batch."""


class EmptyStates:
    """Knows the empty states of this worker's partitions. It is true if there may be one.

    Args:
        store: The table's partitions, whose notes outlive the process.
    """

    def __init__(self, store: InterestStore) -> None:
        self._store = store
        self._users: dict[int, set[bytes]] = {}
        self._more: set[int] = set()  # partitions whose folder may have more than `_users` has

    def __bool__(self) -> bool:
        return bool(self._more) or any(self._users.values())

    def note(self, partition: int, written: Iterable[tuple[bytes, bytes | None]]) -> None:
        """Note what was written to a partition: (user, state record), None for a state that was deleted."""
        users = self._users.setdefault(partition, set())
        for user, record in written:
            if record is not None and interest.is_empty(record):
                users.add(user)
            elif users:
                users.discard(user)

    def due(self, partition: int, committed: Sequence[int]) -> list[bytes]:
        """Return at most MOST users whose empty state nobody needs any more.

        Args:
            partition: The partition.
            committed: The group's committed offset of each source topic.
        """
        self._look(partition)
        users = sorted(self._users[partition])[:MOST]
        if not users:
            return []
        found = []
        for user, record in zip(users, self._store.read(partition, users), strict=True):
            if record is None or not interest.is_empty(record):
                self._users[partition].discard(user)
            elif all(last < end for last, end in zip(interest.decode(record).applied, committed, strict=True)):
                found.append(user)
        return found

    def forget(self) -> None:
        """Forget all partitions: they are given up."""
        self._users.clear()
        self._more.clear()

    def _look(self, partition: int) -> None:
        """Read the notes of a partition that was just taken over, or that had more than MOST."""
        if partition not in self._users or (partition in self._more and not self._users[partition]):
            noted = self._store.empty(partition, MOST)
            self._users.setdefault(partition, set()).update(noted)
            (self._more.add if len(noted) == MOST else self._more.discard)(partition)
