"""The independent check of freshet's promise: nothing lost, nothing applied twice, every event covered by a slate.

Shares no code with the hot path beyond the codec of the state record: its own Kafka client (kafka-python), its own
JSON parsing, its own murmur2 and chain, and the published JSON Schemas as the judge of what is acceptable. One part needs the
models, `numbers`: it shares the ONNX sessions and their inputs too, and runs only where it is asked for.

    log      where records come from: Kafka, or lists in a test
    scope    what is to be judged
    ranges   did the range hold anything to judge?
    accepts  by which settings a record was judged, where they were changed
    envelopes  where an event lies in its envelope
    judge    is this record acceptable?
    ledger   what one partition of the source topics holds, and what became of each record
    sends    the producer's ledger
    writers  claims and fences in the changelog
    history  the changelog: order, seq, chain, fence
    slates   the recommendations: every state shown is a durable one, every event is named once
    letters  the dead letters
    deleted  source records that are gone: had they been read?
    disks    the RocksDB folders of stopped workers
    numbers  states and slates computed again
    check    the whole, in order
    report   counts, violations, the exit code
"""

from deploy.verify.check import check, run
from deploy.verify.report import Report, Violation
from deploy.verify.scope import Scope

__all__ = ["Report", "Scope", "Violation", "check", "run"]
