"""Whether every slate is made by the bundle that the topic `bundles` names for its place, and every activation was followed.

The records are read here from the JSON, without code of the worker (docs/swap.md describes them). A `switched` belongs to the
epoch with which its writer had claimed the partition. So what a fenced worker still writes, slates or switches, is judged by its
own epoch and changes nothing for the owner. Only the order of each topic and the epochs decide; times decide where two topics
are compared, with MARGIN_MS for the brokers' clocks.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Sequence
from dataclasses import dataclass, field
from typing import Any, Final, NamedTuple

from deploy.clients.log_reader import Log, Record, Span, TopicPartition
from deploy.clients.schema import parse
from deploy.verify.changelog import Changelog
from deploy.verify.keys import Keys
from deploy.verify.report import Report, Violation
from deploy.verify.undecided import Undecided
from stream.core.errors import TopologyError
from stream.settings import Settings

MARGIN_MS: Final = 10_000
"""Milliseconds by which the brokers' clocks may differ."""

MAX_TIME: Final = 253_402_300_799_999  # the year 9999
MAX_REASON: Final = 1024

_ID = re.compile(r"[0-9a-f]{64}")


class Activation(NamedTuple):
    """An order to serve a bundle. number: Its offset; appended: Epoch ms."""

    number: int
    bundle: str
    appended: int


class Switch(NamedTuple):
    """From the offset `slates` on, slates of a partition are made by a bundle.

    Attributes:
        epoch: Its writer's claim of the partition.
        order: Its offset in the topic.
        slates: Offset in the topic of slates.
        bundle: Hex id.
        appended: Epoch ms.
    """

    epoch: int
    order: int
    slates: int
    bundle: str
    appended: int


@dataclass
class BundleRecords:
    """What the topic holds.

    Attributes:
        activations: In order.
        switches: Partition -> its switches, in order.
        refused: (number of an activation, name of a worker) of each refusal.
        spans: The offsets of the topic; empty if it is not there.
        hidden: Whether more records lie behind an open transaction.
    """

    activations: list[Activation] = field(default_factory=list)
    switches: dict[int, list[Switch]] = field(default_factory=dict)
    refused: set[tuple[int, str]] = field(default_factory=set)
    spans: dict[TopicPartition, Span] = field(default_factory=dict)
    hidden: bool = False


def read(log: Log, topic: str, undecided: Undecided) -> BundleRecords:
    """Read the topic. In a deployment from before it was introduced it is not there, and nothing was activated."""
    found = BundleRecords()
    try:
        found.spans = undecided.spans(log, [topic])
    except TopologyError:
        return found
    found.hidden = any(tp in undecided.hidden for tp in found.spans)
    for record in log.records(topic, found.spans):
        _take(found, record)
    return found


def _take(found: BundleRecords, record: Record) -> None:
    """Add a record. One that has not the form of any is no worker's, and counts for none of them either."""
    try:
        body = parse(record.value or b"")
    except ValueError:
        return
    if not isinstance(body, dict) or not _ID.fullmatch(str(body.get("bundle"))):
        return
    kind, bundle = body.get("kind"), body["bundle"]
    if kind == "activate" and record.key == b"activate":
        if not _is_moment(body.get("time")) or not _is_reason(body.get("reason", "")):
            return
        found.activations.append(Activation(record.offset, bundle, record.timestamp))
    elif kind == "refused" and _are_numbers(body, "activation"):
        found.refused.add((body["activation"], str(body.get("worker"))))
    elif kind == "switched" and _are_numbers(body, "partition", "slates", "epoch"):
        switch = Switch(body["epoch"], record.offset, body["slates"], bundle, record.timestamp)
        found.switches.setdefault(body["partition"], []).append(switch)


def _is_moment(value: object) -> bool:
    """Return whether a value is a time in epoch ms: a whole number, which may be written as 3.0."""
    return type(value) in (int, float) and 0 <= value <= MAX_TIME and value == int(value)  # type: ignore[operator, call-overload]


def _is_reason(value: object) -> bool:
    return isinstance(value, str) and len(value) <= MAX_REASON


def _are_numbers(body: dict[str, Any], *names: str) -> bool:
    return all(type(body.get(name)) is int for name in names)


class Made(NamedTuple):
    """A slate that does not name an activated bundle. appended: Epoch ms; epoch: Of its maker."""

    key: bytes
    seq: int
    offset: int
    appended: int
    epoch: int
    bundle: str


class BundleSwitches:
    """Judges the slates of one partition, in the order of the topic.

    Args:
        records: What the topic `bundles` holds.
        changelog: The partition's, already read: it knows the claims.
        partition: Number of the partition.
        limit: Seconds within which an activation must have been followed or refused.
        settings: Settings of the deployment.
        report: Where to add what was found.
    """

    def __init__(
        self,
        records: BundleRecords,
        changelog: Changelog,
        partition: int,
        limit: float,
        settings: Settings,
        report: Report,
    ) -> None:
        self._records = records
        self._switches = records.switches.get(partition, [])
        self._changelog = changelog
        self._partition = partition
        self._limit = int(limit * 1000)
        self._settings = settings
        self._report = report
        self._keys = Keys(settings.key)
        self._unswitched: dict[int, str] = {}  # epoch -> the bundle that its slates have named while no switch says one
        self._behind: dict[int, Made] = {}  # number of an activation -> the first slate that should have followed it

    def take(self, slate: dict[str, Any], record: Record, makers: Collection[int] | None) -> None:
        """Judge one slate.

        Args:
            slate: The slate.
            record: Its record.
            makers: Epochs of the workers that may have made it; None if that is not known. 0: from before there were claims.
        """
        if self._records.hidden:
            return
        named = slate["bundle"]
        possible = self._changelog.known_epochs() if makers is None else sorted(set(makers))
        allowed: set[str] = set()
        where = ""
        for maker in possible:
            bundles, said = self._allowed(maker, record.offset)
            if bundles is None:
                if len(possible) > 1 or not maker or self._unswitched.setdefault(maker, named) == named:
                    allowed.add(named)
                else:
                    allowed.add(self._unswitched[maker])
                    where = "but its worker's slates before it do not, and no `switched` lies in between"
                continue
            allowed |= bundles
            where = said
        if possible and named not in allowed:
            message = f"it names the bundle {named[:12]}, {where}"
            position = self._settings.recommendations_topic, record.partition, record.offset
            name = self._keys.name(record.key or b"")
            self._report.add(Violation("slate-bundle", message, name, slate["seq"], *position))
        if len(possible) == 1:
            self._note_behind(slate, record, possible[0])

    def finish(self) -> None:
        """Report the activations that an owner has neither followed nor refused."""
        for number, made in self._behind.items():
            bundle = next(one.bundle for one in self._records.activations if one.number == number)
            message = (
                f"it names the bundle {made.bundle[:12]}, but {bundle[:12]} was activated more than {self._limit / 1000:g} s "
                f"before, at offset {number} of {self._settings.bundles_topic}, and the partition's owner has not refused it"
            )
            position = self._settings.recommendations_topic, self._partition, made.offset
            self._report.add(Violation("bundle-stale", message, self._keys.name(made.key), made.seq, *position))

    def _allowed(self, maker: int, offset: int) -> tuple[set[str] | None, str]:
        """Return the bundles that a worker's slate at an offset may name, and what says so; None if nothing does."""
        begun = [one for one in self._switches if one.slates <= offset]
        own = [one for one in begun if one.epoch == maker]
        if own:
            return {own[-1].bundle}, self._said(own[-1])
        claimed = self._changelog.claimed_at(maker)
        earlier = [one for one in begun if one.epoch < maker]
        before = max((one for one in earlier if one.appended < claimed - MARGIN_MS), default=None)
        # what a former owner wrote after the claim, the owner may have read or not
        beside = [one for one in earlier if one.appended >= claimed - MARGIN_MS and (before is None or one > before)]
        if before is None:
            return None, ""
        return {before.bundle, *(one.bundle for one in beside)}, self._said(before)

    def _said(self, switch: Switch) -> str:
        return (
            f"but from offset {switch.slates} on it is {switch.bundle[:12]} by the `switched` at offset {switch.order} of "
            f"{self._settings.bundles_topic}"
        )

    def _note_behind(self, slate: dict[str, Any], record: Record, maker: int) -> None:
        """Note a slate whose maker should have followed the activation that was in force."""
        activations = self._records.activations
        due = [one for one in activations if one.appended + self._limit < record.timestamp - MARGIN_MS]
        if not due or slate["bundle"] == due[-1].bundle or due[-1].number in self._behind:
            return
        newest = due[-1]
        later = activations[activations.index(newest) + 1 :]
        if later and later[0].appended <= record.timestamp + MARGIN_MS:  # it came in place of this one
            return
        fenced = maker < self._changelog.epoch_before(record.timestamp + MARGIN_MS)
        worker = self._changelog.worker_of(maker)
        if fenced or not worker or (newest.number, worker) in self._records.refused:
            return
        made = Made(record.key or b"", slate["seq"], record.offset, record.timestamp, maker, slate["bundle"])
        self._behind[newest.number] = made


def makers_of_replay(changelog: Changelog, rows: Sequence[int], appended: int) -> list[int]:
    """Return the epochs of the workers that may have sent a state's slate again, or for the first time without its events."""
    least = min(changelog.epoch_at(changelog.rows.offset(row)) for row in rows)
    return [
        one for one in changelog.known_epochs() if one >= least and changelog.claimed_at(one) <= appended + MARGIN_MS
    ]
