"""The changelog, record by record: does each state follow from the one before and the events that it names?"""

from __future__ import annotations

from array import array
from bisect import bisect_left
from collections.abc import Sequence
from hashlib import blake2b
from types import SimpleNamespace
from typing import Protocol

from deploy.clients.log_reader import Log, Place, Record, Span
from deploy.clients.murmur2 import murmur2
from deploy.verify.fencing import CLAIM, FENCED, FORGED, NOBODYS, UNCLAIMED, Writers
from deploy.verify.report import Report, Violation
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
    Ledger,
    User,
    entry,
    ring_entry,
    ring_place,
)
from stream.core.errors import StateError
from stream.core.state import MAX_RECENT, MAX_SEEN, Interest, Recent, decode

_BEFORE_TEXTS = 13  # bytes of a recent event: behaviour, value, time


class StateReader(Protocol):
    """Whoever else is shown every state record in order, such as a local store."""

    def take(self, offset: int, key: bytes, value: bytes) -> None:
        """One state record of the changelog."""


class History:
    """Every state of one partition that was ever durable, by (user, seq).

    A row is one changelog record that stands: chain, fence, offset, and `before` = seq less the number of its folded events.
    """

    def __init__(
        self, ledger: Ledger, topic: str, partitions: int, report: Report, disks: Sequence[StateReader] = ()
    ) -> None:
        self._ledger = ledger
        self._topic = topic
        self._partitions = partitions
        self._report = report
        self._disks = disks
        self._keys = ledger.keys
        self._writers = Writers(self._keys)
        self._chains = bytearray()
        self._fences = array("q")  # hashes
        self._seqs = array("q")
        self._offsets = array("q")
        self._before = array("q")
        self._earlier = array("i")  # the same user's row before and after this one
        self._later = array("i")
        self.gone = False  # records were compacted away or deleted
        self.hidden = False  # there are more, behind an open transaction of somebody else
        self.cut = False  # the log does not begin at 0: whole users may be gone, which compaction never does
        self.end = 0
        self._at = 0  # offset of the record under way
        self.reached = [NONE] * len(ledger.shelves)  # by topic: the last deleted offset that a state accounts for
        self.hiding = [False] * len(ledger.shelves)  # a state may have passed over deleted duplicates

    # what the slates are checked against

    def rows(self, user: User, seq: int) -> list[int]:
        """Rows of (user, seq), the newest first. Slates come in the order of states, so the way from the last row is short."""
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

    def has_fence(self, row: int, fence: Sequence[int]) -> bool:
        return self._fences[row] == hash(tuple(fence))

    def offset(self, row: int) -> int:
        """Where in the changelog it stands."""
        return self._offsets[row]

    def before(self, row: int) -> int:
        return self._before[row]

    def claimed(self, epoch: int) -> bool:
        """A writer has claimed this epoch, as far as the claims are in sight."""
        if self.hidden and epoch > self._writers.current:
            return True
        return epoch in self._writers.epochs or (self.gone and 0 < epoch <= self._writers.current)

    # reading

    def read(self, log: Log, spans: dict[Place, Span]) -> None:
        """Follow the changelog from its first record to its last."""
        span = spans[self._topic, self._ledger.partition]
        expected = span.start
        self.gone = self.cut = span.start > 0
        self.end = span.end
        for record in log.records(self._topic, spans):
            if record.offset != expected:
                self.gone = True
            expected = record.offset + 1
            if record.key == CLAIM:
                self._report.claims += 1
                if wrong := self._writers.claim(record):
                    self._blame(wrong.kind, wrong.message, record, None)
                continue
            self._report.states += 1
            self._at = record.offset
            self._take(record)
        if expected < span.end:
            self.gone = True
        self._show_exposed()

    def _show_exposed(self) -> None:
        """Fenced records that are their user's last: harmless to a reader of the log, but compaction would keep them."""
        for user in self._ledger.users:
            if user.exposed is not None:
                self._report.exposed += 1
                offset, seq = user.exposed
                message = "a fenced state is the last one of its user in the changelog"
                place = self._topic, self._ledger.partition, offset
                self._report.note(Violation("exposed", message, user.name, seq, *place))

    def _take(self, record: Record) -> None:
        key = record.key
        if key is None or record.value is None:
            what = "without a key, so of no user" if key is None else "a tombstone, and a worker deletes no state"
            self._blame("state", f"a changelog record that no worker wrote: {what}", record, key)
            return
        found = self._writers.judge(record)
        if found == NOBODYS:
            self._blame(
                "state", f"a changelog record that no worker wrote: no user has the key {key!r:.80}", record, key
            )
            return
        number = self._ledger.find(key)
        if number is None and murmur2(key) % self._partitions != record.partition:
            self._blame("state", "a state on a partition that is not its user's", record, key)
            return
        try:
            state = decode(record.value)
        except StateError as error:
            self._blame("state", str(error), record, key)
            return
        if number is None:
            number = self._ledger.user_number(key)
        user = self._ledger.users[number]
        if found == FENCED:
            self._report.fenced += 1
            user.exposed = record.offset, state.seq
            return
        if found == FORGED:
            self._blame("claim", "a state of an epoch that no takeover comes to", record, key, state.seq)
            return
        for topic, offset in state.folded:
            if topic >= len(self._ledger.shelves):
                self._blame("state", f"folded names topic {topic}", record, key, state.seq)
            elif offset < 0:
                self._phantom(user, topic, offset, state.seq)
        user.exposed = None
        if found == UNCLAIMED and not self.gone:
            self._blame("claim", "a state of an epoch that nobody claimed", record, key, state.seq)
        for disk in self._disks:
            disk.take(record.offset, key, record.value)
        self._reach(user, state)
        if state.seq == 0 and user.row == NONE and state.fence == user.fence.tolist():
            self._blame("state", "a state that took in nothing", record, key, state.seq)
        elif state.seq == user.seq and not state.folded:
            self._quiet(number, user, state, record)
        elif state.seq <= user.seq:
            self._back(number, state, record)
        elif state.seq - user.seq == len(state.folded):
            self._follow(number, user, state, record)
        else:
            self._gap(number, user, state, record)

    def _reach(self, user: User, state: Interest) -> None:
        """How far into the deleted part of the sources this state reaches.

        A fence that steps from there into what is left may have passed over duplicates of the same micro-batch, of which
        nothing tells; only a user who had ids can have any.
        """
        for topic, shelf in enumerate(self._ledger.shelves):
            begin = shelf.due[0]
            if user.fence[topic] >= begin:
                continue
            known = [offset for named, offset in state.folded if named == topic and offset < begin]
            if state.fence[topic] < begin:
                known.append(state.fence[topic])
            elif not self.hiding[topic]:
                self.hiding[topic] = any(recent.id for recent in recents(state.recent))
            self.reached[topic] = max(self.reached[topic], *known) if known else self.reached[topic]

    def _quiet(self, number: int, user: User, state: Interest, record: Record) -> None:
        """No new event: only the fence may have moved, over duplicates."""
        if state.chain != user.chain:
            self._blame("fork", "another chain for the same seq", record, user.key, state.seq)
            return
        if state.last_time != user.last_time:
            self._blame("state", f"last_time {state.last_time}, expected {user.last_time}", record, user.key, state.seq)
        self._check_memory(user, state, record)
        self._move_fence(user, state, [], list(user.fence), record)
        self._keep(number, user, state)

    def _back(self, number: int, state: Interest, record: Record) -> None:
        """A record at or before the user's seq: a client's retry at best, else a stale writer."""
        user = self._ledger.users[number]
        if state.seq == user.seq and state.chain == user.chain and state.fence == user.fence.tolist():
            self._report.repeated += 1
            self._check_memory(user, state, record)
            return
        known = self.rows(user, state.seq)
        if known and self.chain(known[0]) != state.chain:
            self._blame("fork", "another chain for the same seq", record, user.key, state.seq)
        else:
            self._blame("stale", f"seq goes back from {user.seq}", record, user.key, state.seq)

    def _gap(self, number: int, user: User, state: Interest, record: Record) -> None:
        """Records between are missing: by compaction, which cannot be judged, or lost."""
        missing = state.seq - len(state.folded) - user.seq
        if self.gone:
            self._adopt(number, user, state, UNSEEN)
            return
        self._blame("gap", f"seq goes on from {user.seq}, {missing} events are nowhere", record, user.key, state.seq)
        self._adopt(number, user, state, SKIPPED)

    def _adopt(
        self, number: int, user: User, state: Interest, passed: int, over: Sequence[tuple[int, int]] = ()
    ) -> None:
        """Take the record as it stands, its folded events as applied, and the user's others below the fence as `passed`; over:
        those of them that were stepped over already."""
        for topic, index in over:
            if self._ledger.shelves[topic].state[index] == ACCEPTED:
                self._ledger.shelves[topic].state[index] = passed
        before = state.seq - len(state.folded)
        self._learn(user, state)
        user.recent, user.recent_seq = state.recent, state.seq
        del (
            user.ring[:],
            user.marks[:],
        )  # from here on it knows the events without a hole again, older ids are in `recent`
        for place, (topic, offset) in enumerate(state.folded):
            if topic >= len(self._ledger.shelves):
                continue
            shelf = self._ledger.shelves[topic]
            index = offset - shelf.start
            if not 0 <= index < len(shelf.state) or shelf.user[index] != number:
                del user.ring[:], user.marks[:]
                continue
            if shelf.state[index] == ACCEPTED:
                shelf.state[index] = APPLIED
                shelf.seq[index] = before + place + 1
            self._remember(user, topic, index)
        for topic, shelf in enumerate(self._ledger.shelves):
            while user.at[topic] != NONE and user.at[topic] + shelf.start <= state.fence[topic]:
                if shelf.state[user.at[topic]] == ACCEPTED:
                    shelf.state[user.at[topic]] = passed
                user.at[topic] = shelf.after[user.at[topic]]
        _trim(user)
        self._keep(number, user, state)

    def _follow(self, number: int, user: User, state: Interest, record: Record) -> None:
        """The ordinary record: every folded event is checked, the chain is recomputed."""
        chain = user.chain
        fence = list(user.fence)
        last_time = user.last_time
        passed: list[tuple[int, int]] = []
        seq = user.seq
        for topic, offset in state.folded:
            seq += 1
            if topic >= len(self._ledger.shelves) or offset < 0:  # blamed
                self._adopt(number, user, state, SKIPPED, passed)
                return
            shelf = self._ledger.shelves[topic]
            index = offset - shelf.start
            if index < 0:  # the source record is not in sight: neither it nor the chain can be judged
                if shelf.narrowed:
                    self._report.adopted += user.row == NONE
                else:
                    self._report.unverifiable += 1
                self._adopt(number, user, state, UNSEEN, passed)
                return
            if not self._foldable(number, topic, index, offset <= fence[topic], seq):
                self._adopt(number, user, state, SKIPPED, passed)
                return
            at = user.at[topic]
            while at != NONE and at < index:
                passed.append((topic, at))
                at = shelf.after[at]
            user.at[topic] = shelf.after[index]
            if self._in_ring(user, topic, index) or self._was_adopted(user, topic, index, seq - 1):
                self._report.double += 1
                shelf.flags[index] |= TWICE
                self._accuse(
                    "double", f"id {shelf.ids.get(index)!r} is among the last {MAX_RECENT}", user, topic, offset, seq
                )
            shelf.state[index] = APPLIED
            shelf.seq[index] = seq
            chain = blake2b(
                chain + shelf.identity(index) + shelf.digest[16 * index : 16 * index + 16], digest_size=16
            ).digest()
            last_time = max(last_time, shelf.time[index])
            fence[topic] = offset
            self._remember(user, topic, index)
            user.entries.append(shelf.entry[index])
            _see(user.seen, shelf.item[index])
        if chain != state.chain:
            self._blame("chain", f"chain {state.chain.hex()}, recomputed {chain.hex()}", record, user.key, state.seq)
        if last_time != state.last_time:
            self._blame("state", f"last_time {state.last_time}, expected {last_time}", record, user.key, state.seq)
        self._check_memory(user, state, record)
        self._move_fence(user, state, passed, fence, record)
        _trim(user)
        self._keep(number, user, state)

    def _phantom(self, user: User, topic: int, offset: int, seq: int) -> None:
        self._accuse("phantom", "a state names a record that does not exist", user, topic, offset, seq)

    def _foldable(self, number: int, topic: int, index: int, at_fence: bool, seq: int) -> bool:
        """May this event be folded now? Blames and says no otherwise."""
        user = self._ledger.users[number]
        shelf = self._ledger.shelves[topic]
        offset = index + shelf.start
        found = shelf.state[index] if index < len(shelf.state) else ABSENT
        if found == ABSENT:
            self._phantom(user, topic, offset, seq)
        elif found == INVALID:
            why = shelf.reasons.get(index, "")
            self._accuse("invalid-applied", f"an unacceptable record is in a state: {why}", user, topic, offset, seq)
        elif shelf.user[index] != number:
            self._accuse("foreign", "a state names an event of another user", user, topic, offset, seq)
        elif found == APPLIED:
            self._report.double += 1
            self._accuse("double", f"applied before, as seq {shelf.seq[index]}", user, topic, offset, seq)
        elif at_fence:
            self._accuse("order", "offsets of one topic go back", user, topic, offset, seq)
        else:
            return True
        return False

    def _check_memory(self, user: User, state: Interest, record: Record) -> None:
        """Recent events and seen items, byte for byte, against those that were applied. What is wrong is blamed once: the next
        state is held to this one."""
        found = hashes(state.recent)
        expected = user.entries[-MAX_RECENT:]
        if state.recent_count != min(state.seq, MAX_RECENT):
            self._blame("state", f"{state.recent_count} recent events", record, user.key, state.seq)
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
        """An event as it must be, or as an earlier version remembered it: an `id` in the form of a place without `id:` before it,
        or no action where the event has one."""
        before = recent.behaviour, recent.value, recent.time, recent.item, recent.scene
        found = [hash(entry(*before, given, recent.action)) for given in (recent.id, "id:" + recent.id)]
        return expected in found or (not recent.action and self._ledger.bare.get(expected) in found)

    def _learn(self, user: User, state: Interest) -> None:
        """Take recent events and seen items as they stand, if they can be read at all."""
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
            place = self._topic, self._ledger.partition, self._at
            self._report.add(Violation("state", message, user.name, state.seq, *place))

    def _move_fence(
        self, user: User, state: Interest, passed: list[tuple[int, int]], fence: list[int], record: Record
    ) -> None:
        """The fence stands at the last event folded, or behind duplicates. fence: as the folded events leave it."""
        for topic, shelf in enumerate(self._ledger.shelves):
            while user.at[topic] != NONE and user.at[topic] + shelf.start <= state.fence[topic]:
                passed.append((topic, user.at[topic]))
                fence[topic] = user.at[topic] + shelf.start
                user.at[topic] = shelf.after[user.at[topic]]
            if state.fence[topic] != fence[topic]:
                message = f"fence of {shelf.topic} is {state.fence[topic]}, expected {fence[topic]}"
                if 0 <= state.fence[topic] < shelf.start:
                    self._report.unverifiable += not shelf.narrowed
                else:
                    self._blame("fence", message, record, user.key, state.seq)
        for topic, index in passed:
            shelf = self._ledger.shelves[topic]
            if self._is_duplicate(user, topic, index, MAX_RECENT + len(state.folded)):
                shelf.state[index] = DUPLICATE
            elif shelf.state[index] == ACCEPTED:
                shelf.state[index] = SKIPPED

    def _is_duplicate(self, user: User, topic: int, index: int, last: int) -> bool:
        """Its `id` was given to another of the `last` events, applied before it."""
        given = self._ledger.shelves[topic].remembered(index)
        if not given:
            return False
        if user.recent and given in {recent.id for recent in recents(user.recent)}:
            return True
        return self._in_ring(user, topic, index, last)

    def _in_ring(self, user: User, topic: int, index: int, last: int = MAX_RECENT) -> bool:
        """Another of the user's last events has this one's id; of one topic, one that came before it."""
        given = self._ledger.shelves[topic].remembered(index)
        if not given or hash(given) not in user.marks[-last:]:
            return False
        return any(
            self._ledger.same_event((t, i), (topic, index)) and (t != topic or i < index)
            for t, i in map(ring_place, user.ring[-last:])
        )

    def _was_adopted(self, user: User, topic: int, index: int, seq: int) -> bool:
        """Its id was given to one of the last 64 of `seq` events, out of sight: only the state that was adopted tells of it."""
        given = self._ledger.shelves[topic].remembered(index)
        left = MAX_RECENT - (seq - user.recent_seq)
        if not given or not user.recent or left <= 0:
            return False
        return given in {recent.id for recent in recents(user.recent)[-left:]}

    def _remember(self, user: User, topic: int, index: int) -> None:
        user.ring.append(ring_entry(topic, index))
        user.marks.append(hash(self._ledger.shelves[topic].remembered(index)))

    def _keep(self, number: int, user: User, state: Interest) -> None:
        row = len(self._seqs)
        if user.row == NONE:
            user.oldest = row
        else:
            self._later[user.row] = row
        self._chains += state.chain
        self._fences.append(hash(tuple(state.fence)))
        self._seqs.append(state.seq)
        self._offsets.append(self._at)
        self._before.append(state.seq - len(state.folded))
        self._earlier.append(user.row)
        self._later.append(NONE)
        user.seq = state.seq
        user.chain = state.chain
        user.fence = array("q", state.fence)
        user.last_time = state.last_time
        user.row = row

    def _blame(self, kind: str, message: str, record: Record, key: bytes | None, seq: int = -1) -> None:
        name = self._keys.name(key)
        self._report.add(Violation(kind, message, name, seq, self._topic, record.partition, record.offset))

    def _accuse(self, kind: str, message: str, user: User, topic: int, offset: int, seq: int) -> None:
        place = self._ledger.topics[topic]
        self._report.add(Violation(kind, message, user.name, seq, place, self._ledger.partition, offset))


def _trim(user: User) -> None:
    """Keep what the states remember, and a little more: cutting it every time would cost more than it saves."""
    if len(user.ring) >= MAX_RECENT:
        user.recent = b""
    if len(user.entries) > 2 * MAX_RECENT:
        del user.entries[:-MAX_RECENT]
    if len(user.ring) > 2 * MAX_RECENT:
        del user.ring[:-MAX_RECENT], user.marks[:-MAX_RECENT]


def recents(raw: bytes) -> list[Recent]:
    """A state's recent events; none where they cannot be read."""
    try:
        return list(Interest.recents(SimpleNamespace(recent=raw)))  # type: ignore[arg-type]
    except StateError:
        return []


def hashes(raw: bytes) -> array[int] | None:
    """Of each of a state's recent events, without its length; None where the lengths lead beyond the end. Cheap."""
    found = array("q")
    at, size = 0, len(raw)
    while at + 1 < size:
        end = at + 2 + raw[at] + 256 * raw[at + 1]
        found.append(hash(raw[at + 2 : end]))
        at = end
    return found if at == size else None


def _see(seen: array[int], item: int) -> None:
    """Insert one item in order. When it is full, no new ones are taken in."""
    at = bisect_left(seen, item)
    if len(seen) < MAX_SEEN and (at == len(seen) or seen[at] != item):
        seen.insert(at, item)


def split(raw: bytes) -> list[bytes] | None:
    """A state's recent events, each as its bytes behind the length; None where they are not of the form that they have: three
    texts in UTF-8 and perhaps an action, which fill what the length says, and one of three behaviours."""
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
        if at > end or (number == 3 and at == start):  # no action is not written as an empty one
            return False
        try:
            raw[start:at].decode()
        except UnicodeDecodeError:
            return False
        if number >= 2 and at == end:
            return True
    return False
