"""The whole check, in an order that gives the right answer while the deployment keeps working.

1  Read where the source topics end. The check covers what is there now.
2  Wait, if requested, until the group has committed all of that.
3  Read the committed offsets. Everything below them is due.
4  Read where slates and dead letters end, then where the changelog ends (it holds the state of every slate), then where the
   sources end now (they hold the events of every state), then the topic of bundles (it says which bundle made every slate).
   What has come since step 1 is read, but may be unfinished. Records behind an open transaction of another producer exist,
   but nobody can read them yet (deploy.verify.undecided).
5  For each partition: validate the sources, follow the changelog, read slates and dead letters, then count what became of
   every source record. A user has the same partition number in every topic, so memory holds only what one partition needs.
6  If requested, count the newest epoch of the tables again (deploy.verify.tables).
"""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import TYPE_CHECKING

from deploy.clients.log_reader import KafkaLog, Log, Span, TopicPartition
from deploy.verify import bundle_switches, ranges
from deploy.verify.keys import Keys
from deploy.verify.moved_records import Moves
from deploy.verify.partition_check import PartitionCheck
from deploy.verify.producer_log import refuse_unreadable
from deploy.verify.report import Report, Violation
from deploy.verify.scope import Scope
from deploy.verify.tables import check_tables
from deploy.verify.undecided import Undecided
from deploy.verify.withdrawn import WithdrawnItems
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
        scope: What to check, and by what; None for everything in the log.

    Raises:
        BrokerError: No broker answers, or it denies access.
        TopologyError: Topics are missing or do not fit together, or the setting `key` is not the workers'.
        DataError: The producer log, a folder or a part of the scope is not usable.
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
    count = _partitions(now, settings)
    if scope.producer_log is not None:  # before any step that takes long
        refuse_unreadable(scope.producer_log, settings.sources, count, Keys(settings.key))
    recomputation = _recomputation(log, settings, scope, report)
    accepts = scope.accepts(settings, now, recomputation.rating_scale if recomputation is not None else None)
    due = scope.due(log, now)
    committed, in_time = _await(log, now, max(wait, scope.wait), sleep)
    undecided = Undecided()
    outputs = undecided.spans(log, [settings.dead_letters_topic, settings.recommendations_topic])
    states = undecided.spans(log, [settings.changelog_topic])
    sources = undecided.spans(log, settings.sources)
    bundles = bundle_switches.read(log, settings.bundles_topic, undecided)
    undecided.note({**outputs, **states, **bundles.spans}, report)
    _refuse_other_counts({**outputs, **states}, count, settings)
    _check_committed(committed, sources, report)

    limits = {tp: max(committed.get(tp, 0), 0 if in_time else span.end) for tp, span in now.items()}
    partition_check = PartitionCheck(
        log, settings, scope, accepts, count, due, committed, limits, sources, states, outputs, undecided, report,
        recomputation, WithdrawnItems(log, settings, scope.reissue_limit, report), bundles,
    )  # fmt: skip
    moves = Moves({topic for topic, _ in undecided.hidden})
    for partition in range(count):
        partition_check.run(partition, moves)
    moves.settle(scope.ranged, report)
    if recomputation is not None:
        recomputation.finish()
    if scope.tables:
        check_tables(log, settings, accepts, scope.bundle, report, count)
    ranges.note(log, scope, now, report)
    report.seconds = round(time.monotonic() - began, 3)
    return report


def _recomputation(log: Log, settings: Settings, scope: Scope, report: Report) -> Recomputation | None:
    """Load the bundle, if one is given. Only then is ONNX Runtime imported."""
    if scope.bundle is None:
        return None
    from deploy.verify.recompute import Recomputation

    return Recomputation(scope.bundle, scope.users, log, settings, report)


def _refuse_other_counts(spans: dict[TopicPartition, Span], expected: int, settings: Settings) -> None:
    for topic in (settings.changelog_topic, settings.dead_letters_topic, settings.recommendations_topic):
        count = sum(name == topic for name, _ in spans)
        if count != expected:
            raise TopologyError(f"topic {topic} has {count} partitions, expected {expected}, as the source topics have")


def _check_committed(committed: dict[TopicPartition, int], spans: dict[TopicPartition, Span], report: Report) -> None:
    """Report committed offsets beyond the ends of their logs."""
    for tp, offset in committed.items():
        if tp in spans and offset > spans[tp].end:
            message = f"offset {offset} is committed, but the log ends at {spans[tp].end}: was the topic recreated?"
            report.add(Violation("commit", message, topic=tp[0], partition=tp[1], offset=offset))


def _partitions(spans: dict[TopicPartition, Span], settings: Settings) -> int:
    counts = {topic: sum(name == topic for name, _ in spans) for topic in settings.sources}
    if len(set(counts.values())) > 1:
        raise TopologyError(
            f"the source topics differ in their number of partitions: found {counts}, expected the same for all"
        )
    return counts[settings.sources[0]]


def _await(
    log: Log, now: dict[TopicPartition, Span], wait: float, sleep: Callable[[float], None]
) -> tuple[dict[TopicPartition, int], bool]:
    """Return the committed offsets once they have reached the ends `now`, or once the time is up.

    The second value is False if the time ran out first.
    """
    deadline = time.monotonic() + wait
    while True:
        committed = log.committed()
        behind = any(span.end > span.start and committed.get(tp, -1) < span.end for tp, span in now.items())
        if not behind or wait <= 0:
            return committed, True
        if time.monotonic() >= deadline:
            return committed, False
        sleep(POLL_SECONDS)
