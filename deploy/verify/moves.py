"""Records that lay on a wrong partition and have no dead letter: each must have a copy on the right one.

The copy is a source record like any other there. A header names where it comes from, and it holds the same key and value.
"""

from __future__ import annotations

from dataclasses import dataclass, field

from deploy.verify.ledger import Shelf
from deploy.verify.report import Report, Violation


@dataclass(frozen=True)
class Move:
    """A misplaced record. digest: fingerprint of its key and value; due: it must be finished; judged: what is missing can be
    told."""

    topic: str
    partition: int
    offset: int
    digest: bytes
    reason: str
    due: bool
    judged: bool


@dataclass
class Moves:
    """copies: place that a copy's header names -> fingerprints of those copies, of all partitions."""

    copies: dict[str, set[bytes]] = field(default_factory=dict)
    moves: list[Move] = field(default_factory=list)

    def see(self, copies: dict[str, set[bytes]]) -> None:
        """The copies in one partition."""
        for place, found in copies.items():
            self.copies.setdefault(place, set()).update(found)

    def add(self, shelf: Shelf, index: int, offset: int, due: int, gone: bool) -> None:
        """due: below it a record must be finished; gone: dead letters may have been deleted."""
        digest = bytes(shelf.digest[16 * index : 16 * index + 16])
        reason = shelf.reasons.get(index, "")
        self.moves.append(Move(shelf.topic, shelf.partition, offset, digest, reason, offset < due, not gone))

    def settle(self, ranged: bool, report: Report) -> None:
        """ranged: only a part of the logs was read, so that a copy may lie beyond it."""
        for move in self.moves:
            if move.digest in self.copies.get(f"{move.topic}/{move.partition}/{move.offset}", ()):
                report.forwarded += 1
            elif not move.due:
                report.pending += 1
            elif ranged or not move.judged:
                report.unverifiable += 1
            else:
                report.unreported += 1
                message = f"neither sent on nor a dead letter of an unacceptable record: {move.reason}"
                report.add(Violation("unreported", message, "", -1, move.topic, move.partition, move.offset))
