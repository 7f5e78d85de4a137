"""The whole check, in an order that gives the right answer while the deployment keeps working.

1  Read where the source topics end. The check covers what is there now.
2  Wait, if requested, until the group has committed all of that.
3  Read the committed offsets. Everything below them is due.
4  Read where slates and dead letters end, then where the changelog ends (it holds the state of every slate), then where the
   sources end now (they hold the events of every state). What has come since step 1 is read, but may be unfinished. Records
   behind an open transaction of another producer exist, but nobody can read them yet (deploy.verify.undecided).
5  For each partition: judge the sources, follow the changelog, read slates and dead letters, then settle every source
   record. A user has the same partition number in every topic, so memory holds only what one partition needs.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

from deploy.clients.log_reader import KafkaLog, Log, Place, Span
from deploy.verify import ranges
from deploy.verify.accepted_settings import Accepts
from deploy.verify.changelog import Changelog
from deploy.verify.dead_letters import DeadLetters
from deploy.verify.deleted_records import Read, deleted_unread
from deploy.verify.keys import Keys
from deploy.verify.local_store import local_stores
from deploy.verify.moved_records import Moves
from deploy.verify.producer_log import ProducerLog, refuse_unreadable
from deploy.verify.report import Kind, Report, Violation
from deploy.verify.scope import MARGIN_MS, Scope
from deploy.verify.slates import Slates
from deploy.verify.source_index import (
    ABSENT,
    ACCEPTED,
    APPLIED,
    DUPLICATE,
    INVALID,
    LETTER,
    MOVED,
    NAMED,
    NONE,
    POISON,
    SKIPPED,
    UNSEEN,
    SourceIndex,
    SourcePartition,
)
from deploy.verify.undecided import Undecided
from deploy.verify.validator import Validator
from stream.core.errors import TopologyError
from stream.settings import Settings

if TYPE_CHECKING:
    from deploy.verify.recompute import Recomputation

POLL_SECONDS = 0.2


def run(settings: Settings, wait: float = 0.0, scope: Scope | None = None) -> Report:
    """Check the deployment that `settings` name.

    Args:
        settings: Settings of the deployment.
        wait: Seconds within which the group must have committed everything that is in the source topics now.
        scope: What to judge, and by what; None for everything in the log.

    Raises:
        BrokerError: No broker answers, or it denies access.
        TopologyError: Topics are missing or do not fit together, or the setting `key` is not the workers'.
        DataError: The ledger, a folder or a part of the scope is not usable.
        BundleError: The bundle is not usable.
        SettingsError: The rating scale is not the bundle's.
    """
    log = KafkaLog(settings)
    try:
        return check(log, settings, wait, scope=scope)
    finally:
        log.close()


def check(
    log: Log,
    settings: Settings,
    wait: float = 0.0,
    sleep: Callable[[float], None] = time.sleep,
    scope: Scope | None = None,
) -> Report:
    """Check what a log holds. `run` does this for Kafka."""
    began = time.monotonic()
    scope = scope or Scope()
    report = Report()
    now = log.spans(settings.sources)
    partitions = _partitions(now, settings)
    if scope.ledger is not None:
        refuse_unreadable(
            scope.ledger, settings.sources, partitions, Keys(settings.key)
        )  # before any step that takes long
    recomputation = None
    if scope.bundle is not None:
        from deploy.verify.recompute import Recomputation

        recomputation = Recomputation(scope.bundle, scope.users, log, settings, report)
    accepts = scope.accepts(settings, now, recomputation.rating_scale if recomputation is not None else None)
    if recomputation is not None:
        recomputation.envelope = accepts.envelope
    due = scope.due(log, now)
    committed, in_time = _await(log, now, max(wait, scope.wait), sleep)
    undecided = Undecided()
    outputs = undecided.spans(log, [settings.dead_letters_topic, settings.recommendations_topic])
    states = undecided.spans(log, [settings.changelog_topic])
    spans = undecided.spans(log, settings.sources)
    undecided.tell({**outputs, **states}, report)
    for topic in (settings.changelog_topic, settings.dead_letters_topic, settings.recommendations_topic):
        count = sum(place[0] == topic for place in {**outputs, **states})
        if count != partitions:
            raise TopologyError(
                f"topic {topic} has {count} partitions, expected {partitions}, as the source topics have"
            )
    for place, offset in committed.items():
        if place in spans and offset > spans[place].end:
            message = f"offset {offset} is committed, but the log ends at {spans[place].end}: was the topic recreated?"
            report.add(Violation("commit", message, topic=place[0], partition=place[1], offset=offset))

    limits = {place: max(committed.get(place, 0), 0 if in_time else span.end) for place, span in now.items()}
    part = Part(
        log,
        settings,
        scope,
        accepts,
        partitions,
        due,
        committed,
        limits,
        spans,
        states,
        outputs,
        undecided,
        report,
        recomputation,
    )
    moves = Moves({topic for topic, _ in undecided.hidden})
    for partition in range(partitions):
        part.check(partition, moves)
    moves.settle(scope.ranged, report)
    if recomputation is not None:
        recomputation.finish()
    ranges.tell(log, scope, now, report)
    report.seconds = round(time.monotonic() - began, 3)
    return report


@dataclass(frozen=True)
class Part:
    """Judges one partition after the other. A user's events, states, slates and letters all have the same partition number.

    Attributes:
        limits: Offsets below which a record must be finished.
    """

    log: Log
    settings: Settings
    scope: Scope
    accepts: Accepts
    partitions: int
    due: dict[Place, tuple[int, int]]
    committed: dict[Place, int]
    limits: dict[Place, int]
    sources: dict[Place, Span]
    states: dict[Place, Span]
    outputs: dict[Place, Span]
    undecided: Undecided
    report: Report
    recomputation: Recomputation | None

    def check(self, partition: int, moves: Moves) -> None:
        """Read one partition and settle its source records. Keep only what was forwarded to another partition."""
        report = self.report
        read = self._read(partition)
        moves.see(read.source_index)
        for source, index, offset in read.source_index.places():
            _settle(source, index, offset, self.limits[source.topic, partition], read, moves, report)
        for topic, source in enumerate(read.source_index.sources):
            if source.first > 0 and not source.narrowed:
                place = source.topic, partition
                unread = 0
                if not self.scope.ranged:
                    unread = deleted_unread(
                        topic, source, self.committed.get(place, NONE), self.limits[place], read, report
                    )
                report.unverifiable += source.first - unread  # deleted before anyone could check them
        report.users += sum(user.row != NONE for user in read.source_index.users)
        if self.recomputation is not None:
            mine = {place: span for place, span in {**self.states, **self.outputs}.items() if place[1] == partition}
            self.recomputation.collect(read.source_index, self.partitions, mine, mine)

    def _read(self, partition: int) -> Read:
        settings, report, log = self.settings, self.report, self.log
        mine = {place: span for place, span in self.sources.items() if place[1] == partition}
        first = {place: span.start for place, span in mine.items()}
        view = self.scope.view(self.due, mine)
        producer_log = None
        if self.scope.ledger is not None:
            producer_log = ProducerLog(
                self.scope.ledger, settings.sources, partition, self.partitions, Keys(settings.key)
            )
        stored = local_stores(self.scope.data_dirs, partition)
        accepts = self.accepts
        validator = Validator(self.partitions, accepts.rating_scale, accepts.oldest, accepts.envelope, settings.key)
        source_index = SourceIndex(settings.sources, view, validator, partition, first, self.due, producer_log)
        source_index.read(log, view)
        changelog = Changelog(source_index, settings.changelog_topic, self.partitions, report, stored)
        changelog.hidden = (settings.changelog_topic, partition) in self.undecided.hidden
        changelog.read(log, {place: span for place, span in self.states.items() if place[1] == partition})
        outputs = self._outputs(source_index)
        slates = Slates(source_index, changelog, settings.recommendations_topic, self.partitions, report)
        slates.read(log, outputs)
        slates.hidden = (settings.recommendations_topic, partition) in self.undecided.hidden
        dead_letters = DeadLetters(source_index, settings.dead_letters_topic, settings.items_topic, report)
        dead_letters.read(log, outputs)
        dead_letters.hidden = (settings.dead_letters_topic, partition) in self.undecided.hidden
        for local_store in stored:
            if not changelog.hidden:  # what the store has read back lies there, too
                local_store.check(source_index, changelog, settings.changelog_topic, report)
        if producer_log is not None:
            ends = {place: span.end for place, span in log.spans(settings.sources).items()}
            producer_log.check(source_index, ends, report)
        return Read(source_index, changelog, slates, dead_letters, producer_log)

    def _outputs(self, source_index: SourceIndex) -> dict[Place, Span]:
        """Return the spans of slates and letters to read.

        If the range leaves records out, they begin a little before the oldest record that is judged.
        """
        mine = {place: span for place, span in self.outputs.items() if place[1] == source_index.partition}
        if not self.scope.ranged:
            return mine
        if source_index.since == NONE:
            return {place: Span(span.end, span.end) for place, span in mine.items()}
        starts = self.log.at(dict.fromkeys(mine, source_index.since - MARGIN_MS))
        return {place: Span(min(max(starts[place], span.start), span.end), span.end) for place, span in mine.items()}


def _partitions(spans: dict[Place, Span], settings: Settings) -> int:
    counts = {topic: sum(place[0] == topic for place in spans) for topic in settings.sources}
    if len(set(counts.values())) > 1:
        raise TopologyError(
            f"the source topics differ in their number of partitions: found {counts}, expected the same for all"
        )
    return counts[settings.sources[0]]


def _await(
    log: Log, now: dict[Place, Span], wait: float, sleep: Callable[[float], None]
) -> tuple[dict[Place, int], bool]:
    """Return the committed offsets once they have reached the ends `now`, or once the time is up.

    The second value is False if the time ran out first.
    """
    deadline = time.monotonic() + wait
    while True:
        committed = log.committed()
        behind = any(span.end > span.start and committed.get(place, -1) < span.end for place, span in now.items())
        if not behind or wait <= 0:
            return committed, True
        if time.monotonic() >= deadline:
            return committed, False
        sleep(POLL_SECONDS)


def _forgotten(source: SourcePartition, index: int, read: Read) -> bool:
    """Return whether all states of the record's user may have been deleted."""
    number = source.user[index]
    return read.changelog.cut and (number == NONE or read.source_index.users[number].row == NONE)


def _hidden(state: int, read: Read) -> bool:
    """Return whether an open transaction may hide what became of an acceptable record that is in no state.

    It may hide the record's state. If the model failed on the record, `applied` was moved over it, and the transaction may
    hide its dead letter.
    """
    return (state == ACCEPTED and read.changelog.hidden) or (state in (ACCEPTED, SKIPPED) and read.dead_letters.hidden)


def _settle(
    source: SourcePartition, index: int, offset: int, due: int, read: Read, moves: Moves, report: Report
) -> None:
    """Count what became of one record. If its offset is below `due`, it must be finished."""
    source_index = read.source_index
    state, flags = source.state[index], source.flags[index]

    def blame(kind: Kind, message: str, seq: int = -1) -> None:
        number = source.user[index]
        name = source_index.users[number].name if number != NONE else ""
        report.add(Violation(kind, message, name, seq, source.topic, source.partition, offset))

    if state == ABSENT:
        return
    report.input += 1
    report.accepted += state != INVALID
    if state == INVALID:
        if flags & LETTER:
            report.dead_letters += 1
        elif flags & MOVED:
            moves.add(source, index, offset, due, read.dead_letters.gone)
        elif offset >= due or read.dead_letters.hidden:
            report.pending += 1
        elif read.dead_letters.gone:
            report.unverifiable += 1
        else:
            report.unreported += 1
            blame("unreported", f"an unacceptable record has no dead letter: {source.reasons.get(index, '')}")
    elif state == DUPLICATE:
        report.duplicates += 1
    elif flags & POISON:
        report.inference += 1
    elif state == UNSEEN or (state == ACCEPTED and offset < due and _forgotten(source, index, read)):
        report.unseen += 1
        report.unverifiable += 1
    elif offset < due and _hidden(state, read):
        report.pending += 1
    elif state == SKIPPED or (state == ACCEPTED and offset < due):
        report.lost += 1
        blame("lost", "it is acceptable, but in no state" if state == ACCEPTED else "`applied` was moved over it")
    elif state == ACCEPTED:
        report.pending += 1
    elif state == APPLIED:
        report.applied += 1
        user = source_index.users[source.user[index]]
        if flags & NAMED or source.seq[index] <= user.flagged or offset >= due:
            return
        if read.slates.hidden:
            report.unshown += 1
        elif read.slates.gone:
            report.unverifiable += 1
        else:
            report.uncovered += 1
            blame("uncovered", "it is in a state that no slate shows", source.seq[index])
