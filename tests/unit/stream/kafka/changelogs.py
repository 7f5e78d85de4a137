"""A changelog partition in memory, and its writers over real RocksDB."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from stream.core.fencing_log import NO_CLAIM, Claim, LeftOut, LogRecord, Written, sift
from stream.core.keys import UTF8
from stream.kafka.fencing import Fence
from stream.kafka.producer import Outgoing
from tests.stores import plain_store


class Log:
    """One partition. silent: the next acknowledgements come without an offset, as for a batch that arrived twice."""

    def __init__(self) -> None:
        self.records: list[Written] = []
        self.silent = 0

    async def send(self, lists: Mapping[tuple[str, int], Sequence[Outgoing]]) -> dict[tuple[str, int], int]:
        ((tp, records),) = lists.items()
        for record in records:
            self.records.append(Written(len(self.records), record.key, record.value, record.headers))
        if self.silent:
            self.silent -= 1
            return {tp: -1}
        return {tp: len(self.records) - 1}

    async def read(self, partition: int, first: int, last: int) -> list[LogRecord]:
        return list(self.records[first : last + 1])

    async def find(self, partition: int) -> Claim:
        return sift(self.records, NO_CLAIM).claim

    def states(self) -> dict[bytes, bytes | None]:
        return dict(sift(self.records, NO_CLAIM).states)

    def kept_by_compaction(self) -> dict[bytes | None, bytes | None]:
        return {record.key: record.value for record in self.records}


class Writer:
    def __init__(
        self, log: Log, folder: Path, topics: Mapping[str, str] | None = None, partitions: int = 2, key: str = UTF8
    ) -> None:
        self.log = log
        self.store = plain_store(folder, "log")
        self.store.prepare(0)
        self.left_out: list[LeftOut] = []
        self._fence(topics, partitions, key)

    @classmethod
    def over(cls, other: Writer, key: str) -> Writer:
        """A worker that is started over the folder of another, which has ended."""
        made = cls.__new__(cls)
        made.log, made.store, made.left_out = other.log, other.store, []
        made._fence(None, 2, key)
        return made

    def _fence(self, topics: Mapping[str, str] | None, partitions: int, key: str) -> None:
        batches: Any = self.log
        read, find = self.log.read, self.log.find
        self.fence = Fence(self.store, lambda: batches, read, find, topics or {}, partitions, self._count, key)

    def _count(self, found: LeftOut) -> None:
        self.left_out.append(found)

    @property
    def fenced(self) -> int:
        return sum(found.fenced for found in self.left_out)

    def take_over(self) -> None:
        asyncio.run(self.fence.take_over([0]))

    def write(self, **states: bytes) -> None:
        """A micro-batch: changelog, check, RocksDB."""
        self.write_keys({user.encode(): value for user, value in states.items()})

    def write_keys(self, states: Mapping[bytes, bytes]) -> None:
        async def batch() -> None:
            sent = [Outgoing(key, value, self.fence.stamp(0)) for key, value in states.items()]
            ends = await self.log.send({("log", 0): sent})
            settled = await self.fence.confirm({0: sent}, {0: ends["log", 0]})
            self.store.write(0, [(one.key, one.value) for one in sent if one.key and one.value], settled[0])

        asyncio.run(batch())
