"""Lists for `freshet deadletters list`: one table per status, or a count per kind. Memory holds only what is shown."""

from __future__ import annotations

import heapq
import json
from collections import Counter
from collections.abc import Iterable, Iterator
from enum import StrEnum
from typing import Any

from deploy.clients.log_reader import TopicPartition
from deploy.clients.printable import counted
from deploy.dead_letters.reader import Choice, DeadLetter, DeadLetterReader, epoch_ms, iso
from deploy.dead_letters.render import table
from deploy.dead_letters.status import DeadLetterStatus, DeadLetterStatuses, State
from stream.settings import Settings

KINDS = 1000
"""Maximum number of rows in a summary. A topic that other programs write to may have more kinds."""

HEADINGS = ("set aside", "source", "stage", "field", "reason", "message")

LANDED = (State.ELSEWHERE, State.BACK)
"""States whose lists also show the position of the record that was sent back."""

Entry = tuple[tuple[int, int, int], dict[str, Any]]
"""The sort key of a dead letter (later is larger), and what the list shows of it."""


class Shown(StrEnum):
    """Which dead letters a list shows. All of them are counted."""

    OPEN = "open"
    BACK = "sent back"
    ALL = "all"

    def has(self, state: State) -> bool:
        """Return whether a dead letter in this state is shown."""
        return self is Shown.ALL or state.open == (self is Shown.OPEN)


class Lists:
    """Lists and counts the dead letters of a choice.

    Args:
        settings: Settings of the deployment.
        reader: Reader of the dead letters.
        choice: Which dead letters to read.
        shown: Which of them to show.
        status: Check which dead letters were sent back. If False, all of them count as one kind.

    Raises:
        BrokerError: The topics cannot be read.
        TopologyError: A topic is missing.
    """

    def __init__(
        self, settings: Settings, reader: DeadLetterReader, choice: Choice, shown: Shown, status: bool
    ) -> None:
        self._reader = reader
        self._choice = choice
        self._shown = shown
        self._statuses = DeadLetterStatuses(settings, reader, choice) if status else None
        self._counts: Counter[State | None] = Counter()

    @property
    def unseen(self) -> list[TopicPartition]:
        """Source partitions from which records that were sent back may be deleted by now."""
        return self._statuses.unseen if self._statuses else []

    def show(self, limit: int, oldest: bool, as_json: bool) -> None:
        """Print at most `limit` dead letters per status."""
        heaps: dict[State | None, list[Entry]] = {}
        sign = -1 if oldest else 1
        for dead_letter, status in self._read():
            heap = heaps.setdefault(status and status.state, [])
            order = (
                sign * dead_letter.failed_ms,
                sign * dead_letter.position.partition,
                sign * dead_letter.position.offset,
            )
            if len(heap) >= limit and order < heap[0][0]:
                continue
            (heapq.heappush if len(heap) < limit else heapq.heapreplace)(heap, (order, _row(dead_letter, status)))
        sections = {state: [row for _, row in sorted(heaps[state], reverse=True)] for state in _in_order(heaps)}
        if as_json:
            rows = [row for section in sections.values() for row in section]
            print(json.dumps({**self._totals(), "letters": rows}))
            return
        for state, rows in sections.items():
            count = self._counts[state]
            suffix = f" {state}" if state else ""
            table(
                f"{len(rows):,} of {counted(count, 'dead letter')}{suffix}, the {'oldest' if oldest else 'newest'} first",
                HEADINGS + (("landed",) if state in LANDED else ()),
                (_cells(row) for row in rows),
            )
        print(self._counted())

    def summarise(self, as_json: bool) -> None:
        """Print the number of dead letters per topic, stage and reason."""
        kinds: dict[tuple[str, str, str], Kind] = {}
        for dead_letter, status in self._read():
            name = (dead_letter.fields["topic"], dead_letter.fields["stage"], dead_letter.fields["reason"])
            if name not in kinds and len(kinds) >= KINDS:
                name = ("other", "", "")
            kinds.setdefault(name, Kind(dead_letter.failed_ms, dead_letter.failed_ms)).take(dead_letter, status)
        rows = sorted(kinds.items(), key=lambda row: (-row[1].count, row[0]))
        if as_json:
            entries = [
                {"topic": topic, "stage": stage, "reason": reason, "letters": kind.count,
                 **({"open": kind.open} if self._statuses else {}), "first": kind.first, "last": kind.last}
                for (topic, stage, reason), kind in rows
            ]  # fmt: skip
            print(json.dumps({**self._totals(), "kinds": entries}))
            return
        table(
            self._counted(),
            ("letters", *(["open"] if self._statuses else []), "topic", "stage", "reason", "first", "last"),
            (
                (
                    f"{kind.count:,}",
                    *([f"{kind.open:,}"] if self._statuses else []),
                    *name,
                    iso(kind.first),
                    iso(kind.last),
                )
                for name, kind in rows
            ),
        )

    def _read(self) -> Iterator[tuple[DeadLetter, DeadLetterStatus | None]]:
        """Count all dead letters of the choice, and yield those to show."""
        for dead_letter in self._reader.read(self._choice):
            status = self._statuses.of(dead_letter) if self._statuses else None
            self._counts[status and status.state] += 1
            if status is None or self._shown.has(status.state):
                yield dead_letter, status

    def _totals(self) -> dict[str, Any]:
        counts = {state: self._counts[state] for state in _in_order(self._counts)} if self._statuses else None
        return {"matched": self._counts.total(), **({} if counts is None else {"counts": counts})}

    def _counted(self) -> str:
        total = counted(self._counts.total(), "dead letter")
        states = ", ".join(f"{self._counts[state]:,} {state}" for state in _in_order(self._counts) if state)
        return f"{total}: {states}" if states else total


class Kind:
    """Counts of the dead letters of one topic, stage and reason. first, last: when they were set aside, epoch ms."""

    def __init__(self, first: int, last: int) -> None:
        self.first = first
        self.last = last
        self.count = 0
        self.open = 0

    def take(self, dead_letter: DeadLetter, status: DeadLetterStatus | None) -> None:
        """Count one more dead letter."""
        self.count += 1
        self.open += status is not None and status.state.open
        self.first = min(self.first, dead_letter.failed_ms)
        self.last = max(self.last, dead_letter.failed_ms)


def _in_order(states: Iterable[State | None]) -> list[State | None]:
    return [state for state in (None, *State) if state in set(states)]


def _row(dead_letter: DeadLetter, status: DeadLetterStatus | None) -> dict[str, Any]:
    row = dead_letter.row()
    if status is not None:
        row |= {"status": status.state, "landed": None if status.landed is None else list(status.landed)}
    return row


def _cells(row: dict[str, Any]) -> tuple[str, ...]:
    source = "/".join(row[name] for name in ("topic", "partition", "offset"))
    landed = ["/".join(map(str, row["landed"]))] if row.get("landed") else []
    return (iso(epoch_ms(row["failed.at"])), source, *(row[name] for name in HEADINGS[2:]), *landed)
