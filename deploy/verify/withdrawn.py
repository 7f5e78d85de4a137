"""Standing slates that show an item which was withdrawn long before: they should have been re-issued (docs/rules.md).

A slate stands if it is the user's newest one of its placement. Slates name the offsets of the items and rules under which they
were made. So if the owner of a partition has published a slate with such offsets, it knew of all records up to them, and the
times at which items and rules were written do not matter. An item counts as withdrawn only if nothing about it has changed
since: neither its newest record nor the rule that leaves it out.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property
from typing import TYPE_CHECKING, Any, Final

import jsonschema_rs

from deploy.clients.log_reader import Log, Span, TopicPartition
from deploy.clients.schema import parse, schema
from deploy.verify.changelog import Changelog
from deploy.verify.keys import Keys
from deploy.verify.reissues import MARGIN_MS, hashes
from deploy.verify.report import Report, Violation
from deploy.verify.slates import Slates
from stream.settings import Settings

if TYPE_CHECKING:
    from deploy.verify.recompute.rules import Rules

NEWEST: Final = 1 << 62
"""An offset after all records."""


@dataclass(frozen=True)
class _Item:
    """The newest record of an item. body: The message; None for a tombstone."""

    offset: int
    body: Mapping[str, Any] | None

    @property
    def live(self) -> bool:
        return self.body is not None and bool(self.body.get("available", True))


@dataclass
class _Gone:
    """What a slate must no longer show.

    Attributes:
        everywhere: Items that are not live.
        ruled: Item -> the rules, of kind block or only, that leave it out for those to whom they apply.
    """

    everywhere: set[str] = field(default_factory=set)
    ruled: dict[str, Rules] = field(default_factory=dict)


class WithdrawnItems:
    """Checks the standing slates of one partition after the other.

    Args:
        log: Where the records come from.
        settings: Settings of the deployment.
        limit: Seconds before the partition's last slate: what was withdrawn before that must not be shown.
        report: Where to add what was found.
    """

    def __init__(self, log: Log, settings: Settings, limit: float, report: Report) -> None:
        self._log = log
        self._settings = settings
        self._limit = limit
        self._report = report
        self._keys = Keys(settings.key)

    def check(self, slates: Slates, changelog: Changelog, spans: dict[TopicPartition, Span]) -> None:
        """Check the standing slates of a partition.

        Nothing is due while the newest slates or states are hidden, nor if the partition has had its owner for less than the
        limit: then the owner may still be looking through the slates.
        """
        due = slates.newest - int(self._limit * 1000)
        if slates.hidden or changelog.hidden or changelog.epoch_before(due) < changelog.epoch_before(NEWEST):
            return
        catalogue, rules = slates.known_at(due)
        if catalogue < 0:
            return
        gone = self._gone(catalogue, rules, due, slates.newest)
        suspects = slates.standing(hashes({*gone.everywhere, *gone.ruled}))
        if not suspects:
            return
        for record in self._log.records(self._settings.recommendations_topic, spans):
            if record.offset in suspects:
                self._judge(parse(record.value or b""), record.key or b"", gone, (record.partition, record.offset))

    def _judge(self, slate: dict[str, Any], key: bytes, gone: _Gone, place: tuple[int, int]) -> None:
        if not slate["seq"]:  # a state without events gets no re-issued slate
            return
        for item in (scored["item"] for scored in slate["items"]):
            why = "it is not live" if item in gone.everywhere else ""
            if not why and item in gone.ruled:
                why = self._left_out(slate, key, gone.ruled[item])
            if why:
                message = f"it still shows {item[:100]!r} {self._limit:g} s after that was withdrawn: {why}"
                topic = self._settings.recommendations_topic
                self._report.add(
                    Violation("slate-withdrawn", message, self._keys.name(key), slate["seq"], topic, *place)
                )
                return

    @staticmethod
    def _left_out(slate: dict[str, Any], key: bytes, rules: Rules) -> str:
        from deploy.verify.recompute.rules import Viewer, addresses

        viewer = Viewer(slate["user"], key, slate["seq"], 0)
        return next((f"the rule {one.rule!r} leaves it out" for one in rules if addresses(one.message, viewer)), "")

    def _gone(self, catalogue: int, rules: int, since: int, until: int) -> _Gone:
        """Return what was withdrawn at `since`, under the items and rules up to these offsets, and is at `until`."""
        from_rules = self._rules(rules, since, until) if rules >= 0 else ()
        found = _Gone()
        for item, newest in self._items.items():
            if newest.offset > catalogue:
                continue
            if not newest.live:
                found.everywhere.add(item)
            elif from_rules and (out := self._leaving_out(from_rules, item, newest.body or {})):
                found.ruled[item] = out
        return found

    @staticmethod
    def _leaving_out(rules: Rules, item: str, body: Mapping[str, Any]) -> Rules:
        from deploy.verify.recompute.filters import holds

        return tuple(
            one
            for one in rules
            if holds(one.message.filter or {}, item, body, live=True) == (one.message.kind == "block")
        )

    def _rules(self, offset: int, since: int, until: int) -> Rules:
        """Return the rules of kind block and only that were in force at an offset and a time, and still are."""
        from deploy.verify.recompute.rules import follow

        topic = self._settings.rules_topic
        found = follow(self._log, topic, {offset, NEWEST}, self._settings.key)
        then = {id(one) for one in found[offset].rules}
        return tuple(
            one
            for one in found[NEWEST].rules
            if id(one) in then
            and one.message.kind in ("block", "only")
            and one.message.scene is None
            and (one.message.since or 0) <= since - MARGIN_MS
            and (one.message.until is None or one.message.until > until + MARGIN_MS)
        )

    @cached_property
    def _items(self) -> dict[str, _Item]:
        """The newest acceptable record of each item."""
        topic = self._settings.items_topic
        validator = jsonschema_rs.validator_for(schema("item"))
        found: dict[str, _Item] = {}
        for record in self._log.records(topic, self._log.spans([topic])):
            try:
                item = (record.key or b"").decode()
                body = None if record.value is None else parse(record.value)
            except ValueError:
                continue
            if body is None or (validator.is_valid(body) and body["item"] == item):
                found[item] = _Item(record.offset, body)
        return found
