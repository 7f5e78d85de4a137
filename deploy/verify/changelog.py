"""The changelog, record by record: checks that each state follows from the one before and the events that it names."""

from __future__ import annotations

from array import array
from bisect import bisect_left
from collections.abc import Sequence
from hashlib import blake2b
from types import SimpleNamespace
from typing import Protocol

from deploy.clients.log_reader import Log, Place, Record, Span
from deploy.clients.murmur2 import murmur2
from deploy.verify.fencing import CLAIM, FENCED, FORGED, NOBODYS, UNCLAIMED, Fencing
from deploy.verify.report import Kind, Report, Violation
from deploy.verify.source_index import (
    ABSENT,
    ACCEPTED,
    APPLIED,
    DUPLICATE,
    INVALID,
    NONE,
    SKIPPED,
    TWICE,
    UNSEEN,
    SourceIndex,
    User,
    entry,
    ring_entry,
    ring_place,
)
from stream.core.errors import StateError
from stream.core.state import MAX_RECENT, MAX_SEEN, Interest, Recent, decode

_BEFORE_TEXTS = 13  # bytes of a recent event: behaviour, value, time


class StateReader(Protocol):
    """Something else that sees every state record in order, such as a local store."""

    def take(self, offset: int, key: bytes, value: bytes) -> None:
        """Read one state record of the changelog."""


class Changelog:
    """Every state of one partition that was ever durable, by (user, seq).

    A row is one changelog record that counts. It has chain, applied, offset, and `before`, which is seq minus the number of its
    folded events.

    Attributes:
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
        self._keys = source_index.keys
        self._fencing = Fencing(self._keys)
        self._chains = bytearray()
        self._applied = array("q")  # hashes
        self._seqs = array("q")
        self._offsets = array("q")
        self._before = array("q")
        self._earlier = array("i")  # rows of the same user before and after this one
        self._later = array("i")
        self.gone = False
        self.hidden = False
        self.cut = False
        self.end = 0
        self._at = 0  # offset of the record that is being read
        self.reached = [NONE] * len(source_index.sources)
        self.hiding = [False] * len(source_index.sources)

    # for the check of the slates

    def rows(self, user: User, seq: int) -> list[int]:
        """Return the rows of (user, seq), the newest first.

        Slates come in the order of states, so the search goes on from the row that was found last.
        """
        at = user.oldest if user.cursor == NONE else user.cursor
        if at == NONE:
            return []
        while self._seqs[at] > seq and self._earlier[at] != NONE:
            at = self._earlier[at]
        while self._later[at] != NONE and self._seqs[self._later[at]] <= seq:
            at = self._later[at]
        user.cursor = at
        found = []
        while at != NONE and self._seqs[at] == seq:
            found.append(at)
            at = self._earlier[at]
        return found

    def chain(self, row: int) -> bytes:
        return bytes(self._chains[16 * row : 16 * row + 16])

    def has_applied(self, row: int, applied: Sequence[int]) -> bool:
        return self._applied[row] == hash(tuple(applied))

    def offset(self, row: int) -> int:
        """Return the offset of a row in the changelog."""
        return self._offsets[row]

    def before(self, row: int) -> int:
        return self._before[row]

    def claimed(self, epoch: int) -> bool:
        """Return whether a writer has claimed this epoch. If its claim may be gone or hidden, return True."""
        if self.hidden and epoch > self._fencing.current:
            return True
        return epoch in self._fencing.epochs or (self.gone and 0 < epoch <= self._fencing.current)

    # reading

    def read(self, log: Log, spans: dict[Place, Span]) -> None:
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
                if wrong := self._fencing.claim(record):
                    self._blame(wrong.kind, wrong.message, record, None)
                continue
            self._report.states += 1
            self._at = record.offset
            self._take(record)
        if expected < span.end:
            self.gone = True
        self._show_exposed()

    def _show_exposed(self) -> None:
        """Note fenced records that are their user's last. They do not harm a reader of the log, but compaction keeps them."""
        for user in self._source_index.users:
            if user.exposed is not None:
                self._report.exposed += 1
                offset, seq = user.exposed
                message = "a fenced state is its user's last one in the changelog"
                place = self._topic, self._source_index.partition, offset
                self._report.note(Violation("exposed", message, user.name, seq, *place))

    def _take(self, record: Record) -> None:
        key = record.key
        if key is None or record.value is None:
            what = "it has no key, so no user" if key is None else "it is a tombstone, but no worker deletes a state"
            self._blame("state", f"a changelog record that no worker wrote: {what}", record, key)
            return
        found = self._fencing.check(record)
        if found == NOBODYS:
            self._blame(
                "state", f"a changelog record that no worker wrote: no user has the key {key!r:.80}", record, key
            )
            return
        number = self._source_index.find(key)
        if number is None and murmur2(key) % self._partitions != record.partition:
            self._blame("state", "a state is on a partition that is not its user's", record, key)
            return
        try:
            state = decode(record.value)
        except StateError as error:
            self._blame("state", str(error), record, key)
            return
        if number is None:
            number = self._source_index.user_number(key)
        user = self._source_index.users[number]
        if found == FENCED:
            self._report.fenced += 1
            user.exposed = record.offset, state.seq
            return
        if found == FORGED:
            self._blame("claim", "a state has an epoch that no takeover can reach", record, key, state.seq)
            return
        for topic, offset in state.folded:
            if topic >= len(self._source_index.sources):
                self._blame("state", f"`folded` names topic {topic}, which does not exist", record, key, state.seq)
            elif offset < 0:
                self._phantom(user, topic, offset, state.seq)
        user.exposed = None
        if found == UNCLAIMED and not self.gone:
            self._blame("claim", "a state has an epoch that nobody claimed", record, key, state.seq)
        for local_store in self._local_stores:
            local_store.take(record.offset, key, record.value)
        self._reach(user, state)
        if state.seq == 0 and user.row == NONE and state.applied == user.applied.tolist():
            self._blame("state", "no event was applied to this state", record, key, state.seq)
        elif state.seq == user.seq and not state.folded:
            self._quiet(number, user, state, record)
        elif state.seq <= user.seq:
            self._back(number, state, record)
        elif state.seq - user.seq == len(state.folded):
            self._follow(number, user, state, record)
        else:
            self._gap(number, user, state, record)

    def _reach(self, user: User, state: Interest) -> None:
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

    def _quiet(self, number: int, user: User, state: Interest, record: Record) -> None:
        """Check a record without a new event: only `applied` may have moved, over duplicates."""
        if state.chain != user.chain:
            self._blame("fork", "it has another chain for the same seq", record, user.key, state.seq)
            return
        if state.last_time != user.last_time:
            self._blame("state", f"last_time {state.last_time}, expected {user.last_time}", record, user.key, state.seq)
        self._check_memory(user, state, record)
        self._move_applied(user, state, [], list(user.applied), record)
        self._keep(number, user, state)

    def _back(self, number: int, state: Interest, record: Record) -> None:
        """Check a record at or before the user's seq. It is a client's retry, or it comes from a stale writer."""
        user = self._source_index.users[number]
        if state.seq == user.seq and state.chain == user.chain and state.applied == user.applied.tolist():
            self._report.repeated += 1
            self._check_memory(user, state, record)
            return
        known = self.rows(user, state.seq)
        if known and self.chain(known[0]) != state.chain:
            self._blame("fork", "it has another chain for the same seq", record, user.key, state.seq)
        else:
            self._blame("stale", f"seq goes back from {user.seq}", record, user.key, state.seq)

    def _gap(self, number: int, user: User, state: Interest, record: Record) -> None:
        """Handle missing records before this one. If compaction removed them, they cannot be judged; otherwise they are lost."""
        missing = state.seq - len(state.folded) - user.seq
        if self.gone:
            self._adopt(number, user, state, UNSEEN)
            return
        self._blame(
            "gap",
            f"seq was {user.seq} before, and {missing} events in between are missing",
            record,
            user.key,
            state.seq,
        )
        self._adopt(number, user, state, SKIPPED)

    def _adopt(
        self, number: int, user: User, state: Interest, passed: int, over: Sequence[tuple[int, int]] = ()
    ) -> None:
        """Accept the record without a check.

        Its folded events are then applied, and the user's other events below `applied` get the state `passed`.

        Args:
            number: Index of the user.
            user: The user.
            state: The record's state.
            passed: What became of the events that were passed over.
            over: (topic index, index) of events that were passed over already.
        """
        for topic, index in over:
            if self._source_index.sources[topic].state[index] == ACCEPTED:
                self._source_index.sources[topic].state[index] = passed
        before = state.seq - len(state.folded)
        self._learn(user, state)
        user.recent, user.recent_seq = state.recent, state.seq
        del (
            user.ring[:],
            user.marks[:],
        )  # from here on the events are known without a hole again; older ids are in `recent`
        for place, (topic, offset) in enumerate(state.folded):
            if topic >= len(self._source_index.sources):
                continue
            source = self._source_index.sources[topic]
            index = offset - source.start
            if not 0 <= index < len(source.state) or source.user[index] != number:
                del user.ring[:], user.marks[:]
                continue
            if source.state[index] == ACCEPTED:
                source.state[index] = APPLIED
                source.seq[index] = before + place + 1
            self._remember(user, topic, index)
        for topic, source in enumerate(self._source_index.sources):
            while user.at[topic] != NONE and user.at[topic] + source.start <= state.applied[topic]:
                if source.state[user.at[topic]] == ACCEPTED:
                    source.state[user.at[topic]] = passed
                user.at[topic] = source.after[user.at[topic]]
        _trim(user)
        self._keep(number, user, state)

    def _follow(self, number: int, user: User, state: Interest, record: Record) -> None:
        """Check an ordinary record: check every folded event, and recompute the chain."""
        chain = user.chain
        applied = list(user.applied)
        last_time = user.last_time
        passed: list[tuple[int, int]] = []
        seq = user.seq
        for topic, offset in state.folded:
            seq += 1
            if topic >= len(self._source_index.sources) or offset < 0:  # it was reported already
                self._adopt(number, user, state, SKIPPED, passed)
                return
            source = self._source_index.sources[topic]
            index = offset - source.start
            if index < 0:  # the source record was not read: neither it nor the chain can be judged
                if source.narrowed:
                    self._report.adopted += user.row == NONE
                else:
                    self._report.unverifiable += 1
                self._adopt(number, user, state, UNSEEN, passed)
                return
            if not self._foldable(number, topic, index, offset <= applied[topic], seq):
                self._adopt(number, user, state, SKIPPED, passed)
                return
            at = user.at[topic]
            while at != NONE and at < index:
                passed.append((topic, at))
                at = source.after[at]
            user.at[topic] = source.after[index]
            if self._in_ring(user, topic, index) or self._was_adopted(user, topic, index, seq - 1):
                self._report.double += 1
                source.flags[index] |= TWICE
                self._accuse(
                    "double", f"id {source.ids.get(index)!r} is among the last {MAX_RECENT}", user, topic, offset, seq
                )
            source.state[index] = APPLIED
            source.seq[index] = seq
            chain = blake2b(
                chain + source.identity(index) + source.digest[16 * index : 16 * index + 16], digest_size=16
            ).digest()
            last_time = max(last_time, source.time[index])
            applied[topic] = offset
            self._remember(user, topic, index)
            user.entries.append(source.entry[index])
            _see(user.seen, source.item[index])
        if chain != state.chain:
            self._blame(
                "chain", f"chain {state.chain.hex()}, but recomputed {chain.hex()}", record, user.key, state.seq
            )
        if last_time != state.last_time:
            self._blame("state", f"last_time {state.last_time}, expected {last_time}", record, user.key, state.seq)
        self._check_memory(user, state, record)
        self._move_applied(user, state, passed, applied, record)
        _trim(user)
        self._keep(number, user, state)

    def _phantom(self, user: User, topic: int, offset: int, seq: int) -> None:
        self._accuse("phantom", "a state names a record that does not exist", user, topic, offset, seq)

    def _foldable(self, number: int, topic: int, index: int, at_fence: bool, seq: int) -> bool:
        """Return whether this event may be folded now. If not, report why."""
        user = self._source_index.users[number]
        source = self._source_index.sources[topic]
        offset = index + source.start
        found = source.state[index] if index < len(source.state) else ABSENT
        if found == ABSENT:
            self._phantom(user, topic, offset, seq)
        elif found == INVALID:
            why = source.reasons.get(index, "")
            self._accuse("invalid-applied", f"an unacceptable record is in a state: {why}", user, topic, offset, seq)
        elif source.user[index] != number:
            self._accuse("foreign", "a state names an event of another user", user, topic, offset, seq)
        elif found == APPLIED:
            self._report.double += 1
            self._accuse("double", f"it was applied before, as seq {source.seq[index]}", user, topic, offset, seq)
        elif at_fence:
            self._accuse("order", "the offsets of one topic go back", user, topic, offset, seq)
        else:
            return True
        return False

    def _check_memory(self, user: User, state: Interest, record: Record) -> None:
        """Check recent events and seen items, byte for byte, against the events that were applied.

        A mistake is reported once: the next state is compared with this one.
        """
        found = hashes(state.recent)
        expected = user.entries[-MAX_RECENT:]
        if state.recent_count != min(state.seq, MAX_RECENT):
            self._blame("state", f"{state.recent_count} recent events do not fit its seq", record, user.key, state.seq)
        elif found != expected:
            parts = split(state.recent)
            if parts is None or len(parts) != state.recent_count:
                self._blame("state", "the recent events cannot be read", record, user.key, state.seq)
            elif not all(map(self._remembers, recents(state.recent), expected)):
                self._blame("state", "the recent events are not those applied last", record, user.key, state.seq)
            user.entries = found or expected
        if state.seen != user.seen.tobytes():
            seen = array("I", state.seen)
            message = f"the {len(seen)} seen items are not those of its events, which are {len(user.seen)}"
            self._blame("state", message, record, user.key, state.seq)
            user.seen = seen

    def _remembers(self, recent: Recent, expected: int) -> bool:
        """Return whether an event is as it must be, or as an earlier version remembered it.

        Earlier versions wrote an `id` in the form of a place without `id:` before it, and left out the event's action.
        """
        before = recent.behaviour, recent.value, recent.time, recent.item, recent.scene
        found = [hash(entry(*before, given, recent.action)) for given in (recent.id, "id:" + recent.id)]
        return expected in found or (not recent.action and self._source_index.bare.get(expected) in found)

    def _learn(self, user: User, state: Interest) -> None:
        """Accept recent events and seen items without a check. Report those that cannot be read."""
        user.entries = hashes(state.recent) or array("q")
        user.seen = array("I", state.seen)
        parts = split(state.recent)
        ordered = user.seen.tolist()
        wrong = []
        if parts is None or len(parts) != state.recent_count:
            wrong.append(f"its {state.recent_count} recent events cannot be read")
        if ordered != sorted(set(ordered)):
            wrong.append("its seen items are not in order")
        for message in wrong:
            place = self._topic, self._source_index.partition, self._at
            self._report.add(Violation("state", message, user.name, state.seq, *place))

    def _move_applied(
        self, user: User, state: Interest, passed: list[tuple[int, int]], applied: list[int], record: Record
    ) -> None:
        """Check that `applied` is the offset of the last folded event, or of a duplicate after it.

        Args:
            user: The user.
            state: The record's state.
            passed: (topic index, index) of events that were passed over; more are added.
            applied: The offsets as the folded events leave them.
            record: The record.
        """
        for topic, source in enumerate(self._source_index.sources):
            while user.at[topic] != NONE and user.at[topic] + source.start <= state.applied[topic]:
                passed.append((topic, user.at[topic]))
                applied[topic] = user.at[topic] + source.start
                user.at[topic] = source.after[user.at[topic]]
            if state.applied[topic] != applied[topic]:
                message = f"applied of {source.topic} is {state.applied[topic]}, expected {applied[topic]}"
                if 0 <= state.applied[topic] < source.start:
                    self._report.unverifiable += not source.narrowed
                else:
                    self._blame("applied", message, record, user.key, state.seq)
        for topic, index in passed:
            source = self._source_index.sources[topic]
            if self._is_duplicate(user, topic, index, MAX_RECENT + len(state.folded)):
                source.state[index] = DUPLICATE
            elif source.state[index] == ACCEPTED:
                source.state[index] = SKIPPED

    def _is_duplicate(self, user: User, topic: int, index: int, last: int) -> bool:
        """Return whether another of the `last` events, applied before this one, has the same `id`."""
        given = self._source_index.sources[topic].remembered(index)
        if not given:
            return False
        if user.recent and given in {recent.id for recent in recents(user.recent)}:
            return True
        return self._in_ring(user, topic, index, last)

    def _in_ring(self, user: User, topic: int, index: int, last: int = MAX_RECENT) -> bool:
        """Return whether another of the user's last events has this event's id.

        An event of the same topic counts only if it came before this one.
        """
        given = self._source_index.sources[topic].remembered(index)
        if not given or hash(given) not in user.marks[-last:]:
            return False
        return any(
            self._source_index.same_event((t, i), (topic, index)) and (t != topic or i < index)
            for t, i in map(ring_place, user.ring[-last:])
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

    def _remember(self, user: User, topic: int, index: int) -> None:
        user.ring.append(ring_entry(topic, index))
        user.marks.append(hash(self._source_index.sources[topic].remembered(index)))

    def _keep(self, number: int, user: User, state: Interest) -> None:
        row = len(self._seqs)
        if user.row == NONE:
            user.oldest = row
        else:
            self._later[user.row] = row
        self._chains += state.chain
        self._applied.append(hash(tuple(state.applied)))
        self._seqs.append(state.seq)
        self._offsets.append(self._at)
        self._before.append(state.seq - len(state.folded))
        self._earlier.append(user.row)
        self._later.append(NONE)
        user.seq = state.seq
        user.chain = state.chain
        user.applied = array("q", state.applied)
        user.last_time = state.last_time
        user.row = row

    def _blame(self, kind: Kind, message: str, record: Record, key: bytes | None, seq: int = -1) -> None:
        name = self._keys.name(key)
        self._report.add(Violation(kind, message, name, seq, self._topic, record.partition, record.offset))

    def _accuse(self, kind: Kind, message: str, user: User, topic: int, offset: int, seq: int) -> None:
        place = self._source_index.topics[topic]
        self._report.add(Violation(kind, message, user.name, seq, place, self._source_index.partition, offset))


def _trim(user: User) -> None:
    """Keep what the states remember, and a little more: trimming every time would cost more than it saves."""
    if len(user.ring) >= MAX_RECENT:
        user.recent = b""
    if len(user.entries) > 2 * MAX_RECENT:
        del user.entries[:-MAX_RECENT]
    if len(user.ring) > 2 * MAX_RECENT:
        del user.ring[:-MAX_RECENT], user.marks[:-MAX_RECENT]


def recents(raw: bytes) -> list[Recent]:
    """Return a state's recent events; none if they cannot be read."""
    try:
        return list(Interest.recents(SimpleNamespace(recent=raw)))  # type: ignore[arg-type]
    except StateError:
        return []


def hashes(raw: bytes) -> array[int] | None:
    """Return a hash of each of a state's recent events, without its length; None if the lengths lead beyond the end. Cheap."""
    found = array("q")
    at, size = 0, len(raw)
    while at + 1 < size:
        end = at + 2 + raw[at] + 256 * raw[at + 1]
        found.append(hash(raw[at + 2 : end]))
        at = end
    return found if at == size else None


def _see(seen: array[int], item: int) -> None:
    """Insert one item in order. If the array is full, insert nothing."""
    at = bisect_left(seen, item)
    if len(seen) < MAX_SEEN and (at == len(seen) or seen[at] != item):
        seen.insert(at, item)


def split(raw: bytes) -> list[bytes] | None:
    """Return a state's recent events, each as its bytes after the length; None if one is malformed.

    A well-formed event has one of three behaviours, three texts in UTF-8, and perhaps an action. Together they fill the length.
    """
    found = []
    at = 0
    while at < len(raw):
        end = at + 2 + int.from_bytes(raw[at : at + 2], "little")
        if end > len(raw) or not _formed(raw, at + 2, end):
            return None
        found.append(raw[at + 2 : end])
        at = end
    return found


def _formed(raw: bytes, at: int, end: int) -> bool:
    if at >= end or raw[at] > 2:
        return False
    at += _BEFORE_TEXTS
    for number in range(4):
        start = at + 2
        at = start + int.from_bytes(raw[at:start], "little")
        if at > end or (number == 3 and at == start):  # an event without an action has no text for it
            return False
        try:
            raw[start:at].decode()
        except UnicodeDecodeError:
            return False
        if number >= 2 and at == end:
            return True
    return False
