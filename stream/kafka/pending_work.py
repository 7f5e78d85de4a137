"""What a worker has to do now, so that the stall watch can tell waiting from standing still (stream.process.progress)."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from faust.types import TP

from stream.kafka.clients import absent, reached, undecided, unread
from stream.kafka.group_state import GroupState
from stream.kafka.hand_over import HandOver
from stream.kafka.partition_listener import PartitionListener
from stream.kafka.read_back import ReadBack
from stream.kafka.source_positions import SourcePositions
from stream.kafka.source_thread import SourceThread
from stream.process.progress import Work


@dataclass(frozen=True)
class PendingWork:
    """Describes the work of the consumer.

    Attributes:
        app: The Faust app.
        thread: The consumer's thread.
        group: The consumer's state in its group.
        positions: How far each source partition is.
        hand_over: The micro-batches on their way.
        read_back: The changelog records read into RocksDB.
        listener: The owner of the table's partitions.
        committed: Faust's committed offset of each partition.
    """

    app: Any
    thread: SourceThread
    group: GroupState
    positions: SourcePositions
    hand_over: HandOver
    read_back: ReadBack
    listener: PartitionListener
    committed: Mapping[TP, int | None]

    def all(self, recovered: bool) -> dict[str, Work]:
        """Return what there is to do, by the name of the step; `recovered` says whether the states are read back."""
        client = self.thread.client()
        if client is None:
            return {"start": Work("Kafka's client to start", None)}
        if not self.group.joined:
            return {"group": self._join(client)}
        sources = self.app.source_topics
        ours = [tp for tp in self.thread.assignment() if tp.topic in sources]
        away = absent(client, [*ours, *(self.app.changelog(tp.partition) for tp in ours)], group=True)
        if not recovered:
            return {"recovery": self._recovery(client, away)}
        return self._records(client, away) | self._commits(away)

    def _join(self, client: Any) -> Work:
        wanted = f"the group {self.app.conf.id} to assign partitions"
        away = absent(client, group=True)
        return Work(wanted, self.group.rebalances, away, self.thread.joining.held)

    def _recovery(self, client: Any, away: str) -> Work:
        app = self.app
        remaining = app.tables.recovery.active_remaining_total() if app.in_recovery else 0
        wanted = (
            f"states to be read back and claimed: {max(0, remaining)} records of {app.settings.changelog_topic} remain"
        )
        read = reached(client, [app.settings.changelog_topic])  # includes what was compacted or aborted
        held = undecided(client, [app.settings.changelog_topic]) or self.listener.held_up()
        return Work(wanted, (self.group.rebalances, self.read_back.total, remaining, read), away, held)

    def _records(self, client: Any, away: str) -> dict[str, Work]:
        found = {}
        waiting = unread(client, self.app.source_topics, self.hand_over.held)
        wanted = f"source records to be processed, {waiting} of them not read yet"
        done = self.hand_over.finished, self.listener.calls_ended()
        if self.hand_over.pending is not None or self.hand_over.running is not None:
            found["records"] = Work(wanted, done, away, self.listener.held_up())
        if waiting:  # markers and aborted transactions are skipped and produce no micro-batch
            found["unread"] = Work(wanted, (*done, sum(self.positions.next.values())), away)
        return found

    def _commits(self, away: str) -> dict[str, Work]:
        behind = {tp: offset for tp, offset in self.positions.safe.items() if offset > (self.committed.get(tp) or 0)}
        if not behind:
            return {}
        committed = tuple(self.committed.get(tp) for tp in sorted(behind))
        return {"commit": Work(f"offsets of {len(behind)} source partitions to be committed", committed, away)}
