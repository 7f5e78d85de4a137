"""Control records, which ask for a user to be forgotten: what they are, and what a state must be after one.

A control record is in a source topic, has the user's key, no value, and the header `freshet-control: forget`. The worker
empties the user's state, with everything that it has applied, and names the control record as the last folded event. Later
events start from zero. Once the group has committed what the empty state covers, a tombstone deletes it.
"""

from __future__ import annotations

from array import array

from deploy.verify.source_index import SourceIndex
from deploy.verify.source_partition import ABSENT, CONTROL, FORGOTTEN, INVALID, NONE, SKIPPED
from deploy.verify.users import User
from stream.core.state import Interest

Folded = list[tuple[int, int]]


def split(source_index: SourceIndex, folded: Folded) -> int:
    """Return how many of the folded events the last control record among them has erased, with itself; 0 for none."""
    for count in range(len(folded), 0, -1):
        topic, offset = folded[count - 1]
        if topic < len(source_index.sources):
            source = source_index.sources[topic]
            index = offset - source.start
            if 0 <= index < len(source.state) and source.flags[index] & CONTROL:
                return count
    return 0


def misnamed(source_index: SourceIndex, user: User, erased: Folded) -> tuple[int, int] | None:
    """Return the first of the erased events that is no acceptable record of this user; None if all are, or are deleted."""
    for topic, offset in erased:
        source = source_index.sources[topic]
        index = offset - source.start
        if index >= 0 and (
            index >= len(source.state) or source.state[index] in (ABSENT, INVALID) or source.user[index] != user.number
        ):
            return topic, offset
    return None


def erase(source_index: SourceIndex, user: User, state: Interest, later: Folded) -> None:
    """Empty a user, and account for all events that the control record has erased.

    Args:
        source_index: The source records of the partition.
        user: The user.
        state: The state that names the control record.
        later: The events that were folded after it.
    """
    for topic, source in enumerate(source_index.sources):
        offsets = [offset for named, offset in later if named == topic]
        last = min(offsets) - 1 if offsets else state.applied[topic]
        at = user.head[topic]
        while at != NONE and at + source.start <= last:
            if source.state[at] != SKIPPED:  # lost, or set aside by the model: it was so before
                source.state[at] = FORGOTTEN
            at = source.after[at]
        user.head[topic] = at
        if user.at[topic] != NONE and user.at[topic] + source.start <= last:
            user.at[topic] = at
        user.applied[topic] = last
    begin_again(user)


def begin_again(user: User) -> None:
    """Let the user's next state start from zero. The states so far stay known for the slates that show them."""
    if user.row != NONE:
        user.lives.append((user.oldest, user.row))
    user.row = user.oldest = user.cursor = NONE
    user.seq, user.chain, user.last_time = 0, bytes(16), -1
    user.recent, user.recent_seq = b"", 0
    del user.ring[:], user.marks[:], user.entries[:], user.seen[:]


def delete(user: User) -> None:
    """Account for a tombstone: the worker knows nothing of the user any more, not even `applied`."""
    begin_again(user)
    user.applied = array("q", (-1, -1, -1))
    user.exposed = None
