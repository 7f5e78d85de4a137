"""Users whose last record in the changelog is fenced, noted in a partition's folder until their state is written again.

Compaction keeps each key's last record and the last claim. For such a user it would keep the record of a stale writer,
and a reader without a folder would take that for the state. So the worker that takes the partition over writes the
states of these users again. The notes are written together with the offset that they belong to, so a restart in between
loses none.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any, Final

NOTES: Final = b"\xffexposed\0"
"""Prefix of a note's key; the user follows. No user has such a key in any form (stream.core.keys)."""


def first(database: Any, count: int) -> list[bytes]:
    """Return at most the first `count` of these users, in the order of their ids."""
    found: list[bytes] = []
    notes = database.iter()
    notes.seek(NOTES)
    while len(found) < count and notes.valid() and (key := notes.key()).startswith(NOTES):
        found.append(key[len(NOTES) :])
        notes.next()
    notes.status()  # raises if it ended early because of damage
    return found


def note(batch: Any, users: Iterable[bytes]) -> None:
    """Add notes for these users to a WriteBatch."""
    for user in users:
        batch.put(NOTES + user, b"")


def forget(batch: Any, database: Any, users: Sequence[bytes]) -> None:
    """Delete the notes of users whose last record is valid, or will be once this WriteBatch is written."""
    if not users or not first(database, 1):
        return  # the usual case: no need to check each user
    notes = [NOTES + user for user in users]
    for key, found in zip(notes, database.get(notes), strict=True):
        if found is not None:
            batch.delete(key)
