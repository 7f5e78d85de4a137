"""Checks the recent events and the seen items of a state against the events that were applied to it."""

from __future__ import annotations

from array import array

from deploy.clients.log_reader import Record
from deploy.verify.changelog_violations import ChangelogViolations
from deploy.verify.recent_events import entry, hashes, recents, split
from deploy.verify.source_index import SourceIndex
from deploy.verify.users import User
from stream.core.state import MAX_RECENT, Interest, Recent


class RecentAndSeen:
    """Checks recent events and seen items, byte for byte."""

    def __init__(self, source_index: SourceIndex, violations: ChangelogViolations) -> None:
        self._source_index = source_index
        self._violations = violations

    def check(self, user: User, state: Interest, record: Record) -> None:
        """Check one state. A mistake is reported once: the next state is compared with this one."""
        found = hashes(state.recent)
        expected = user.entries[-MAX_RECENT:]
        wrong = []
        if state.recent_count != min(state.seq, MAX_RECENT):
            wrong.append(f"{state.recent_count} recent events do not fit its seq")
        elif found != expected:
            if not _readable(state):
                wrong.append("the recent events cannot be read")
            elif not all(map(self._remembers, recents(state.recent), expected)):
                wrong.append("the recent events are not those applied last")
            user.entries = found or expected
        if state.seen != user.seen.tobytes():
            seen = array("I", state.seen)
            wrong.append(f"the {len(seen)} seen items are not those of its events, which are {len(user.seen)}")
            user.seen = seen
        for message in wrong:
            self._violations.add("state", message, record, user.key, state.seq)

    def adopt(self, user: User, state: Interest, record: Record) -> None:
        """Accept recent events and seen items without a check. Report those that cannot be read."""
        user.entries = hashes(state.recent) or array("q")
        user.seen = array("I", state.seen)
        ordered = user.seen.tolist()
        wrong = []
        if not _readable(state):
            wrong.append(f"its {state.recent_count} recent events cannot be read")
        if ordered != sorted(set(ordered)):
            wrong.append("its seen items are not in order")
        for message in wrong:
            self._violations.add("state", message, record, user.key, state.seq)

    def _remembers(self, recent: Recent, expected: int) -> bool:
        """Return whether an event is as it must be, or as an earlier version remembered it.

        Earlier versions wrote an `id` in the form of a position without `id:` before it, and left out the event's action.
        """
        before = recent.behaviour, recent.value, recent.time, recent.item, recent.scene
        found = [hash(entry(*before, given, recent.action)) for given in (recent.id, "id:" + recent.id)]
        return expected in found or (not recent.action and self._source_index.bare.get(expected) in found)


def _readable(state: Interest) -> bool:
    parts = split(state.recent)
    return parts is not None and len(parts) == state.recent_count
