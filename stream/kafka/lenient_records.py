"""A replacement for aiokafka's fetched records.

With it a header name that is not UTF-8 stops no consumer (stream.kafka.lenient_headers), every codec of Kafka is read,
and no batch unpacks to more than the limit (stream.kafka.decompression). Code that must account for each offset sees
the batches.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

from aiokafka.consumer import fetcher
from aiokafka.record import _crecords, default_records, legacy_records
from aiokafka.record.default_records import _DefaultRecordBatchPy
from aiokafka.record.memory_records import MemoryRecords

from stream.core.errors import DataError
from stream.kafka import decompression
from stream.kafka.lenient_headers import Escaping

_LENGTH = slice(8, 12)  # length of a batch, after its base offset; counted from the end of this field
_COUNT = slice(57, 61)  # number of its records


class EscapingBatch(_DefaultRecordBatchPy):
    """aiokafka's slow reader, over a buffer that escapes invalid UTF-8."""

    _buffer: Any

    def __iter__(self) -> EscapingBatch:
        self._maybe_uncompress()
        self._buffer = Escaping(self._buffer)
        return self


class Batch:
    """One record batch for the fetcher. aiokafka's fast reader reads it, or the slow one if the fast one fails on a name."""

    def __init__(self, batch: Any, raw: memoryview) -> None:
        self._batch = batch
        self._raw = raw

    def __getattr__(self, name: str) -> Any:
        return getattr(self._batch, name)

    @property
    def whole(self) -> bool:
        """Whether it has a record at each of its offsets, so none was compacted away."""
        return int.from_bytes(self._raw[_COUNT], "big") == int(self._batch.last_offset_delta) + 1

    def __next__(self) -> Any:  # used for control batches
        return next(self._batch)

    def __iter__(self) -> Iterator[Any]:
        try:
            yield from self._batch
        except UnicodeDecodeError:
            yield from EscapingBatch(self._raw)  # from the start: the fetcher skips what it has already read


class Records:
    """Replaces aiokafka's MemoryRecords."""

    def __init__(self, data: bytes) -> None:
        self._data = memoryview(data)
        self._records = MemoryRecords(data)
        self._at = 0
        self.on_batch: Callable[[Batch], None] = lambda batch: None

    def has_next(self) -> bool:
        return bool(self._records.has_next())

    def size_in_bytes(self) -> int:
        return int(self._records.size_in_bytes())

    def next_batch(self) -> Batch:
        rest = self._data[self._at :]
        raw = rest[: 12 + int.from_bytes(rest[_LENGTH], "big")]
        self._at += len(raw)
        batch = Batch(self._records.next_batch(), raw)
        self.on_batch(batch)
        return batch


class PartitionRecords(fetcher.PartitionRecords):
    """aiokafka's PartitionRecords, except that an error in a batch names its partition and offset."""

    def __next__(self) -> Any:
        try:
            return super().__next__()
        except DataError as error:
            at = f"{self._tp.topic} partition {self._tp.partition}, from offset {self.next_fetch_offset}"
            raise DataError(f"{at}: {error}") from None


def bound_unpacking() -> None:
    """Make aiokafka's consumers in this process read every codec, but no batch that unpacks to more than the limit."""
    decompression.bound(default_records, legacy_records, _crecords.default_records, _crecords.legacy_records)
    fetcher.PartitionRecords = PartitionRecords


def escape_header_names() -> None:
    """Make aiokafka's consumers in this process read records with `Records`, which escapes header names."""
    fetcher.MemoryRecords = Records
