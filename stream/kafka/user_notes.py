"""Notes about users in a partition's folder. They are written together with the changelog offset that they belong to, so a
restart in between loses none.

EXPOSED: users whose last record in the changelog is fenced. Compaction keeps each key's last record and the last claim.
For such a user it would keep the record of a stale writer, and a reader without a folder would take that for the state.
So the worker that takes the partition over writes the states of these users again.

EMPTY: users whose state shows no event, because they were forgotten (stream.core.forgetting). Their state is deleted
once the group has committed what it covers.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any, Final


class Notes:
    """The notes of one kind.

    Args:
        prefix: Of a note's key; the user follows. No user has such a key in any form (stream.core.keys).
    """

    def __init__(self, prefix: bytes) -> None:
        self.prefix = prefix

    def first(self, database: Any, count: int) -> list[bytes]:
        """Return at most the first `count` noted users, in the order of their ids."""
        found: list[bytes] = []
        notes = database.iter()
        notes.seek(self.prefix)
        while len(found) < count and notes.valid() and (key := notes.key()).startswith(self.prefix):
            found.append(key[len(self.prefix) :])
            notes.next()
        notes.status()  # raises if it ended early because of damage
        return found

    def add(self, batch: Any, users: Iterable[bytes]) -> None:
        """Add notes for these users to a WriteBatch."""
        for user in users:
            batch.put(self.prefix + user, b"")

    def remove(self, batch: Any, database: Any, users: Sequence[bytes]) -> None:
        """Delete the notes of these users, if they have one, with a WriteBatch."""
        if not users or not self.first(database, 1):
            return  # the usual case: no need to check each user
        notes = [self.prefix + user for user in users]
        for key, found in zip(notes, database.get(notes), strict=True):
            if found is not None:
                batch.delete(key)


EXPOSED: Final = Notes(b"\xffexposed\0")
EMPTY: Final = Notes(b"\xffempty\0")
