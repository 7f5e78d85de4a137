"""The recommendations: checks that every slate shows a durable state, and that a slate shows every applied event."""

from __future__ import annotations

import json
import re
from array import array
from bisect import bisect_right
from collections.abc import Collection
from dataclasses import dataclass, field
from hashlib import blake2b
from itertools import pairwise
from typing import Any

import jsonschema_rs

from deploy.clients.log_reader import Log, Record, Span, TopicPartition
from deploy.clients.murmur2 import murmur2
from deploy.clients.schema import parse, schema
from deploy.verify.accepted_settings import Setting
from deploy.verify.bundle_switches import BundleSwitches, makers_of_replay
from deploy.verify.changelog import Changelog
from deploy.verify.fencing import epoch
from deploy.verify.keys import ANYONE, ANYONE_KEY
from deploy.verify.reissues import Reissues, hashes
from deploy.verify.report import Kind, Report, Violation
from deploy.verify.source_index import SourceIndex
from deploy.verify.source_partition import APPLIED, CONTROL, FORGOTTEN, NAMED, NONE, SourcePartition
from deploy.verify.users import User
from stream.settings import DEFAULT_PLACEMENT

POPULAR = {
    "seq": 0, "chain": "00" * 16, "events": [], "applied": {}, "latency_ms": -1, "strategy": "popularity", "replay": False,
}  # fmt: skip
"""The fixed fields of the slate for anyone unknown, which shows no state."""


HINT = (
    "these settings publish slates of {0}. If the workers publish others, give their settings: `freshet --config FILE verify`. "
    "If `published` was changed, name the end of the former value: `--published-before TIME=default,NAME` (docs/placements.md)"
)
"""What to try if slates are of other placements than expected. {0}: the published ones, as these settings have them."""


def _impossible(slate: dict[str, Any]) -> str:
    """Return what no worker writes into a user's slate, with any clock, bundle and catalogue; "" if there is nothing."""
    scores = [scored["score"] for scored in slate["items"]]
    if not slate.get("diversity") and any(one < other for one, other in pairwise(scores)):
        return "its items are not in the order of their scores"
    if slate["latency_ms"] < (0 if slate["events"] else -1):
        return f"latency_ms {slate['latency_ms']}, expected at least 0, or -1 without events"
    if slate["catalogue"] < -1:
        return f"catalogue {slate['catalogue']}, expected an offset or -1"
    if slate["time"] < 0:
        return f"time {slate['time']}, expected epoch milliseconds"
    return ""


def _epochs(record: Record) -> list[int] | None:
    """Return the epoch that a slate's header names; None if it names none."""
    named = epoch(record)
    return None if named is None else [named]


_POPULAR = re.compile(r"popular-[0-9a-f]+")


@dataclass
class Shown:
    """What the slates of one placement have shown.

    Attributes:
        last: User -> digest of the last slate.
        replayed: User -> highest seq that a slate flagged as a replay has shown.
        named: Topic index -> 1 for each record that a slate names; of the default placement, NAMED is a flag of the record.
        items: User -> crc32 of each item of the last slate.
        offsets: User -> the record of the last slate.
    """

    last: dict[int, bytes] = field(default_factory=dict)
    replayed: dict[int, int] = field(default_factory=dict)
    named: dict[int, bytearray] = field(default_factory=dict)
    items: dict[int, array[int]] = field(default_factory=dict)
    offsets: dict[int, int] = field(default_factory=dict)


class Slates:
    """Checks the recommendations topic against the source index and the changelog."""

    def __init__(
        self,
        source_index: SourceIndex,
        changelog: Changelog,
        topic: str,
        partitions: int,
        report: Report,
        published: Setting[tuple[str, ...]],
        switches: BundleSwitches,
    ) -> None:
        self._source_index = source_index
        self._changelog = changelog
        self._topic = topic
        self._partitions = partitions
        self._report = report
        self._keys = source_index.keys
        self._validator = jsonschema_rs.validator_for(schema("recommendation"))
        self._published = published
        self._switches = switches
        self._shown = {name: Shown() for names in published.values() for name in names}
        self._reissues = Reissues(changelog)
        self._partial = False  # slates before the range are not read
        self._stamped = False  # a slate for anyone unknown has named its writer's epoch
        self.hidden = False  # more slates lie behind an open transaction of another producer
        self.gone = False  # slates may have been compacted away or deleted
        self.newest = 0
        """When the last slate was appended, epoch ms."""
        self._known: list[tuple[int, int, int]] = []  # (append time, offset of items, of rules) of slates, all rising

    def read(self, log: Log, spans: dict[TopicPartition, Span]) -> None:
        """Read and check this partition's slates within its span."""
        expected, end = spans[self._topic, self._source_index.partition]
        self._partial = expected > 0
        self.gone = expected > 0 and not any(source.narrowed for source in self._source_index.sources)
        for record in log.records(self._topic, spans):
            if record.offset != expected:
                self.gone = True
            expected = record.offset + 1
            if record.value is None:
                self._clear(record)
            else:
                self._report.slates += 1
                self._take(record, record.value)
        self.gone = self.gone or expected < end
        self._switches.finish()

    def _take(self, record: Record, value: bytes) -> None:
        try:
            slate = parse(value)
        except ValueError as error:
            self._blame("slate", f"not JSON: {error}", record)
            return
        if not self._validator.is_valid(slate):
            self._blame("slate", "it violates the published schema", record)
            return
        self._note_known(slate, record)
        key = record.key
        items = [scored["item"] for scored in slate["items"]]
        if len(set(items)) < len(items):
            self._blame("slate", "an item is in it twice", record, slate)
        if key is None or key != (ANYONE_KEY if slate["user"] == ANYONE else self._keys.of(slate["user"])):
            self._blame("slate", "the key is not that of its user", record, slate)
            return
        if key == ANYONE_KEY:
            self._anyone(record, slate)
            return
        shown = self._shown.get(slate.get("placement", DEFAULT_PLACEMENT))
        if shown is None or slate.get("placement") == DEFAULT_PLACEMENT:
            known = ", ".join(name for name in self._shown if name != DEFAULT_PLACEMENT)
            expected = f"expected none, or one that is published ({known})" if known else "expected none"
            self._blame("slate", f"its placement is {slate['placement'][:64]!r}, {expected}", record, slate)
            self._report.hint(self.hint)
            return
        if wrong := _impossible(slate):
            self._blame("slate", wrong, record, slate)
        if slate["strategy"] != "interest":
            self._blame("slate", f"strategy {slate['strategy'][:40]!r}, expected 'interest' for a user", record, slate)
        user = self._source_index.find(key)
        if user is None:
            if murmur2(key) % self._partitions != record.partition:
                self._blame("slate", "it is on a partition that is not its user's", record, slate)
            elif self._changelog.gone or self._changelog.hidden:
                self._report.unverifiable += 1
            else:
                self._blame("slate-state", "its user has no state", record, slate)
            return
        digest = blake2b(value, digest_size=16).digest()
        if digest == shown.last.get(user.number):
            self._report.repeated += 1
            return
        shown.last[user.number] = digest
        row = self._row(user, slate, record)
        self._switches.take(slate, record, self._makers(user, slate, record))
        before = shown.items.get(user.number)
        if "withdrawn" in slate:
            self._check_reissue(user, slate, row, record, before)
        elif row != NONE:
            self._check_events(user, slate, row, record, shown)
        shown.items[user.number] = hashes(scored["item"] for scored in slate["items"])
        shown.offsets[user.number] = record.offset
        if slate["replay"] and "withdrawn" not in slate:
            self._report.replays += 1
            shown.replayed[user.number] = max(shown.replayed.get(user.number, -1), slate["seq"])

    @property
    def placed(self) -> bool:
        """Whether these settings publish a placement besides `default`, or have published one."""
        return any(name != DEFAULT_PLACEMENT for name in self._shown)

    @property
    def hint(self) -> str:
        """What to try if slates are of other placements than these settings publish."""
        return HINT.format(", ".join(self._published.now))

    def missing(self, source: SourcePartition, index: int) -> list[str]:
        """Return the published placements of which no slate shows the state that an event was applied to."""
        behaviour = self._source_index.topic_index(source.topic)
        appended = source.appended[index] if source.appended else 0
        due = self._published.at(behaviour, source.partition, source.start + index, appended)
        return [name for name in due if not self._covers(name, behaviour, source, index)]

    def known_at(self, time: int) -> tuple[int, int]:
        """Return the offsets of items and rules that slates appended up to a time (epoch ms) have named; -1 for none."""
        at = bisect_right(self._known, time, key=lambda known: known[0])
        return self._known[at - 1][1:] if at else (-1, -1)

    def standing(self, items: Collection[int]) -> set[int]:
        """Return the offsets of the standing slates that show one of some items, given by their crc32.

        Slates of placements that are not published any more are left out: nobody replaces them.
        """
        wanted = frozenset(items)
        return {
            shown.offsets[user]
            for name, shown in self._shown.items()
            if name in self._published.now
            for user, some in shown.items.items()
            if not wanted.isdisjoint(some)
        }

    def _note_known(self, slate: dict[str, Any], record: Record) -> None:
        self.newest = max(self.newest, record.timestamp)
        before = self._known[-1][1:] if self._known else (-1, -1)
        known = max(before[0], slate["catalogue"]), max(before[1], slate.get("rules", -1))
        if known != before:
            self._known.append((self.newest, *known))

    def _covers(self, placement: str, behaviour: int, source: SourcePartition, index: int) -> bool:
        shown = self._shown[placement]
        if source.seq[index] <= shown.replayed.get(source.user[index], -1):
            return True
        return self._is_named(shown, behaviour, source, index)

    def _is_named(self, shown: Shown, behaviour: int, source: SourcePartition, index: int) -> bool:
        if shown is self._shown.get(DEFAULT_PLACEMENT):
            return bool(source.flags[index] & NAMED)
        return behaviour in shown.named and bool(shown.named[behaviour][index])

    def _note_named(self, shown: Shown, behaviour: int, source: SourcePartition, index: int) -> None:
        if shown is self._shown.get(DEFAULT_PLACEMENT):
            source.flags[index] |= NAMED
        else:
            shown.named.setdefault(behaviour, bytearray(len(source.state)))[index] = 1

    def _check_reissue(
        self, user: User, slate: dict[str, Any], row: int, record: Record, before: array[int] | None
    ) -> None:
        self._report.reissued += 1
        if wrong := self._reissues.wrong(slate, row, record, before):
            self._blame("reissue", wrong, record, slate)
        elif before is None:
            if self.gone:
                self._report.unverifiable += 1
            elif not self._partial:
                self._blame("reissue", "it was re-issued without a reason: there is no slate before it", record, slate)

    def _clear(self, record: Record) -> None:
        """Check a tombstone: the user was forgotten."""
        user = self._source_index.find(record.key or b"")
        if user is None or not self._forgets(user):
            self._blame("slate", "it is a tombstone, but nobody asked to forget this user", record)
            return
        for shown in self._shown.values():
            shown.last.pop(user.number, None)
            shown.replayed.pop(user.number, None)
            shown.items.pop(user.number, None)
            shown.offsets.pop(user.number, None)
        user.least_life = max(user.least_life, user.life + 1)

    def _forgets(self, user: User) -> bool:
        """Return whether a control record of the user was applied, or may have been deleted."""
        for topic, source in enumerate(self._source_index.sources):
            if source.start > 0:
                return True
            at = user.first[topic]
            while at != NONE:
                if source.flags[at] & CONTROL and source.state[at] == FORGOTTEN:
                    return True
                at = source.after[at]
        return False

    def _anyone(self, record: Record, slate: dict[str, Any]) -> None:
        """Check the slate for anyone unknown: its partition, its form, and that its writer's epoch was claimed.

        Only `recompute` can decide whether its items are the right ones. Earlier versions name no writer.
        """
        if murmur2(ANYONE_KEY) % self._partitions != record.partition:
            self._blame("slate", "it is on a partition that is not that of `*`", record, slate)
        elif (
            "placement" in slate
            or any(slate[name] != value for name, value in POPULAR.items())
            or not _POPULAR.fullmatch(slate["slate"])
        ):
            self._blame("slate", "it does not have the form of a slate for anyone unknown", record, slate)
        elif not self._written(record):
            what = "an epoch that nobody claimed" if epoch(record) is not None else "no writer, but those before it do"
            self._blame("slate", f"a slate for anyone unknown that no worker wrote: it names {what}", record, slate)
        else:
            self._switches.take(slate, record, _epochs(record))

    def _written(self, record: Record) -> bool:
        named = epoch(record)
        if named is None:
            return not self._stamped
        self._stamped = True
        return self._changelog.claimed(named)

    def _makers(self, user: User, slate: dict[str, Any], record: Record) -> list[int] | None:
        """Return the epochs of the workers that may have made a slate; None if that is not known.

        A slate that names events comes from the worker that applied them, even if that was fenced afterwards.
        """
        if "withdrawn" in slate:
            return _epochs(record)
        rows = self._changelog.rows.find(user, int(slate["seq"])) if 0 <= slate["seq"] < 1 << 40 else []
        rows = [row for row in rows if self._changelog.rows.chain(row).hex() == slate["chain"]]
        if not rows:
            return None
        if not slate["events"]:
            return makers_of_replay(self._changelog, rows, record.timestamp)
        found = [self._changelog.epoch_at(self._changelog.rows.offset(row)) for row in rows]
        return None if self._changelog.gone and 0 in found else found

    def _row(self, user: User, slate: dict[str, Any], record: Record) -> int:
        """Return the row of the durable state that the slate shows. If there is none, report it and return NONE."""
        rows = self._changelog.rows.find(user, int(slate["seq"])) if 0 <= slate["seq"] < 1 << 40 else []
        if not rows:
            if self._changelog.gone or self._changelog.hidden:
                self._report.unverifiable += 1
            else:
                self._blame("slate-state", "it shows a state that is not in the changelog", record, slate)
            return NONE
        rows = [row for row in rows if self._changelog.rows.chain(row).hex() == slate["chain"]]
        if not rows:
            self._blame("slate-chain", "its chain is not that of the state with this seq", record, slate)
            return NONE
        applied = [
            slate["applied"].get(f"{topic}/{self._source_index.partition}", -1) for topic in self._source_index.topics
        ]
        others = len(slate["applied"]) - sum(
            f"{t}/{self._source_index.partition}" in slate["applied"] for t in self._source_index.topics
        )
        fitting = [row for row in rows if self._changelog.rows.has_applied(row, applied)]
        if fitting and not others:
            row = fitting[-1] if slate["events"] else fitting[0]
            self._check_life(user, row, slate, record)
            return row
        if not fitting and (self._changelog.gone or self._changelog.hidden):
            self._report.unverifiable += 1
        else:
            self._blame(
                "slate-applied",
                f"applied is {json.dumps(slate['applied'])[:120]}, which is not the state's",
                record,
                slate,
            )
        return rows[-1]

    def _check_life(self, user: User, row: int, slate: dict[str, Any], record: Record) -> None:
        """Report a slate that shows a state from before the user was forgotten, if a tombstone has come in between."""
        if not user.lives:
            return
        life = self._changelog.rows.life(user, row)
        if life < user.least_life:
            self._blame("slate-state", "it shows a state that was forgotten before", record, slate)
        user.life = max(user.life, life)

    def _check_events(self, user: User, slate: dict[str, Any], row: int, record: Record, shown: Shown) -> None:
        before = self._changelog.rows.before(row)
        events = slate["events"]
        first = (
            row == user.oldest and not before and not user.lives
        )  # a control record may have been read again with it
        if slate["replay"] and events and first and not self._changelog.gone:
            self._blame("slate-events", "it is flagged as a replay, but shows its user's first state", record, slate)
        if not events:
            if not slate["replay"]:
                self._blame("slate-events", "it names no event, but is not a replay", record, slate)
            return
        if len(events) != slate["seq"] - before:
            self._blame(
                "slate-events",
                f"it names {len(events)} events, its state applied {slate['seq'] - before}",
                record,
                slate,
            )
        for topic, partition, offset in events:
            wrong = self._name(user, topic, partition, int(offset), before, slate["seq"], shown)
            if wrong:
                self._blame("slate-events", f"it names {topic}/{partition}/{offset}{wrong}", record, slate)

    def _name(self, user: User, topic: str, partition: int, offset: int, before: int, seq: int, shown: Shown) -> str:
        """Mark an event as named by a slate of a placement. Return what is wrong with that; "" if nothing is.

        The event must have been applied after `before` events of its user, and to the state with `seq`.
        """
        behaviour = self._source_index.topic_index(topic)
        source = self._source_index.sources[behaviour]
        index = offset - source.start
        if behaviour != NONE and partition == self._source_index.partition and index < 0:
            self._report.unverifiable += not source.narrowed
            return ""
        if (
            behaviour == NONE
            or partition != self._source_index.partition
            or index >= len(source.state)
            or source.state[index] not in (APPLIED, FORGOTTEN)
            or source.user[index] != user.number
            or not before < source.seq[index] <= seq
        ):
            return ", which was not applied to its state"
        if self._is_named(shown, behaviour, source, index):
            return " as new, but that was named before"
        self._note_named(shown, behaviour, source, index)
        return ""

    def _blame(self, kind: Kind, message: str, record: Record, slate: dict[str, Any] | None = None) -> None:
        name = self._keys.name(record.key)
        seq = int(slate["seq"]) if slate else -1
        self._report.add(Violation(kind, message, name, seq, self._topic, record.partition, record.offset))
