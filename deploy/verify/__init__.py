"""The independent check of freshet's promise: nothing lost, nothing applied twice, every event covered by a slate.

Shares no code with the hot path beyond the codec of the state record: its own Kafka client (kafka-python), its own
JSON parsing, its own murmur2 and chain, and the published JSON Schemas as the judge of what is acceptable.

    log      where records come from: Kafka, or lists in a test
    judge    is this record acceptable?
    ledger   what the source topics hold, and what became of each record
    history  the changelog: order, seq, chain, fence
    slates   the recommendations: every state shown is a durable one, every event is named once
    letters  the dead letters
    check    the whole, in order
    report   counts, violations, the exit code
"""

from deploy.verify.check import check, run
from deploy.verify.report import Report, Violation

__all__ = ["Report", "Violation", "check", "run"]
