"""The independent check of freshet's promise: nothing lost, nothing applied twice, every event covered by a slate.

The only code that it shares with the hot path is the codec of the state record. It has its own Kafka client (kafka-python),
its own JSON parsing, and its own murmur2 and chain. The published JSON Schemas decide what is acceptable. One part needs the
models: `recompute` also shares the ONNX sessions and their inputs, and runs only if it is requested.

    scope              what to judge
    ranges             whether the range held anything to judge
    accepted_settings  which settings a record was judged by, if they were changed
    keys               which user a record's key stands for
    validator          whether a record is acceptable
    source_index       what one partition of the source topics holds, and what became of each record
    moved_records      records that were forwarded to the right partition
    producer_log       the producer's ledger
    fencing            claims and fences in the changelog
    changelog          the changelog: order, seq, chain, fence
    slates             the recommendations: every state shown is durable, every event is named once
    dead_letters       the dead letters
    deleted_records    whether deleted source records had been read
    undecided          what lies behind an open transaction of another producer
    local_store        the RocksDB folders of stopped workers
    recompute          states and slates computed again
    check              the whole check, in order
    report             counts, violations, the exit code

Two modules of deploy.clients belong to it as well: `log_reader` (where records come from: Kafka, or lists in a test) and
`envelopes` (where an event lies in its envelope).
"""

from deploy.verify.check import check, run
from deploy.verify.report import Report, Violation
from deploy.verify.scope import Scope

__all__ = ["Report", "Scope", "Violation", "check", "run"]
