"""The changelog, record by record: checks that each state follows from the one before and the events that it names."""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Sequence
from typing import Protocol

from deploy.clients.log_reader import Log, Record, Span, TopicPartition
from deploy.clients.murmur2 import murmur2
from deploy.verify import control_records
from deploy.verify.changelog_violations import ChangelogViolations
from deploy.verify.fencing import CLAIM, FENCED, FORGED, NOBODYS, UNCLAIMED, Fencing, epoch
from deploy.verify.folded_events import FoldedEvents
from deploy.verify.recent_and_seen import RecentAndSeen
from deploy.verify.recent_events import recents
from deploy.verify.report import Report, Violation
from deploy.verify.source_index import SourceIndex
from deploy.verify.source_partition import NONE, SKIPPED, UNSEEN
from deploy.verify.state_rows import StateRows
from deploy.verify.users import User
from stream.core.errors import StateError
from stream.core.state import Interest, decode


class StateReader(Protocol):
    """Something else that sees every state record in order, such as a local store."""

    def take(self, offset: int, key: bytes, value: bytes | None) -> None:
        """Read one state record of the changelog; None deletes the user's state."""


class Changelog:
    """Follows one partition of the changelog.

    Attributes:
        rows: Every state that was ever durable.
        gone: Whether records were compacted away or deleted.
        hidden: Whether more records lie behind an open transaction of another producer.
        cut: Whether the log does not begin at 0. Whole users may then be gone, which compaction never causes.
        end: The offset after the last record.
        reached: Per topic, the last deleted offset that a state accounts for.
        hiding: Per topic, whether a state may have passed over deleted duplicates.
    """

    def __init__(
        self,
        source_index: SourceIndex,
        topic: str,
        partitions: int,
        report: Report,
        local_stores: Sequence[StateReader] = (),
    ) -> None:
        self._source_index = source_index
        self._topic = topic
        self._partitions = partitions
        self._report = report
        self._local_stores = local_stores
        self._fencing = Fencing(source_index.keys)
        self._violations = ChangelogViolations(source_index, topic, report)
        self._recent_and_seen = RecentAndSeen(source_index, self._violations)
        self.rows = StateRows()
        self._folded_events = FoldedEvents(source_index, self.rows, self._recent_and_seen, self._violations, report)
        self.gone = False
        self.hidden = False
        self.cut = False
        self.end = 0
        self._claims: list[tuple[int, int, int]] = []  # (offset, append time, epoch) of the claims that held
        self.reached = [NONE] * len(source_index.sources)
        self.hiding = [False] * len(source_index.sources)

    def claimed(self, epoch: int) -> bool:
        """Return whether a writer has claimed this epoch. If its claim may be gone or hidden, return True."""
        if self.hidden and epoch > self._fencing.current:
            return True
        return epoch in self._fencing.workers or (self.gone and 0 < epoch <= self._fencing.current)

    def epoch_at(self, offset: int) -> int:
        """Return the epoch that was in force at an offset; 0 if no claim before it was read."""
        at = bisect_left(self._claims, offset, key=lambda claim: claim[0])
        return self._claims[at - 1][2] if at else 0

    def epoch_before(self, time: int) -> int:
        """Return the newest epoch that was claimed before a time (epoch ms, by the brokers' clocks); 0 for none."""
        return max((epoch for _, appended, epoch in self._claims if appended < time), default=0)

    def known_epochs(self) -> list[int]:
        """Return the epochs of all claims that held, rising, after 0 for writers from before the first that was read."""
        return [0, *(epoch for _, _, epoch in self._claims)]

    def claimed_at(self, epoch: int) -> int:
        """Return when an epoch was claimed (epoch ms, by the brokers' clocks); 0 if its claim was not read."""
        return next((appended for _, appended, claimed in self._claims if claimed == epoch), 0)

    def worker_of(self, epoch: int) -> str:
        """Return the name of the worker that has claimed an epoch; "" if its claim was not read."""
        return self._fencing.workers.get(epoch, "")

    def read(self, log: Log, spans: dict[TopicPartition, Span]) -> None:
        """Follow the changelog from its first record to its last."""
        span = spans[self._topic, self._source_index.partition]
        expected = span.start
        self.gone = self.cut = span.start > 0
        self.end = span.end
        for record in log.records(self._topic, spans):
            if record.offset != expected:
                self.gone = True
            expected = record.offset + 1
            if record.key == CLAIM:
                self._report.claims += 1
                before = self._fencing.current
                if wrong := self._fencing.claim(record):
                    self._violations.add(wrong.kind, wrong.message, record, None)
                elif self._fencing.current > before:
                    self._claims.append((record.offset, record.timestamp, self._fencing.current))
                continue
            self._report.states += 1
            self._take(record)
        if expected < span.end:
            self.gone = True
        self._note_exposed()

    def _note_exposed(self) -> None:
        """Note fenced records that are their user's last. They do not harm a reader of the log, but compaction keeps them."""
        for user in self._source_index.users:
            if user.exposed is not None:
                self._report.exposed += 1
                offset, seq = user.exposed
                message = "a fenced state is its user's last one in the changelog"
                position = self._topic, self._source_index.partition, offset
                self._report.note(Violation("exposed", message, user.name, seq, *position))

    def _take(self, record: Record) -> None:
        key, value = record.key, record.value
        if key is None:
            message = "a changelog record that no worker wrote: it has no key, so no user"
            self._violations.add("state", message, record, key)
            return
        if value is None:
            self._delete(record, key)
            return
        verdict = self._fencing.check(record)
        state = self._decoded(record, key, value, verdict)
        if state is None:
            return
        user = self._source_index.user(key)
        if verdict == FENCED:
            self._report.fenced += 1
            user.exposed = record.offset, state.seq
            return
        if verdict == FORGED:
            self._violations.add("claim", "a state has an epoch that no takeover can reach", record, key, state.seq)
            return
        self._check_folded(user, state, record)
        user.exposed = None
        if verdict == UNCLAIMED and not self.gone:
            self._violations.add("claim", "a state has an epoch that nobody claimed", record, key, state.seq)
        for local_store in self._local_stores:
            local_store.take(record.offset, key, value)
        self._note_reached(user, state)
        self._follow(user, state, record)

    def _delete(self, record: Record, key: bytes) -> None:
        """Check a tombstone: its writer must be the one in force, and the user's state must have no event."""
        wrong = ""
        verdict = NOBODYS if not epoch(record) else self._fencing.check(record)
        user = self._source_index.find(key)
        if verdict == FENCED:
            self._report.fenced += 1
            if user is not None:
                user.exposed = record.offset, user.seq
            return
        if verdict in (NOBODYS, FORGED):
            wrong = "a changelog record that no worker wrote: it is a tombstone without a writer"
        elif user is not None and user.seq:
            wrong = f"a tombstone deletes a state of {user.seq} events, which nobody asked to forget"
        if wrong:
            self._violations.add("state", wrong, record, key)
            return
        self._report.deleted += 1
        if user is not None:
            control_records.delete(user)
        for local_store in self._local_stores:
            local_store.take(record.offset, key, None)

    def _decoded(self, record: Record, key: bytes, value: bytes, verdict: str) -> Interest | None:
        """Return the state of a record. If it has no user, the wrong partition or no state, report it and return None."""
        if verdict == NOBODYS:
            message = f"a changelog record that no worker wrote: no user has the key {key!r:.80}"
            self._violations.add("state", message, record, key)
            return None
        if self._source_index.find(key) is None and murmur2(key) % self._partitions != record.partition:
            self._violations.add("state", "a state is on a partition that is not its user's", record, key)
            return None
        try:
            return decode(value)
        except StateError as error:
            self._violations.add("state", str(error), record, key)
            return None

    def _check_folded(self, user: User, state: Interest, record: Record) -> None:
        """Report folded events that no log can have."""
        for topic, offset in state.folded:
            if topic >= len(self._source_index.sources):
                message = f"`folded` names topic {topic}, which does not exist"
                self._violations.add("state", message, record, user.key, state.seq)
            elif offset < 0:
                self._violations.add_phantom(user, topic, offset, state.seq)

    def _note_reached(self, user: User, state: Interest) -> None:
        """Note how far into the deleted part of the sources this state reaches.

        If `applied` steps from there into what is left, it may have passed over duplicates of the same micro-batch, and no
        record shows them. Only a user whose events have ids can have duplicates.
        """
        for topic, source in enumerate(self._source_index.sources):
            begin = source.due[0]
            if user.applied[topic] >= begin:
                continue
            known = [offset for named, offset in state.folded if named == topic and offset < begin]
            if state.applied[topic] < begin:
                known.append(state.applied[topic])
            elif not self.hiding[topic]:
                self.hiding[topic] = any(recent.id for recent in recents(state.recent))
            self.reached[topic] = max(self.reached[topic], *known) if known else self.reached[topic]

    def _follow(self, user: User, state: Interest, record: Record) -> None:
        """Check a state by its user's state before."""
        if count := control_records.split(self._source_index, state.folded):
            if user.row != NONE and self._same(user, state):
                self._report.repeated += 1
                return
            erased, state.folded = state.folded[:count], state.folded[count:]
            if named := control_records.misnamed(self._source_index, user, erased):
                self._violations.add_event(
                    "foreign", "a state names a record that is not its user's", user, *named, state.seq
                )
            for topic, source in enumerate(self._source_index.sources):
                if state.applied[topic] < user.applied[topic]:
                    message = (
                        f"applied of {source.topic} goes back from {user.applied[topic]} to {state.applied[topic]}"
                    )
                    self._violations.add("applied", message, record, user.key, state.seq)
            control_records.erase(self._source_index, user, state, state.folded)
            if not state.folded and not state.seq:
                self._quiet(user, state, record)
                return
        if state.seq == 0 and user.row == NONE and state.applied == user.applied.tolist():
            self._violations.add("state", "no event was applied to this state", record, user.key, state.seq)
        elif state.seq == user.seq and not state.folded:
            self._quiet(user, state, record)
        elif state.seq <= user.seq:
            self._back(user, state, record)
        elif state.seq - user.seq == len(state.folded):
            self._folded_events.follow(user, state, record)
        else:
            self._gap(user, state, record)

    def _quiet(self, user: User, state: Interest, record: Record) -> None:
        """Check a record without a new event."""
        if state.chain != user.chain:
            self._violations.add("fork", "it has another chain for the same seq", record, user.key, state.seq)
            return
        if state.last_time != user.last_time:
            message = f"last_time {state.last_time}, expected {user.last_time}"
            self._violations.add("state", message, record, user.key, state.seq)
        self._folded_events.repeat(user, state, record)

    def _back(self, user: User, state: Interest, record: Record) -> None:
        """Check a record at or before the user's seq. It is a client's retry, or it comes from a stale writer."""
        if self._same(user, state):
            self._report.repeated += 1
            self._recent_and_seen.check(user, state, record)
            return
        known = self.rows.find(user, state.seq)
        if known and self.rows.chain(known[0]) != state.chain:
            self._violations.add("fork", "it has another chain for the same seq", record, user.key, state.seq)
        else:
            self._violations.add("stale", f"seq goes back from {user.seq}", record, user.key, state.seq)

    def _same(self, user: User, state: Interest) -> bool:
        """Return whether a state is the user's last one, written again."""
        return (state.seq, state.chain, state.applied) == (user.seq, user.chain, user.applied.tolist())

    def _gap(self, user: User, state: Interest, record: Record) -> None:
        """Handle missing records before this one. If compaction removed them, they cannot be checked; otherwise they are lost."""
        if self.gone:
            self._folded_events.adopt(user, state, record, UNSEEN)
            return
        missing = state.seq - len(state.folded) - user.seq
        message = f"seq was {user.seq} before, and {missing} events in between are missing"
        self._violations.add("gap", message, record, user.key, state.seq)
        self._folded_events.adopt(user, state, record, SKIPPED)
