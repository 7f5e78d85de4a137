"""Counts what became of each source record, once everything of its partition was read."""

from __future__ import annotations

from deploy.verify.deleted_records import Read
from deploy.verify.moved_records import Moves
from deploy.verify.report import Kind, Report, Violation
from deploy.verify.source_partition import (
    ABSENT,
    ACCEPTED,
    APPLIED,
    CONTROL,
    DEAD_LETTER,
    DUPLICATE,
    FORGOTTEN,
    INVALID,
    MOVED,
    NONE,
    POISON,
    SKIPPED,
    UNSEEN,
    SourcePartition,
)
from stream.settings import DEFAULT_PLACEMENT


class Outcomes:
    """Counts the records of one partition.

    Args:
        read: Everything that was read from the partition.
        moves: Where to add misplaced records without a dead letter.
        report: Where to count.
    """

    def __init__(self, read: Read, moves: Moves, report: Report) -> None:
        self._read = read
        self._moves = moves
        self._report = report

    def count(self, source: SourcePartition, index: int, offset: int, due: int) -> None:
        """Count one record. If its offset is below `due`, it must be finished."""
        report = self._report
        state = source.state[index]
        if state == ABSENT:
            return
        report.input += 1
        report.accepted += state != INVALID
        if state == INVALID:
            self._count_invalid(source, index, offset, due)
        elif state == DUPLICATE:
            report.duplicates += 1
        elif state == FORGOTTEN:
            report.forgotten += 1
        elif source.flags[index] & POISON:
            report.inference += 1
        elif state == UNSEEN or (state == ACCEPTED and offset < due and self._forgotten(source, index)):
            report.unseen += 1
            report.unverifiable += 1
        elif offset < due and self._hidden(state):
            report.pending += 1
        elif state == SKIPPED or (state == ACCEPTED and offset < due):
            report.lost += 1
            message = "it is acceptable, but in no state" if state == ACCEPTED else "`applied` was moved over it"
            self._add("lost", message, source, index)
        elif state == ACCEPTED:
            report.pending += 1
        elif state == APPLIED:
            report.applied += 1
            self._count_applied(source, index, offset, due)

    def _count_invalid(self, source: SourcePartition, index: int, offset: int, due: int) -> None:
        report, dead_letters = self._report, self._read.dead_letters
        if source.flags[index] & DEAD_LETTER:
            report.dead_letters += 1
        elif source.flags[index] & MOVED:
            self._moves.add(source, index, offset, due, dead_letters.gone)
        elif offset >= due or dead_letters.hidden:
            report.pending += 1
        elif dead_letters.gone:
            report.unverifiable += 1
        else:
            report.unreported += 1
            reason = source.reasons.get(index, "")
            self._add("unreported", f"an unacceptable record has no dead letter: {reason}", source, index)

    def _count_applied(self, source: SourcePartition, index: int, offset: int, due: int) -> None:
        if offset >= due:
            return
        for placement in self._read.slates.missing(source, index):
            if self._read.slates.hidden:
                self._report.unshown += 1
            elif self._read.slates.gone:
                self._report.unverifiable += 1
            else:
                self._report.uncovered += 1
                of = "" if placement == DEFAULT_PLACEMENT else f" of the placement {placement!r}"
                self._add("uncovered", f"it is in a state that no slate{of} shows", source, index, source.seq[index])
                if self._read.slates.placed:
                    self._report.hint(self._read.slates.hint)

    def _forgotten(self, source: SourcePartition, index: int) -> bool:
        """Return whether all states of the record's user may have been deleted.

        The log may have been cut, or it was compacted after somebody asked to forget the user.
        """
        number, changelog = source.user[index], self._read.changelog
        if number != NONE and self._read.source_index.users[number].row != NONE:
            return False
        return changelog.cut or (changelog.gone and _asked_later(source, index))

    def _hidden(self, state: int) -> bool:
        """Return whether an open transaction may hide what became of an acceptable record that is in no state.

        It may hide the record's state. If the model failed on the record, `applied` was moved over it, and the transaction
        may hide its dead letter.
        """
        read = self._read
        return (state == ACCEPTED and read.changelog.hidden) or (
            state in (ACCEPTED, SKIPPED) and read.dead_letters.hidden
        )

    def _add(self, kind: Kind, message: str, source: SourcePartition, index: int, seq: int = -1) -> None:
        number = source.user[index]
        name = self._read.source_index.users[number].name if number != NONE else ""
        position = source.topic, source.partition, source.start + index
        self._report.add(Violation(kind, message, name, seq, *position))


def _asked_later(source: SourcePartition, index: int) -> bool:
    """Return whether a record, or a later one of its user in this partition, is a control record."""
    while index != NONE:
        if source.flags[index] & CONTROL:
            return True
        index = source.after[index]
    return False
