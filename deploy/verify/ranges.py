"""Checks that the requested range held something to check. A typo in a date or an offset must not look like a promise kept."""

from __future__ import annotations

import time
from collections.abc import Mapping

from deploy.clients.log_reader import Log, Span, TopicPartition
from deploy.verify.report import Report, Violation
from deploy.verify.scope import Scope
from stream.core.times import date


def note(log: Log, scope: Scope, spans: Mapping[TopicPartition, Span], report: Report) -> None:
    """Note in the report if the range lies outside the log, or holds no source record.

    The range is `outside` if a start is beyond its partition's end. It is also `outside` if nothing was checked, and the range
    begins in the future, or ends before records that are there. It is `quiet` if nothing was checked, and the range ends after
    the newest record, so nothing has come since.

    Args:
        log: Where the records come from.
        scope: The requested range.
        spans: The offsets of the sources.
        report: Where to note it.
    """
    for tp, start in scope.starts.items():
        if start > spans[tp].end:
            end = spans[tp].end
            message = (
                f"--from-offset: found {start}, expected at most {end}, where the log ends: there is nothing to judge"
            )
            report.outside = True
            report.note(Violation("outside", message, topic=tp[0], partition=tp[1], offset=start))
    ranged = scope.ranged or scope.until is not None
    if report.input or report.outside or not ranged:
        return
    if why := _outside(log, scope, spans):
        report.outside = True
        report.note(Violation("outside", why))
    elif any(span.end > span.start for span in spans.values()):
        report.quiet = True
        report.note(Violation("quiet", "no event came in this range; all events came before it"))


def _outside(log: Log, scope: Scope, spans: Mapping[TopicPartition, Span]) -> str:
    """Return why nothing could be checked; "" if no event has come since the range began."""
    if scope.since is not None and scope.since > time.time() * 1000:
        return f"--since: found {date(scope.since)}, expected a time in the past: nothing can have come since then"
    if scope.until is None:
        return ""
    ends = log.at(dict.fromkeys(spans, scope.until))
    if all(ends[tp] >= span.end for tp, span in spans.items() if span.end > span.start):
        return ""
    return (
        f"--until: no event came in the range that ends at {date(scope.until)}, but events came later: give a range that "
        "holds events"
    )
