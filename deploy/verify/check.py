"""The whole check, in the order that makes it right on a deployment that goes on working.

1  where the source topics end: what is there now is what the check is about
2  wait, if asked to, until the group has committed all of that
3  the committed offsets: all below them is due
4  where slates and dead letters end, then the changelog (a slate's state is there), then the sources again (a state's
   events are there); what has come since 1 is read, but may be unfinished. What lies behind an open transaction of somebody
   else is there, and nobody can read it yet (deploy.verify.undecided)
5  partition by partition: judge the sources, follow the changelog, then slates and dead letters; then settle every source
   record. A user has one partition number everywhere, so what is kept is what one partition needs
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

from deploy.clients.log_reader import KafkaLog, Log, Place, Span
from deploy.verify import ranges
from deploy.verify.accepted_settings import Accepts
from deploy.verify.changelog import History
from deploy.verify.dead_letters import Letters
from deploy.verify.deleted_records import Read, deleted_unread
from deploy.verify.keys import Keys
from deploy.verify.local_store import disks
from deploy.verify.moved_records import Moves
from deploy.verify.producer_log import Sends, refuse_unreadable
from deploy.verify.report import Report, Violation
from deploy.verify.scope import MARGIN_MS, Scope
from deploy.verify.slates import Slates
from deploy.verify.source_index import (
    ABSENT,
    ACCEPTED,
    APPLIED,
    CULPRIT,
    DUPLICATE,
    INVALID,
    LETTER,
    MOVED,
    NAMED,
    NONE,
    SKIPPED,
    UNSEEN,
    Ledger,
    Shelf,
)
from deploy.verify.undecided import Undecided
from deploy.verify.validator import Judge
from stream.core.errors import TopologyError
from stream.settings import Settings

if TYPE_CHECKING:
    from deploy.verify.recompute import Numbers

POLL_SECONDS = 0.2


def run(settings: Settings, wait: float = 0.0, scope: Scope | None = None) -> Report:
    """Check the deployment that `settings` name. wait: seconds until the group must have committed everything that is
    in the source topics now; scope: more to ask for. Raises BrokerError, TopologyError, DataError, BundleError."""
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
    """Check what a log holds; `run` does it for Kafka."""
    began = time.monotonic()
    scope = scope or Scope()
    report = Report()
    now = log.spans(settings.sources)
    partitions = _partitions(now, settings)
    if scope.ledger is not None:
        refuse_unreadable(
            scope.ledger, settings.sources, partitions, Keys(settings.key)
        )  # before anything that takes long
    numbers = None
    if scope.bundle is not None:
        from deploy.verify.recompute import Numbers

        numbers = Numbers(scope.bundle, scope.users, log, settings, report)
    accepts = scope.accepts(settings, now, numbers.rating_scale if numbers is not None else None)
    if numbers is not None:
        numbers.envelope = accepts.envelope
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
            raise TopologyError(f"{topic} has {count} partitions, the sources {partitions}")
    for place, offset in committed.items():
        if place in spans and offset > spans[place].end:
            message = f"offset {offset} is committed, the log ends at {spans[place].end}: recreated?"
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
        numbers,
    )
    moves = Moves({topic for topic, _ in undecided.hidden})
    for partition in range(partitions):
        part.judge(partition, moves)
    moves.settle(scope.ranged, report)
    if numbers is not None:
        numbers.finish()
    ranges.tell(log, scope, now, report)
    report.seconds = round(time.monotonic() - began, 3)
    return report


@dataclass(frozen=True)
class Part:
    """Judges one partition after the other: a user's events, states, slates and letters all have one partition number."""

    log: Log
    settings: Settings
    scope: Scope
    accepts: Accepts
    partitions: int
    due: dict[Place, tuple[int, int]]
    committed: dict[Place, int]
    limits: dict[Place, int]  # below them a record must be finished
    sources: dict[Place, Span]
    states: dict[Place, Span]
    outputs: dict[Place, Span]
    undecided: Undecided
    report: Report
    numbers: Numbers | None

    def judge(self, partition: int, moves: Moves) -> None:
        """Read one partition and settle its source records. Nothing of it is kept, but what was sent on to another one."""
        report = self.report
        read = self._read(partition)
        moves.see(read.ledger)
        for shelf, index, offset in read.ledger.places():
            _settle(shelf, index, offset, self.limits[shelf.topic, partition], read, moves, report)
        for topic, shelf in enumerate(read.ledger.shelves):
            if shelf.first > 0 and not shelf.narrowed:
                place = shelf.topic, partition
                unread = 0
                if not self.scope.ranged:
                    unread = deleted_unread(
                        topic, shelf, self.committed.get(place, NONE), self.limits[place], read, report
                    )
                report.unverifiable += shelf.first - unread  # deleted before anyone could check them
        report.users += sum(user.row != NONE for user in read.ledger.users)
        if self.numbers is not None:
            mine = {place: span for place, span in {**self.states, **self.outputs}.items() if place[1] == partition}
            self.numbers.collect(read.ledger, self.partitions, mine, mine)

    def _read(self, partition: int) -> Read:
        settings, report, log = self.settings, self.report, self.log
        mine = {place: span for place, span in self.sources.items() if place[1] == partition}
        first = {place: span.start for place, span in mine.items()}
        view = self.scope.view(self.due, mine)
        sends = None
        if self.scope.ledger is not None:
            sends = Sends(self.scope.ledger, settings.sources, partition, self.partitions, Keys(settings.key))
        stored = disks(self.scope.data_dirs, partition)
        accepts = self.accepts
        judge = Judge(self.partitions, accepts.rating_scale, accepts.oldest, accepts.envelope, settings.key)
        ledger = Ledger(settings.sources, view, judge, partition, first, self.due, sends)
        ledger.read(log, view)
        history = History(ledger, settings.changelog_topic, self.partitions, report, stored)
        history.hidden = (settings.changelog_topic, partition) in self.undecided.hidden
        history.read(log, {place: span for place, span in self.states.items() if place[1] == partition})
        outputs = self._outputs(ledger)
        slates = Slates(ledger, history, settings.recommendations_topic, self.partitions, report)
        slates.read(log, outputs)
        slates.hidden = (settings.recommendations_topic, partition) in self.undecided.hidden
        letters = Letters(ledger, settings.dead_letters_topic, settings.items_topic, report)
        letters.read(log, outputs)
        letters.hidden = (settings.dead_letters_topic, partition) in self.undecided.hidden
        for disk in stored:
            if not history.hidden:  # what it has read back lies there, too
                disk.judge(ledger, history, settings.changelog_topic, report)
        if sends is not None:
            ends = {place: span.end for place, span in log.spans(settings.sources).items()}
            sends.judge(ledger, ends, report)
        return Read(ledger, history, slates, letters, sends)

    def _outputs(self, ledger: Ledger) -> dict[Place, Span]:
        """Slates and letters: from a little before the oldest record that is judged, where the range leaves some out."""
        mine = {place: span for place, span in self.outputs.items() if place[1] == ledger.partition}
        if not self.scope.ranged:
            return mine
        if ledger.since == NONE:
            return {place: Span(span.end, span.end) for place, span in mine.items()}
        starts = self.log.at(dict.fromkeys(mine, ledger.since - MARGIN_MS))
        return {place: Span(min(max(starts[place], span.start), span.end), span.end) for place, span in mine.items()}


def _partitions(spans: dict[Place, Span], settings: Settings) -> int:
    counts = {topic: sum(place[0] == topic for place in spans) for topic in settings.sources}
    if len(set(counts.values())) > 1:
        raise TopologyError(f"the source topics differ in partitions: {counts}")
    return counts[settings.sources[0]]


def _await(
    log: Log, now: dict[Place, Span], wait: float, sleep: Callable[[float], None]
) -> tuple[dict[Place, int], bool]:
    """Committed offsets, once they have reached the ends `now` or the time is up (False: it was waited in vain)."""
    deadline = time.monotonic() + wait
    while True:
        committed = log.committed()
        behind = any(span.end > span.start and committed.get(place, -1) < span.end for place, span in now.items())
        if not behind or wait <= 0:
            return committed, True
        if time.monotonic() >= deadline:
            return committed, False
        sleep(POLL_SECONDS)


def _forgotten(shelf: Shelf, index: int, read: Read) -> bool:
    """All states of the record's user may have been deleted."""
    number = shelf.user[index]
    return read.history.cut and (number == NONE or read.ledger.users[number].row == NONE)


def _hidden(state: int, read: Read) -> bool:
    """What became of an acceptable record that is in no state lies behind an open transaction, as far as can be told: its state,
    or the dead letter of one that the model failed on, over which a fence was moved."""
    return (state == ACCEPTED and read.history.hidden) or (state in (ACCEPTED, SKIPPED) and read.letters.hidden)


def _settle(shelf: Shelf, index: int, offset: int, due: int, read: Read, moves: Moves, report: Report) -> None:
    """What became of one record. Below `due` it must be finished."""
    ledger = read.ledger
    state, flags = shelf.state[index], shelf.flags[index]

    def blame(kind: str, message: str, seq: int = -1) -> None:
        number = shelf.user[index]
        name = ledger.users[number].name if number != NONE else ""
        report.add(Violation(kind, message, name, seq, shelf.topic, shelf.partition, offset))

    if state == ABSENT:
        return
    report.input += 1
    report.accepted += state != INVALID
    if state == INVALID:
        if flags & LETTER:
            report.dead_letters += 1
        elif flags & MOVED:
            moves.add(shelf, index, offset, due, read.letters.gone)
        elif offset >= due or read.letters.hidden:
            report.pending += 1
        elif read.letters.gone:
            report.unverifiable += 1
        else:
            report.unreported += 1
            blame("unreported", f"no dead letter of an unacceptable record: {shelf.reasons.get(index, '')}")
    elif state == DUPLICATE:
        report.duplicates += 1
    elif flags & CULPRIT:
        report.inference += 1
    elif state == UNSEEN or (state == ACCEPTED and offset < due and _forgotten(shelf, index, read)):
        report.unseen += 1
        report.unverifiable += 1
    elif offset < due and _hidden(state, read):
        report.pending += 1
    elif state == SKIPPED or (state == ACCEPTED and offset < due):
        report.lost += 1
        blame("lost", "acceptable, but in no state" if state == ACCEPTED else "its fence was moved over it")
    elif state == ACCEPTED:
        report.pending += 1
    elif state == APPLIED:
        report.applied += 1
        user = ledger.users[shelf.user[index]]
        if flags & NAMED or shelf.seq[index] <= user.replayed or offset >= due:
            return
        if read.slates.hidden:
            report.unshown += 1
        elif read.slates.gone:
            report.unverifiable += 1
        else:
            report.uncovered += 1
            blame("uncovered", "in a state that no slate shows", shelf.seq[index])
