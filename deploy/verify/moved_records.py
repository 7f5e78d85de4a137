"""Records that lay on a wrong partition and have no dead letter. Each must have a copy on the right partition, and count once.

The copy is a source record like any other there. A header names the position of the original, and it has the same key and value.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import NamedTuple

from deploy.verify.report import Report, Violation
from deploy.verify.source_index import SourceIndex
from deploy.verify.source_partition import APPLIED, FORGOTTEN, TWICE, SourcePartition


@dataclass(frozen=True)
class Move:
    """A misplaced record.

    Attributes:
        digest: Fingerprint of its key and value.
        reason: Why it is not acceptable.
        due: Whether it must be finished.
        noticeable: Whether a missing dead letter would be noticed.
    """

    topic: str
    partition: int
    offset: int
    digest: bytes
    reason: str
    due: bool
    noticeable: bool


class Copy(NamedTuple):
    """A copy that was applied to a state, as event number `seq` of its user. `reported`: As `double`, already."""

    user: str
    seq: int
    topic: str
    partition: int
    offset: int
    reported: bool


@dataclass
class Moves:
    """Collects misplaced records and their copies over all partitions, and settles them.

    Attributes:
        hidden: Topics of which an open transaction hides a part.
        copies: Position that a copy's header names -> fingerprints of those copies, over all partitions.
        moves: Misplaced records without a dead letter.
        several: (position, fingerprint) -> the applied copies, if there is more than one.
        originals: Position of a misplaced record -> its fingerprint.
        seen: The offsets that were read, per source partition.
    """

    hidden: set[str] = field(default_factory=set)
    copies: dict[str, set[bytes]] = field(default_factory=dict)
    moves: list[Move] = field(default_factory=list)
    several: dict[tuple[str, bytes], list[Copy]] = field(default_factory=dict)
    originals: dict[str, bytes] = field(default_factory=dict)
    seen: dict[tuple[str, int], range] = field(default_factory=dict)

    def see(self, source_index: SourceIndex) -> None:
        """Note the misplaced records and the copies of one partition, after its changelog was followed."""
        for source in source_index.sources:
            self.seen[source.topic, source.partition] = range(source.start, source.end)
        for topic, index in source_index.moved:
            source = source_index.sources[topic]
            self.originals[_position(source, index)] = bytes(source.digest[16 * index : 16 * index + 16])
        for position, found in source_index.copies.items():
            self.copies.setdefault(position, set()).update(found)
            for digest, records in found.items():
                applied = [
                    _copy(source_index, *one)
                    for one in records
                    if source_index.sources[one[0]].state[one[1]] in (APPLIED, FORGOTTEN)
                ]
                if len(applied) > 1:
                    self.several[position, digest] = applied

    def add(self, source: SourcePartition, index: int, offset: int, due: int, gone: bool) -> None:
        """Add a misplaced record without a dead letter.

        Args:
            source: Its source partition.
            index: Its index there.
            offset: Its offset.
            due: The offset below which a record must be finished.
            gone: Whether dead letters may have been deleted.
        """
        digest = bytes(source.digest[16 * index : 16 * index + 16])
        reason = source.reasons.get(index, "")
        self.moves.append(Move(source.topic, source.partition, offset, digest, reason, offset < due, not gone))

    def settle(self, ranged: bool, report: Report) -> None:
        """Count what became of each misplaced record. ranged: Only a part of the logs was read; a copy may lie beyond it."""
        for move in self.moves:
            if move.digest in self.copies.get(f"{move.topic}/{move.partition}/{move.offset}", ()):
                report.forwarded += 1
            elif not move.due or move.topic in self.hidden:
                report.pending += 1
            elif ranged or not move.noticeable:
                report.unverifiable += 1
            else:
                report.unreported += 1
                message = f"an unacceptable record was neither forwarded nor set aside as a dead letter: {move.reason}"
                report.add(Violation("unreported", message, "", -1, move.topic, move.partition, move.offset))
        self._settle_copies(report)

    def _settle_copies(self, report: Report) -> None:
        """Report each record that was applied more than once, however far apart its copies lie.

        If the original can be read and differs from the copies, the worker did not write their header, and each is a record
        in its own right.
        """
        for (position, digest), copies in self.several.items():
            if self._forged(position, digest):
                continue
            first = copies[0]
            for copy in copies[1:]:
                if copy.reported:
                    continue
                report.double += 1
                message = (
                    f"a copy of {position}, which was applied before: {first.topic}/{first.partition}/{first.offset}"
                )
                message += f", seq {first.seq}, is a copy of it as well"
                report.add(Violation("double", message, copy.user, copy.seq, *copy[2:5]))

    def _forged(self, position: str, digest: bytes) -> bool:
        topic, partition, offset = position.rsplit("/", 2)
        seen = self.seen.get((topic, int(partition)))
        if seen is None or int(offset) >= seen.stop:
            return True  # there is no such position
        return int(offset) in seen and self.originals.get(position) != digest


def _position(source: SourcePartition, index: int) -> str:
    return f"{source.topic}/{source.partition}/{source.start + index}"


def _copy(source_index: SourceIndex, topic: int, index: int) -> Copy:
    source = source_index.sources[topic]
    user = source_index.users[source.user[index]].name
    reported = bool(source.flags[index] & TWICE)
    return Copy(user, source.seq[index], source.topic, source.partition, source.start + index, reported)
