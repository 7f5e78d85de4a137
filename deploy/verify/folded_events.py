"""Follows the events that a state names as folded, and what `applied` was moved over."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from hashlib import blake2b

from deploy.clients.log_reader import Record
from deploy.verify.changelog_violations import ChangelogViolations
from deploy.verify.duplicates import Duplicates
from deploy.verify.recent_and_seen import RecentAndSeen
from deploy.verify.report import Kind, Report
from deploy.verify.source_index import SourceIndex
from deploy.verify.source_partition import (
    ABSENT,
    ACCEPTED,
    APPLIED,
    DUPLICATE,
    INVALID,
    NONE,
    SKIPPED,
    TWICE,
    UNSEEN,
    SourcePartition,
)
from deploy.verify.state_rows import StateRows
from deploy.verify.users import User
from stream.core.state import MAX_RECENT, Interest


@dataclass(slots=True)
class Expected:
    """What a state must hold after its folded events.

    Attributes:
        chain: 16 bytes.
        applied: The last applied offset of each source topic.
        last_time: Epoch ms.
        passed: (topic index, index) of the events that `applied` was moved over.
    """

    chain: bytes
    applied: list[int]
    last_time: int
    passed: list[tuple[int, int]] = field(default_factory=list)


class FoldedEvents:
    """Follows the states of one partition, each from its user's state before.

    Args:
        source_index: The source records of the partition.
        rows: Where to add each state.
        recent_and_seen: Checks the recent events and the seen items.
        violations: Where to report what is wrong.
        report: Where to count.
    """

    def __init__(
        self,
        source_index: SourceIndex,
        rows: StateRows,
        recent_and_seen: RecentAndSeen,
        violations: ChangelogViolations,
        report: Report,
    ) -> None:
        self._source_index = source_index
        self._rows = rows
        self._recent_and_seen = recent_and_seen
        self._violations = violations
        self._report = report
        self._duplicates = Duplicates(source_index)

    def follow(self, user: User, state: Interest, record: Record) -> None:
        """Check a state with new events: check every folded event, and recompute the chain."""
        expected = Expected(user.chain, list(user.applied), user.last_time)
        for seq, (topic, offset) in enumerate(state.folded, user.seq + 1):
            passed = self._fold(user, topic, offset, seq, expected)
            if passed is not None:
                self.adopt(user, state, record, passed, expected.passed)
                return
        if expected.chain != state.chain:
            message = f"chain {state.chain.hex()}, but recomputed {expected.chain.hex()}"
            self._violations.add("chain", message, record, user.key, state.seq)
        if expected.last_time != state.last_time:
            message = f"last_time {state.last_time}, expected {expected.last_time}"
            self._violations.add("state", message, record, user.key, state.seq)
        self._recent_and_seen.check(user, state, record)
        self._check_applied(user, state, expected, record)
        user.trim()
        self._rows.add(user, state, record.offset)

    def repeat(self, user: User, state: Interest, record: Record) -> None:
        """Check a state without a new event: only `applied` may have moved, over duplicates."""
        self._recent_and_seen.check(user, state, record)
        self._check_applied(user, state, Expected(user.chain, list(user.applied), user.last_time), record)
        self._rows.add(user, state, record.offset)

    def adopt(
        self, user: User, state: Interest, record: Record, passed: int, over: Sequence[tuple[int, int]] = ()
    ) -> None:
        """Accept the state without a check.

        Its folded events are then applied, and the user's other events below `applied` get the state `passed`.

        Args:
            user: The user.
            state: The record's state.
            record: The record.
            passed: What became of the events that were passed over.
            over: (topic index, index) of events that were passed over already.
        """
        sources = self._source_index.sources
        for topic, index in over:
            if sources[topic].state[index] == ACCEPTED:
                sources[topic].state[index] = passed
        self._recent_and_seen.adopt(user, state, record)
        user.recent, user.recent_seq = state.recent, state.seq
        # from here on the events are known without a hole again; older ids are in `recent`
        del user.ring[:], user.marks[:]
        for seq, (topic, offset) in enumerate(state.folded, state.seq - len(state.folded) + 1):
            if topic < len(sources):
                self._adopt_event(user, topic, offset - sources[topic].start, seq)
        for topic, source in enumerate(sources):
            while user.at[topic] != NONE and user.at[topic] + source.start <= state.applied[topic]:
                if source.state[user.at[topic]] == ACCEPTED:
                    source.state[user.at[topic]] = passed
                user.at[topic] = source.after[user.at[topic]]
        user.trim()
        self._rows.add(user, state, record.offset)

    def _adopt_event(self, user: User, topic: int, index: int, seq: int) -> None:
        source = self._source_index.sources[topic]
        if not 0 <= index < len(source.state) or source.user[index] != user.number:
            del user.ring[:], user.marks[:]
            return
        if source.state[index] == ACCEPTED:
            source.state[index] = APPLIED
            source.seq[index] = seq
        self._duplicates.remember(user, topic, index)

    def _fold(self, user: User, topic: int, offset: int, seq: int, expected: Expected) -> int | None:
        """Fold one event into `expected`, as event number `seq`.

        Return None, or, if neither the event nor the chain can be checked, what becomes of the events that were passed over.
        """
        if topic >= len(self._source_index.sources) or offset < 0:  # it was reported already
            return SKIPPED
        source = self._source_index.sources[topic]
        index = offset - source.start
        if index < 0:  # the source record was not read
            if source.narrowed:
                self._report.adopted += user.row == NONE
            else:
                self._report.unverifiable += 1
            return UNSEEN
        if not self._foldable(user, topic, index, offset <= expected.applied[topic], seq):
            return SKIPPED
        at = user.at[topic]
        while at != NONE and at < index:
            expected.passed.append((topic, at))
            at = source.after[at]
        user.at[topic] = source.after[index]
        if self._duplicates.was_applied(user, topic, index, seq - 1):
            self._report.double += 1
            source.flags[index] |= TWICE
            message = f"id {source.ids.get(index)!r} is among the last {MAX_RECENT}"
            self._violations.add_event("double", message, user, topic, offset, seq)
        self._apply(user, topic, source, index, seq, expected)
        return None

    def _apply(self, user: User, topic: int, source: SourcePartition, index: int, seq: int, expected: Expected) -> None:
        source.state[index] = APPLIED
        source.seq[index] = seq
        event = source.identity(index) + source.digest[16 * index : 16 * index + 16]
        expected.chain = blake2b(expected.chain + event, digest_size=16).digest()
        expected.last_time = max(expected.last_time, source.time[index])
        expected.applied[topic] = index + source.start
        self._duplicates.remember(user, topic, index)
        user.entries.append(source.entry[index])
        user.see(source.item[index])

    def _foldable(self, user: User, topic: int, index: int, at_fence: bool, seq: int) -> bool:
        """Return whether this event may be folded now. If not, report why."""
        source = self._source_index.sources[topic]
        offset = index + source.start
        kind: Kind
        found = source.state[index] if index < len(source.state) else ABSENT
        if found == ABSENT:
            self._violations.add_phantom(user, topic, offset, seq)
            return False
        if found == INVALID:
            reason = source.reasons.get(index, "")
            kind, message = "invalid-applied", f"an unacceptable record is in a state: {reason}"
        elif source.user[index] != user.number:
            kind, message = "foreign", "a state names an event of another user"
        elif found == APPLIED:
            self._report.double += 1
            kind, message = "double", f"it was applied before, as seq {source.seq[index]}"
        elif at_fence:
            kind, message = "order", "the offsets of one topic go back"
        else:
            return True
        self._violations.add_event(kind, message, user, topic, offset, seq)
        return False

    def _check_applied(self, user: User, state: Interest, expected: Expected, record: Record) -> None:
        """Check that `applied` is the offset of the last folded event, or of a duplicate after it."""
        for topic, source in enumerate(self._source_index.sources):
            while user.at[topic] != NONE and user.at[topic] + source.start <= state.applied[topic]:
                expected.passed.append((topic, user.at[topic]))
                expected.applied[topic] = user.at[topic] + source.start
                user.at[topic] = source.after[user.at[topic]]
            if state.applied[topic] != expected.applied[topic]:
                message = f"applied of {source.topic} is {state.applied[topic]}, expected {expected.applied[topic]}"
                if 0 <= state.applied[topic] < source.start:
                    self._report.unverifiable += not source.narrowed
                else:
                    self._violations.add("applied", message, record, user.key, state.seq)
        for topic, index in expected.passed:
            source = self._source_index.sources[topic]
            if self._duplicates.is_duplicate(user, topic, index, MAX_RECENT + len(state.folded)):
                source.state[index] = DUPLICATE
            elif source.state[index] == ACCEPTED:
                source.state[index] = SKIPPED
