"""The whole check, in the order that makes it right on a deployment that goes on working.

1  where the source topics end: what is there now is what the check is about
2  wait, if asked to, until the group has committed all of that
3  the committed offsets: all below them is due
4  where slates and dead letters end, then the changelog (a slate's state is there), then the sources again (a state's
   events are there); what has come since 1 is read, but may be unfinished
5  judge the sources, follow the changelog, then slates and dead letters; then settle every source record
"""

from __future__ import annotations

import time
from collections.abc import Callable

from deploy.verify.history import History
from deploy.verify.judge import Judge
from deploy.verify.ledger import (
    ABSENT,
    ACCEPTED,
    APPLIED,
    DUPLICATE,
    INVALID,
    LETTER,
    NAMED,
    NONE,
    SKIPPED,
    UNSEEN,
    Ledger,
    Shelf,
)
from deploy.verify.letters import Letters
from deploy.verify.log import KafkaLog, Log, Place, Span
from deploy.verify.report import Report, Violation
from deploy.verify.slates import Slates
from stream.errors import TopologyError
from stream.settings import Settings

POLL_SECONDS = 0.2


def run(settings: Settings, wait: float = 0.0) -> Report:
    """Check the deployment that `settings` name. wait: seconds until the group must have committed everything that is
    in the source topics now. Raises BrokerError, TopologyError."""
    log = KafkaLog(settings)
    try:
        return check(log, settings, wait)
    finally:
        log.close()


def check(log: Log, settings: Settings, wait: float = 0.0, sleep: Callable[[float], None] = time.sleep) -> Report:
    """Check what a log holds; `run` does it for Kafka."""
    began = time.monotonic()
    report = Report()
    now = log.spans(settings.sources)
    partitions = _partitions(now, settings)
    committed, in_time = _await(log, now, wait, sleep)
    outputs = log.spans([settings.dead_letters_topic, settings.recommendations_topic])
    states = log.spans([settings.changelog_topic])
    spans = log.spans(settings.sources)
    if len(states) != partitions:
        raise TopologyError(f"{settings.changelog_topic} has {len(states)} partitions, the sources {partitions}")

    ledger = Ledger(settings.sources, spans, Judge(partitions, settings.rating_scale), partitions)
    ledger.read(log, spans)
    history = History(ledger, settings.changelog_topic, partitions, report)
    history.read(log, states)
    count = sum(place[0] == settings.recommendations_topic for place in outputs)
    slates = Slates(ledger, history, settings.recommendations_topic, count, report)
    slates.read(log, outputs)
    letters = Letters(ledger, settings.dead_letters_topic, settings.items_topic, report)
    letters.read(log, outputs)

    for place, offset in committed.items():
        if place in spans and offset > spans[place].end:
            message = f"offset {offset} is committed, the log ends at {spans[place].end}: made anew?"
            report.add(Violation("commit", message, topic=place[0], partition=place[1], offset=offset))
    for shelves in ledger.shelves:
        for shelf in shelves:
            place = (shelf.topic, shelf.partition)
            due = max(committed.get(place, 0), now[place].end if not in_time else 0)
            _settle(shelf, now[place].end, due, ledger, slates, letters, report)
            if shelf.start > 0:
                report.unverifiable += shelf.start  # deleted before anyone could check them
    report.users = sum(user.row != NONE for user in ledger.users)
    report.seconds = round(time.monotonic() - began, 3)
    return report


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


def _settle(shelf: Shelf, end: int, due: int, ledger: Ledger, slates: Slates, letters: Letters, report: Report) -> None:
    """What became of each record. Below `due` it must be finished; from `end` on it came too late to be judged."""

    def blame(kind: str, message: str, index: int, seq: int = -1) -> None:
        number = shelf.user[index]
        name = ledger.users[number].name if number != NONE else ""
        offset = shelf.start + index
        report.add(Violation(kind, message, name, seq, shelf.topic, shelf.partition, offset))

    for index, state in enumerate(shelf.state):
        offset = shelf.start + index
        late = offset >= end
        if state == ABSENT or (late and state == ACCEPTED) or (late and state == INVALID):
            continue
        report.input += 1
        report.accepted += state != INVALID
        if state == INVALID:
            if shelf.flags[index] & LETTER:
                report.dead_letters += 1
            elif offset >= due:
                report.pending += 1
            elif letters.gone:
                report.unverifiable += 1
            else:
                report.unreported += 1
                blame("unreported", f"no dead letter of an unacceptable record: {shelf.reasons[index]}", index)
        elif state == DUPLICATE:
            report.duplicates += 1
        elif state == UNSEEN:
            report.unseen += 1
            report.unverifiable += 1
        elif state == SKIPPED or (state == ACCEPTED and offset < due):
            report.lost += 1
            blame("lost", "acceptable, but in no state" if state == ACCEPTED else "its fence was moved over it", index)
        elif state == ACCEPTED:
            report.pending += 1
        elif state == APPLIED:
            report.applied += 1
            user = ledger.users[shelf.user[index]]
            if shelf.flags[index] & NAMED or shelf.seq[index] <= user.replayed or offset >= due:
                continue
            if slates.gone(user):
                report.unverifiable += 1
            else:
                report.uncovered += 1
                blame("uncovered", "in a state that no slate shows", index, shelf.seq[index])
