"""Slates that were re-issued: each must have a reason, a writer that owned the partition, and no new event.

A worker re-issues a slate when an item that it shows must no longer be shown. The new slate names these items in `withdrawn`,
and its writer's epoch in the header `writer`. Whether the items could indeed no longer be shown is decided with the items and
rules (deploy.verify.recompute.reissues).
"""

from __future__ import annotations

from array import array
from collections.abc import Iterable
from typing import Any
from zlib import crc32

from deploy.clients.log_reader import Record
from deploy.verify.changelog import Changelog
from deploy.verify.fencing import epoch
from deploy.verify.source_partition import NONE

MARGIN_MS = 10_000
"""Milliseconds by which the brokers' clocks may differ."""


class Reissues:
    """Checks the re-issued slates of one partition, in the order of the topic."""

    def __init__(self, changelog: Changelog) -> None:
        self._changelog = changelog
        self._newest = 0  # highest epoch that a re-issued slate has named
        self.slates = 0
        """How many were read."""

    def wrong(self, slate: dict[str, Any], row: int, record: Record, before: array[int] | None) -> str:
        """Return what is wrong with a re-issued slate; "" if nothing is, as far as slates and changelog show.

        Args:
            slate: The slate.
            row: Of the state that it shows; NONE if that is not known.
            record: Its record.
            before: crc32 of the items of the user's slate before it, of the same placement; None if none was read.
        """
        self.slates += 1
        return _without_reason(slate, before) or self._as_event(slate) or self._without_right(row, record)

    def _as_event(self, slate: dict[str, Any]) -> str:
        if slate["events"] or slate["replay"] or slate["latency_ms"] != -1:
            return "it was re-issued, but names events, a replay or a latency: no event may be applied"
        return ""

    def _without_right(self, row: int, record: Record) -> str:
        named = epoch(record)
        if named is None:
            return "it was re-issued by no writer: the header `writer` is missing"
        if not self._changelog.claimed(named):
            return f"it was re-issued under epoch {named}, which nobody claimed"
        state = 0 if row == NONE else self._changelog.epoch_at(self._changelog.rows.offset(row))
        newer = max(self._newest, state, self._changelog.epoch_before(record.timestamp - MARGIN_MS))
        if named < newer:
            return f"it was re-issued by a fenced writer: it names epoch {named}, but {newer} was in force"
        self._newest = named
        return ""


def hashes(items: Iterable[str]) -> array[int]:
    """Return the crc32 of each item."""
    return array("I", (crc32(item.encode()) for item in items))


def _without_reason(slate: dict[str, Any], before: array[int] | None) -> str:
    if not slate["withdrawn"]:
        return "it was re-issued without a reason: it names no item that was withdrawn"
    items = {scored["item"] for scored in slate["items"]}
    for item in slate["withdrawn"]:
        if before is not None and crc32(item.encode()) not in before:
            return f"it was re-issued without a reason: the slate before it does not show {item[:100]!r}"
        if item in items:
            return f"it shows {item[:100]!r}, which it names as withdrawn"
    return ""
