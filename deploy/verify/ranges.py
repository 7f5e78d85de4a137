"""Did the range that was asked for hold anything to judge? A slip in a date or an offset must not read as a promise kept."""

from __future__ import annotations

import time
from collections.abc import Mapping

from deploy.clients.log_reader import Log, Place, Span
from deploy.verify.report import Report, Violation
from deploy.verify.scope import Scope
from stream.core.times import date


def tell(log: Log, scope: Scope, spans: Mapping[Place, Span], report: Report) -> None:
    """Say in the report where the range lies outside the log, or holds no source record. spans: the sources' offsets.

    outside: a start is beyond its partition's end; or nothing was judged, and the range begins in the future, or ends before
    records that are there. quiet: nothing was judged, and the range ends behind the newest record: nothing has come since.
    """
    for place, start in scope.starts.items():
        if start > spans[place].end:
            end = spans[place].end
            said = (
                f"--from-offset: found {start}, expected at most {end}, where the log ends: nothing is there to judge"
            )
            report.outside = True
            report.note(Violation("outside", said, topic=place[0], partition=place[1], offset=start))
    ranged = scope.ranged or scope.until is not None
    if report.input or report.outside or not ranged:
        return
    if why := _outside(log, scope, spans):
        report.outside = True
        report.note(Violation("outside", why))
    elif any(span.end > span.start for span in spans.values()):
        report.quiet = True
        report.note(Violation("quiet", "no event came in this range, all that are there came before it"))


def _outside(log: Log, scope: Scope, spans: Mapping[Place, Span]) -> str:
    """Why nothing could be judged; "" where nothing was there to come."""
    if scope.since is not None and scope.since > time.time() * 1000:
        return f"--since: found {date(scope.since)}, expected a time before now: nothing has come since then, whatever is there"
    if scope.until is None:
        return ""
    ends = log.at(dict.fromkeys(spans, scope.until))
    if all(ends[place] >= span.end for place, span in spans.items() if span.end > span.start):
        return ""
    return (
        f"--until: no event came in the range that ends at {date(scope.until)}, and others came later: give a range that holds "
        "events"
    )
