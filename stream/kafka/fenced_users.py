"""Users whose last record in the changelog is fenced, noted in a partition's folder until their state is written again.

Compaction keeps each key's last record and the last claim. Of such a user it would keep what a stale writer left, and a reader
without a folder would take that for the state. Whoever takes the partition over writes the states of these users again. The
notes are written with the offset that they belong to, so that a restart in between forgets none of them.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any, Final

NOTES: Final = b"\xffexposed\0"
"""What the key of a note begins with, before the user. No user has such a key in any form
(stream.core.keys)."""


def first(database: Any, count: int) -> list[bytes]:
    """The first `count` of these users at most, in the order of their ids."""
    found: list[bytes] = []
    notes = database.iter()
    notes.seek(NOTES)
    while len(found) < count and notes.valid() and (key := notes.key()).startswith(NOTES):
        found.append(key[len(NOTES) :])
        notes.next()
    notes.status()  # raises where it ended early, at damage
    return found


def note(batch: Any, users: Iterable[bytes]) -> None:
    """Note users, by a WriteBatch."""
    for user in users:
        batch.put(NOTES + user, b"")


def forget(batch: Any, database: Any, users: Sequence[bytes]) -> None:
    """These users' last record is a good one, or will be by this WriteBatch."""
    if not users or not first(database, 1):
        return  # as nearly always: no look at each user
    notes = [NOTES + user for user in users]
    for key, found in zip(notes, database.get(notes), strict=True):
        if found is not None:
            batch.delete(key)
