"""Finds out whether an event's id is among the last ones that its user's state remembers."""

from __future__ import annotations

from deploy.verify.recent_events import recents
from deploy.verify.source_index import SourceIndex
from deploy.verify.users import User, ring_entry, ring_event
from stream.core.state import MAX_RECENT


class Duplicates:
    """Remembers the ids of each user's last applied events."""

    def __init__(self, source_index: SourceIndex) -> None:
        self._source_index = source_index

    def remember(self, user: User, topic: int, index: int) -> None:
        """Note an event that was applied to the user's state. index: Its index in the source partition."""
        user.ring.append(ring_entry(topic, index))
        user.marks.append(hash(self._source_index.sources[topic].remembered(index)))

    def is_duplicate(self, user: User, topic: int, index: int, last: int) -> bool:
        """Return whether another of the `last` events, applied before this one, has the same `id`."""
        given = self._source_index.sources[topic].remembered(index)
        if not given:
            return False
        if user.recent and given in {recent.id for recent in recents(user.recent)}:
            return True
        return self._in_ring(user, topic, index, last)

    def was_applied(self, user: User, topic: int, index: int, seq: int) -> bool:
        """Return whether one of the last 64 of `seq` applied events has this event's id."""
        return self._in_ring(user, topic, index) or self._was_adopted(user, topic, index, seq)

    def _in_ring(self, user: User, topic: int, index: int, last: int = MAX_RECENT) -> bool:
        """Return whether another of the user's last events has this event's id.

        An event of the same topic counts only if it came before this one.
        """
        given = self._source_index.sources[topic].remembered(index)
        if not given or hash(given) not in user.marks[-last:]:
            return False
        return any(
            self._source_index.same_event((t, i), (topic, index)) and (t != topic or i < index)
            for t, i in map(ring_event, user.ring[-last:])
        )

    def _was_adopted(self, user: User, topic: int, index: int, seq: int) -> bool:
        """Return whether one of the last 64 of `seq` events has this event's id, as the adopted state shows.

        The source record of such an event was not read; only the adopted state has its id.
        """
        given = self._source_index.sources[topic].remembered(index)
        left = MAX_RECENT - (seq - user.recent_seq)
        if not given or not user.recent or left <= 0:
            return False
        return given in {recent.id for recent in recents(user.recent)[-left:]}
