"""Reads the changelog back into RocksDB, and refuses a changelog that does not continue what a folder holds."""

from __future__ import annotations

import time
from collections.abc import Callable, Collection, Iterable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

from aiokafka.errors import IllegalStateError
from faust.types import TP

from stream.core.errors import LossError
from stream.kafka.broker_offsets import BrokerOffsets
from stream.kafka.clients import positions
from stream.kafka.group_state import GroupState
from stream.kafka.losses import Losses, states_gone
from stream.kafka.partition_listener import PartitionListener
from stream.kafka.source_thread import SourceThread
from stream.kafka.state_store import apply_changelog
from stream.process.fatal import fatal


@dataclass
class ReadBackFigures:
    """Changelog records read into RocksDB since the last assignment.

    Attributes:
        records: Number of records.
        seconds: Time from the first record to the last.
    """

    records: int = 0
    seconds: float = 0.0
    _first: float = 0.0

    def add(self, records: int, began: float, ended: float) -> None:
        if not self.records:
            self._first = began
        self.records += records
        self.seconds = ended - self._first


class ReadBack:
    """Passes fetched changelog records to RocksDB.

    Args:
        thread: The consumer's thread.
        group: The consumer's state in its group.
        broker: The offsets that the changelog has.
        listener: The owner of the table's partitions.
        losses: Decides about states that are gone.
        recovery: Returns Faust's recovery service.
    Attributes:
        total: Number of records read into RocksDB.
        figures: The same since the last assignment.
        last: The last offset of each changelog partition that is in RocksDB.
    """

    def __init__(
        self,
        thread: SourceThread,
        group: GroupState,
        broker: BrokerOffsets,
        listener: PartitionListener,
        losses: Losses,
        recovery: Callable[[], Any],
    ) -> None:
        self._thread = thread
        self._group = group
        self._broker = broker
        self._listener = listener
        self._losses = losses
        self._recovery = recovery
        self.total = 0
        self.figures = ReadBackFigures()
        self.last: dict[TP, int] = {}

    def begin(self) -> None:
        """Begin to count for a new assignment."""
        self.figures = ReadBackFigures()

    def forget(self) -> None:
        """Forget the partitions, because they were revoked."""
        self.last.clear()

    async def prepare(self, changelogs: Collection[TP], seconds: float) -> None:
        """Open the table's partitions, and refuse a changelog that does not continue what they hold.

        Args:
            changelogs: The assigned partitions of the changelog.
            seconds: How long the broker has to report their offsets.
        """
        async with self._broker.limited(seconds, changelogs):
            logs = await self._broker.logs(changelogs)
        for tp, log in sorted(logs.items()):
            last = self.last[tp] = self._listener.open_partition(tp.partition)
            if log.start <= last + 1 <= log.stop:
                continue
            self._losses.lose(states_gone(tp, last, log), max(0, log.start - last - 1))
            self.last[tp] = log.start - 1
            if last >= log.stop:
                self._listener.drop_partition(tp.partition)
                self._listener.open_partition(tp.partition)

    def write(self, records: Mapping[Any, list[Any]], changelogs: Iterable[TP]) -> Any:
        """Write what a fetch of the partitions `changelogs` has found. Return what Faust must still see of it."""
        began = time.monotonic()
        try:
            left, count, left_out = apply_changelog(self._recovery(), records)
        except Exception as error:
            fatal(error)  # Faust would log it and go on with a hole in the state
        self.last.update((TP(*tp), found[-1].offset) for tp, found in records.items() if found)
        self.total += count
        if count:
            self.figures.add(count, began, time.monotonic())
        if any(left_out):
            self._listener.on_left_out(left_out)
        self._pass_over(changelogs)
        return left

    def _pass_over(self, changelogs: Iterable[TP]) -> None:
        """Count skipped offsets at the end as read.

        Faust ends a recovery with the last record. If a transaction's marker or its aborted records come after that, no
        further record arrives.
        """
        recovery = self._recovery()
        for partition, position in positions(self._thread.client(), {tp.topic for tp in changelogs}).items():
            tp = TP(*partition)
            known = recovery.active_offsets.get(tp)
            if tp in recovery.active_tps and (known is None or known < position - 1):
                recovery.active_offsets[tp] = position - 1

    async def seek_back(self, changelogs: Iterable[Any]) -> None:
        """Seek back to what RocksDB does not have yet, after a rebalance has interrupted a fetch.

        The records of that fetch are dropped, and the new recovery may have sought before the fetch took them.
        """
        wanted = {TP(*tp): self.last[TP(*tp)] + 1 for tp in changelogs if TP(*tp) in self.last}
        if wanted and not self._group.stopping:
            with suppress(IllegalStateError):  # revoked meanwhile; the next owner seeks
                await self._thread.seek_wait(wanted)

    async def seek_into_log(self, offsets: Mapping[TP, int]) -> None:
        """Handle positions at which the broker has no record: seek to the first one, if none that we need is gone.

        Faust begins at the record that we already have, which may be gone.
        """
        try:
            for tp, log in (await self._broker.logs(TP(*tp) for tp in offsets)).items():
                last = self.last.get(tp, -1)
                if last + 1 > log.stop:
                    raise states_gone(tp, last, log)
                if last + 1 < log.start:
                    self._losses.lose(states_gone(tp, last, log), log.start - last - 1)
                    self.last[tp] = log.start - 1
                await self._thread.seek_wait({tp: max(log.start, last + 1)})
        except LossError as error:
            fatal(error)
