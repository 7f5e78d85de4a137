"""What lies behind an open transaction of somebody else: it is there, and nobody can read it yet, so nothing is missing for it.

A worker writes in no transactions, so what hides its output is always another producer's. Kafka tells it by two ends of a
partition: the last stable offset, at which reading stops, is the first of the open transaction, and lies before the log's end.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

from deploy.clients.log_reader import Log, Place, Span
from deploy.verify.report import Report, Violation


@dataclass
class Undecided:
    """hidden: partitions with an open transaction -> the offsets that cannot be read yet."""

    hidden: dict[Place, Span] = field(default_factory=dict)

    def spans(self, log: Log, topics: Sequence[str]) -> dict[Place, Span]:
        """`log.spans`; notes where something that was there before lies behind their ends."""
        tops = log.tops(topics)  # first: what comes meanwhile is no sign of a transaction
        spans = log.spans(topics)
        for place, span in spans.items():
            if tops[place] > span.end:
                self.hidden[place] = Span(span.end, tops[place])
        return spans

    def tell(self, outputs: dict[Place, Span], report: Report) -> None:
        """Count and show what hides a worker's output. outputs: the spans of those partitions."""
        for place, span in sorted(self.hidden.items()):
            if place in outputs:
                report.undecided += span.end - span.start
                message = (
                    f"open transaction of another producer from offset {span.start}: {span.end - span.start} offsets behind it "
                    "cannot be judged before it ends"
                )
                report.note(Violation("undecided", message, "", -1, *place, span.start))
