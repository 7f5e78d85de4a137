"""What lies behind an open transaction of another producer. It exists, but nobody can read it yet, so it is not missing.

A worker does not write in transactions, so a transaction that hides its output is always another producer's. Two ends of a
partition show it: reading stops at the last stable offset, which is the first offset of the open transaction, and this lies
before the log's end.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

from deploy.clients.log_reader import Log, Span, TopicPartition
from deploy.verify.report import Report, Violation


@dataclass
class Undecided:
    """Notes partitions with an open transaction. `hidden` maps each to the offsets that cannot be read yet."""

    hidden: dict[TopicPartition, Span] = field(default_factory=dict)

    def spans(self, log: Log, topics: Sequence[str]) -> dict[TopicPartition, Span]:
        """Return `log.spans`, and note each partition whose end hides records that were there before."""
        tops = log.tops(topics)  # read first: records that come in between do not mean a transaction
        spans = log.spans(topics)
        for tp, span in spans.items():
            if tops[tp] > span.end:
                self.hidden[tp] = Span(span.end, tops[tp])
        return spans

    def note(self, outputs: dict[TopicPartition, Span], report: Report) -> None:
        """Count and note the transactions that hide a worker's output. outputs: The spans of the output partitions."""
        for tp, span in sorted(self.hidden.items()):
            if tp in outputs:
                report.undecided += span.end - span.start
                message = (
                    f"open transaction of another producer from offset {span.start}: {span.end - span.start} offsets behind it "
                    "cannot be checked before it ends"
                )
                report.note(Violation("undecided", message, "", -1, *tp, span.start))
