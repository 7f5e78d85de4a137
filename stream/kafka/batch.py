"""A micro-batch: raw records of the source topics, in one list per topic-partition."""

from __future__ import annotations

from typing import Any, Protocol

from faust.types import TP


class Record(Protocol):
    """The parts of aiokafka's ConsumerRecord that freshet uses.

    Attributes:
        timestamp: Append time in epoch ms.
    """

    @property
    def offset(self) -> int: ...

    @property
    def timestamp(self) -> int: ...

    @property
    def key(self) -> bytes | None: ...

    @property
    def value(self) -> bytes | None: ...

    @property
    def headers(self) -> Any: ...


class MicroBatch:
    """Records that are processed together. `epoch` counts the assignments; a batch of an older one is dropped."""

    __slots__ = ("epoch", "parts", "sent", "size")

    def __init__(self, epoch: int) -> None:
        self.epoch = epoch
        self.parts: dict[TP, list[Record]] = {}
        self.size = 0
        self.sent = False

    def add(self, tp: TP, records: list[Record]) -> None:
        """Append records of one topic-partition, which must come in offset order."""
        have = self.parts.get(tp)
        if have is None:
            self.parts[tp] = records
        else:
            have.extend(records)
        self.size += len(records)
