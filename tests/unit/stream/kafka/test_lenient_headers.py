"""Header names that are not UTF-8: both clients read such records, and all others as ever."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from aiokafka.consumer.fetcher import PartitionRecords
from aiokafka.record.memory_records import MemoryRecords
from aiokafka.structs import TopicPartition
from kafka.record import default_records
from kafka.record import memory_records as kafka_python

from deploy.clients import connect
from stream.kafka.lenient_records import Records
from tests.poison import UNNAMED, Headers

ESCAPED = [("before", b"1"), ("caf\\xe9", b"latin-1"), ("\\xff\\xfe\x00", b"")]


def batches(*rows: list[Headers], codec: int = 0) -> bytes:
    """One record batch a row, one record for each list of headers; offsets from 0 on."""
    made, offset = b"", 0
    for row in rows:
        builder = default_records.DefaultRecordBatchBuilder(
            magic=2, compression_type=codec, is_transactional=0, producer_id=-1, producer_epoch=-1, base_sequence=-1,
            batch_size=1 << 20,
        )  # fmt: skip
        for number, headers in enumerate(row):
            builder.append(number, timestamp=5, key=b"k%d" % number, value=b"v" * 100, headers=headers)
        one = bytearray(builder.build())
        one[:8] = offset.to_bytes(8, "big")  # the base offset: as the broker sets it, outside the checksum
        made, offset = made + bytes(one), offset + len(row)
    return made


def fetched(data: bytes, records: Callable[[bytes], Any]) -> list[tuple[int, bytes, list[tuple[str, bytes]]]]:
    parts = PartitionRecords(TopicPartition("t", 0), records(data), None, 0, None, None, True, 1)
    return [(one.offset, one.key, list(one.headers)) for one in parts]


@pytest.mark.parametrize("codec", [0, 1])
def test_aiokafka_reads_all_of_them_in_order(codec: int) -> None:
    data = batches([[("a", b"1")], UNNAMED, []], [[("b", b"2")]], [UNNAMED] * 3, codec=codec)
    found = fetched(data, Records)
    assert [(offset, key) for offset, key, _ in found] == [
        (0, b"k0"), (1, b"k1"), (2, b"k2"), (3, b"k0"), (4, b"k0"), (5, b"k1"), (6, b"k2"),
    ]  # fmt: skip
    assert [headers for *_, headers in found] == [
        [("a", b"1")], ESCAPED, [], [("b", b"2")], ESCAPED, ESCAPED, ESCAPED,
    ]  # fmt: skip
    with pytest.raises(UnicodeDecodeError):
        fetched(data, MemoryRecords)


def test_aiokafka_reads_others_as_ever() -> None:
    data = batches([[("a", b"1")], []], [[("\u00e9\U0001f600", b"\xff")]])
    assert fetched(data, Records) == fetched(data, MemoryRecords)


@pytest.mark.parametrize("codec", [0, 1])
def test_kafka_python_reads_all_of_them_in_order(codec: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(default_records.DefaultRecordBatch, "_read_msg", connect._read_record)
    records = kafka_python.MemoryRecords(batches([[("a", b"1")], UNNAMED, []], [UNNAMED], codec=codec))
    found = []
    while (batch := records.next_batch()) is not None:
        found += [(one.offset, one.key, one.headers) for one in batch]
    assert found == [(0, b"k0", [("a", b"1")]), (1, b"k1", ESCAPED), (2, b"k2", []), (3, b"k0", ESCAPED)]
