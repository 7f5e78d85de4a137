"""Faust with batch-native sources: whole lists of raw records go from aiokafka to one agent as micro-batches.

Faust keeps the app, agent, table, assignment, rebalance, recovery, standbys, the commit timer and the shutdown. For the
source topics only, an own consumer hands over micro-batches, keeps the offsets to commit, and guards a heartbeat lease.
With stream.store, stream.clients and stream.lasting this is the only place that touches private names of Faust, mode and aiokafka
(docs/decisions/0002).
"""

from stream.transport.application import SourceApp
from stream.transport.batch import MicroBatch, Record
from stream.transport.consumer import SourceConsumer
from stream.transport.cuts import items_cut
from stream.transport.epochs import watch_epochs
from stream.transport.fencing import ChangelogReader, Fence
from stream.transport.membership import Membership, take
from stream.transport.names import check_private_names
from stream.transport.producer import Outgoing, RecordBatches
from stream.transport.records import bound_unpacking, escape_header_names

__all__ = [
    "ChangelogReader",
    "Fence",
    "Membership",
    "MicroBatch",
    "Outgoing",
    "Record",
    "RecordBatches",
    "SourceApp",
    "SourceConsumer",
    "bound_unpacking",
    "check_private_names",
    "escape_header_names",
    "items_cut",
    "take",
    "watch_epochs",
]
