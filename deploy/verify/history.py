"""The changelog, record by record: does each state follow from the one before and the events that it names?"""

from __future__ import annotations

import struct
from array import array
from bisect import bisect_left
from hashlib import blake2b

from deploy.verify.judge import murmur2
from deploy.verify.ledger import ABSENT, ACCEPTED, APPLIED, DUPLICATE, INVALID, NONE, SKIPPED, UNSEEN, Ledger, User
from deploy.verify.log import Log, Place, Record, Span
from deploy.verify.report import Report, Violation
from stream.errors import StateError
from stream.interest import MAX_RECENT, MAX_SEEN, Interest, Recent, decode

_SEQ_BITS = 40


class History:
    """Every state ever durable, by (user, seq).

    A row is one changelog record that stands: chain, fence, and `before` = seq less the number of its folded events.
    """

    def __init__(self, ledger: Ledger, topic: str, partitions: int, report: Report) -> None:
        self._ledger = ledger
        self._topic = topic
        self._partitions = partitions
        self._report = report
        self._rows: dict[int, int] = {}
        self._chains = bytearray()
        self._fences = array("q")
        self._before = array("q")
        self._earlier = array("q")  # an earlier row of the same user and seq
        self.gone = [False] * partitions  # records were compacted away or deleted

    # what the slates are checked against

    def rows(self, user: int, seq: int) -> list[int]:
        """Rows of (user, seq), the newest first."""
        found = []
        row = self._rows.get(user << _SEQ_BITS | seq, NONE)
        while row != NONE:
            found.append(row)
            row = self._earlier[row]
        return found

    def chain(self, row: int) -> bytes:
        return bytes(self._chains[16 * row : 16 * row + 16])

    def fence(self, row: int) -> list[int]:
        return self._fences[3 * row : 3 * row + 3].tolist()

    def before(self, row: int) -> int:
        return self._before[row]

    # reading

    def read(self, log: Log, spans: dict[Place, Span]) -> None:
        """Follow the changelog from its first record to its last."""
        expected = [spans[self._topic, partition].start for partition in range(self._partitions)]
        self.gone = [start > 0 for start in expected]
        for record in log.records(self._topic, spans):
            if record.offset != expected[record.partition]:
                self.gone[record.partition] = True
            expected[record.partition] = record.offset + 1
            self._report.states += 1
            self._take(record)
        for partition, offset in enumerate(expected):
            if offset < spans[self._topic, partition].end:
                self.gone[partition] = True

    def _take(self, record: Record) -> None:
        key = record.key
        if key is None or record.value is None:
            self._blame("state", "a changelog record without key or value", record, key)
            return
        if murmur2(key) % self._partitions != record.partition:
            self._blame("state", "a state on a partition that is not its user's", record, key)
            return
        try:
            state = decode(record.value)
        except StateError as error:
            self._blame("state", str(error), record, key)
            return
        number = self._ledger.user_number(key, record.partition)
        user = self._ledger.users[number]
        if state.seq == user.seq and not state.folded and user.row != NONE:
            self._quiet(number, user, state, record)
        elif state.seq <= user.seq:
            self._back(number, state, record)
        elif state.seq - user.seq == len(state.folded):
            self._follow(number, user, state, record)
        else:
            self._gap(number, user, state, record)

    def _quiet(self, number: int, user: User, state: Interest, record: Record) -> None:
        """No new event: only the fence may have moved, over duplicates."""
        if state.chain != user.chain:
            self._blame("fork", "another chain for the same seq", record, user.key, state.seq)
            return
        if state.last_time != user.last_time:
            self._blame("state", f"last_time {state.last_time}, expected {user.last_time}", record, user.key, state.seq)
        self._move_fence(user, state, [], list(user.fence), record)
        self._keep(number, user, state)

    def _back(self, number: int, state: Interest, record: Record) -> None:
        """A record at or before the user's seq: a client's retry at best, else a stale writer."""
        user = self._ledger.users[number]
        if state.seq == user.seq and state.chain == user.chain and state.fence == user.fence:
            self._report.repeated += 1
            return
        known = self.rows(number, state.seq)
        if known and self.chain(known[0]) != state.chain:
            self._blame("fork", "another chain for the same seq", record, user.key, state.seq)
        else:
            self._blame("stale", f"seq goes back from {user.seq}", record, user.key, state.seq)

    def _gap(self, number: int, user: User, state: Interest, record: Record) -> None:
        """Records between are missing: by compaction, which cannot be judged, or lost."""
        missing = state.seq - len(state.folded) - user.seq
        if self.gone[record.partition]:
            self._adopt(number, user, state, UNSEEN)
            return
        self._blame("gap", f"seq goes on from {user.seq}, {missing} events are nowhere", record, user.key, state.seq)
        self._adopt(number, user, state, SKIPPED)

    def _adopt(self, number: int, user: User, state: Interest, passed: int) -> None:
        """Take the record as it stands, its folded events as applied, and the user's others below the fence as `passed`."""
        before = state.seq - len(state.folded)
        user.given = frozenset(recent.id for recent in _recents(state) if recent.id)
        del user.ring[:]  # from here on it knows the events without a hole again, older ids are in `given`
        for place, (topic, offset) in enumerate(state.folded):
            if topic >= len(self._ledger.shelves):
                continue
            shelf = self._ledger.shelves[topic][user.partition]
            index = offset - shelf.start
            if not 0 <= index < len(shelf.state) or shelf.user[index] != number:
                del user.ring[:]
                continue
            if shelf.state[index] == ACCEPTED:
                shelf.state[index] = APPLIED
                shelf.seq[index] = before + place + 1
            user.ring.append((topic, index))
        for topic, shelves in enumerate(self._ledger.shelves):
            shelf = shelves[user.partition]
            while user.at[topic] != NONE and user.at[topic] + shelf.start <= state.fence[topic]:
                if shelf.state[user.at[topic]] == ACCEPTED:
                    shelf.state[user.at[topic]] = passed
                user.at[topic] = shelf.after[user.at[topic]]
        del user.ring[:-MAX_RECENT]
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
            if topic > 2:
                self._blame("state", f"folded names topic {topic}", record, user.key, state.seq)
                self._adopt(number, user, state, SKIPPED)
                return
            shelf = self._ledger.shelves[topic][user.partition]
            index = offset - shelf.start
            if index < 0:  # the source record was deleted: neither it nor the chain can be judged
                self._report.unverifiable += 1
                self._adopt(number, user, state, UNSEEN)
                return
            if not self._foldable(number, topic, index, offset <= fence[topic], seq):
                self._adopt(number, user, state, SKIPPED)
                return
            at = user.at[topic]
            while at != NONE and at < index:
                passed.append((topic, at))
                at = shelf.after[at]
            user.at[topic] = shelf.after[index]
            given = shelf.ids.get(index)
            if given and any(
                self._ledger.shelves[t][user.partition].ids.get(i) == given for t, i in user.ring[-MAX_RECENT:]
            ):
                self._report.double += 1
                self._accuse("double", f"id {given!r} is among the last {MAX_RECENT}", user, topic, offset, seq)
            shelf.state[index] = APPLIED
            shelf.seq[index] = seq
            chain = blake2b(
                chain + shelf.identity(index) + shelf.digest[16 * index : 16 * index + 16], digest_size=16
            ).digest()
            last_time = max(last_time, shelf.time[index])
            fence[topic] = offset
            user.ring.append((topic, index))
            self._check_seen(user, state, topic, index)
        if chain != state.chain:
            self._blame("chain", f"chain {state.chain.hex()}, recomputed {chain.hex()}", record, user.key, state.seq)
        if last_time != state.last_time:
            self._blame("state", f"last_time {state.last_time}, expected {last_time}", record, user.key, state.seq)
        if state.recent_count != min(state.seq, MAX_RECENT):
            self._blame("state", f"{state.recent_count} recent events", record, user.key, state.seq)
        elif state.seq // 32 != user.seq // 32:  # each event is seen in the ring at least once
            self._check_recent(user, state, record)
        self._move_fence(user, state, passed, fence, record)
        del user.ring[:-MAX_RECENT]
        self._keep(number, user, state)

    def _foldable(self, number: int, topic: int, index: int, at_fence: bool, seq: int) -> bool:
        """May this event be folded now? Blames and says no otherwise."""
        user = self._ledger.users[number]
        shelf = self._ledger.shelves[topic][user.partition]
        offset = index + shelf.start
        found = shelf.state[index] if index < len(shelf.state) else ABSENT
        if found == ABSENT:
            self._accuse("phantom", "a state names a record that does not exist", user, topic, offset, seq)
        elif found == INVALID:
            why = shelf.reasons[index]
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

    def _check_seen(self, user: User, state: Interest, topic: int, index: int) -> None:
        if len(state.seen) >= 4 * MAX_SEEN:  # full: new items are no longer taken in
            return
        shelf = self._ledger.shelves[topic][user.partition]
        seen = memoryview(state.seen).cast("I")
        at = bisect_left(seen, shelf.item[index])
        if at == len(seen) or seen[at] != shelf.item[index]:
            self._accuse(
                "state", "the item is not among the seen ones", user, topic, index + shelf.start, shelf.seq[index]
            )

    def _check_recent(self, user: User, state: Interest, record: Record) -> None:
        """The last 64 events in the record against those that were applied."""
        recent = _recents(state)
        ring = user.ring[-MAX_RECENT:]
        if len(recent) != state.recent_count:
            self._blame("state", "the recent events cannot be read", record, user.key, state.seq)
        for (topic, index), entry in zip(reversed(ring), reversed(recent), strict=False):
            shelf = self._ledger.shelves[topic][user.partition]
            if (entry.behaviour, entry.time, entry.id) != (topic, shelf.time[index], shelf.ids.get(index, "")):
                self._blame("state", "the recent events are not those applied last", record, user.key, state.seq)
                return

    def _move_fence(
        self, user: User, state: Interest, passed: list[tuple[int, int]], fence: list[int], record: Record
    ) -> None:
        """The fence stands at the last event folded, or behind duplicates. fence: as the folded events leave it."""
        for topic, shelves in enumerate(self._ledger.shelves):
            shelf = shelves[user.partition]
            while user.at[topic] != NONE and user.at[topic] + shelf.start <= state.fence[topic]:
                passed.append((topic, user.at[topic]))
                fence[topic] = user.at[topic] + shelf.start
                user.at[topic] = shelf.after[user.at[topic]]
            if state.fence[topic] != fence[topic]:
                message = f"fence of {shelf.topic} is {state.fence[topic]}, expected {fence[topic]}"
                if 0 <= state.fence[topic] < shelf.start:
                    self._report.unverifiable += 1
                else:
                    self._blame("fence", message, record, user.key, state.seq)
        for topic, index in passed:
            shelf = self._ledger.shelves[topic][user.partition]
            if self._is_duplicate(user, topic, index):
                shelf.state[index] = DUPLICATE
            elif shelf.state[index] == ACCEPTED:
                shelf.state[index] = SKIPPED

    def _is_duplicate(self, user: User, topic: int, index: int) -> bool:
        """Its `id` was given to another of the last 64 events, applied before it."""
        given = self._ledger.shelves[topic][user.partition].ids.get(index)
        if given in user.given:
            return True
        return given is not None and any(
            self._ledger.shelves[t][user.partition].ids.get(i) == given and (t != topic or i < index)
            for t, i in user.ring
        )

    def _keep(self, number: int, user: User, state: Interest) -> None:
        user.seq = state.seq
        user.chain = state.chain
        user.fence = list(state.fence)
        user.last_time = state.last_time
        user.row = len(self._before)
        self._chains += state.chain
        self._fences.extend(state.fence)
        self._before.append(state.seq - len(state.folded))
        key = number << _SEQ_BITS | state.seq
        self._earlier.append(self._rows.get(key, NONE))
        self._rows[key] = user.row

    def _blame(self, kind: str, message: str, record: Record, key: bytes | None, seq: int = -1) -> None:
        name = (key or b"").decode(errors="replace")
        self._report.add(Violation(kind, message, name, seq, self._topic, record.partition, record.offset))

    def _accuse(self, kind: str, message: str, user: User, topic: int, offset: int, seq: int) -> None:
        place = self._ledger.topics[topic]
        self._report.add(Violation(kind, message, user.name, seq, place, user.partition, offset))


def _recents(state: Interest) -> list[Recent]:
    """The state's recent events; none where they cannot be read."""
    try:
        return list(state.recents())
    except (struct.error, ValueError):
        return []
