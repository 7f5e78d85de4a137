"""The independent check of freshet's promise: nothing lost, nothing applied twice, every event covered by a slate.

The only code that it shares with the hot path is the codec of the state record. It has its own Kafka client (kafka-python),
its own JSON parsing, and its own murmur2 and chain. The published JSON Schemas decide what is acceptable. One part needs the
models: `recompute` also shares the ONNX sessions and their inputs, and runs only if it is requested.

    scope                 what to check
    ranges                whether the range held anything to check
    accepted_settings     which settings held for a record, if they were changed
    keys                  which user a record's key stands for
    validator             whether a record is acceptable
    source_index          what one partition of the source topics holds
    source_partition      what became of each record of one source topic
    fingerprints          by what a record is found again in a dead letter or a copy
    moved_records         records that were forwarded to the right partition
    producer_log          every send of a producer, with its acknowledgement
    fencing               claims and fences in the changelog
    changelog             the changelog, record by record: order, seq, fence
    changelog_violations  what is wrong with a changelog record
    folded_events         the events that a state names: chain, applied
    duplicates            which ids a state still remembers
    recent_and_seen       a state's recent events and seen items
    recent_events         a state's recent events as bytes
    state_rows            every durable state, by user and seq
    users                 one user while the changelog is followed
    slates                the recommendations: every state shown is durable, every event is named once
    dead_letters          the dead letters
    deleted_records       whether deleted source records had been read
    undecided             what lies behind an open transaction of another producer
    local_store           the RocksDB folders of stopped workers
    recompute             states and slates computed again
    tables                the newest epoch of neighbours and popularity, counted again
    outcomes              what became of each source record
    partition_check       the check of one partition
    check                 the whole check, in order
    report                counts, violations, the exit code

Two modules of deploy.clients belong to it as well: `log_reader` (where records come from: Kafka, or lists in a test) and
`envelopes` (where an event lies in its envelope).
"""

from deploy.verify.check import check, run
from deploy.verify.report import Report, Violation
from deploy.verify.scope import Scope

__all__ = ["Report", "Scope", "Violation", "check", "run"]
