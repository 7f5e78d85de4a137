"""Compressed batches: every codec of Kafka is read by both clients, none without a bound."""

from __future__ import annotations

import tracemalloc
from collections.abc import Callable
from typing import Any

import pytest
from aiokafka import codec as packers
from aiokafka.consumer import fetcher
from aiokafka.structs import TopicPartition
from kafka.record import default_records, legacy_records, memory_records

from stream.core.errors import DataError
from stream.kafka import decompression
from stream.kafka.lenient_records import Records, bound_unpacking

CODECS = {"gzip": 1, "snappy": 2, "lz4": 3, "zstd": 4}
BOMBS: dict[str, Callable[[bytes], bytes]] = {
    "gzip": packers.gzip_encode, "snappy": packers.snappy_encode, "lz4": packers.lz4_encode, "zstd": packers.zstd_encode,
}  # fmt: skip


def batch(codec: str, value: bytes) -> bytes:
    builder = default_records.DefaultRecordBatchBuilder(
        magic=2, compression_type=CODECS[codec], is_transactional=0, producer_id=-1, producer_epoch=-1, base_sequence=-1,
        batch_size=1 << 30,
    )  # fmt: skip
    for offset in range(2):
        builder.append(offset, timestamp=5, key=b"k", value=value, headers=[])
    return bytes(builder.build())


def by_aiokafka(data: bytes) -> list[bytes]:
    bound_unpacking()
    tp = TopicPartition("clicks", 3)
    return [one.value for one in fetcher.PartitionRecords(tp, Records(data), None, 0, None, None, True, 1)]


def by_kafka_python(data: bytes) -> list[bytes]:
    decompression.bound(default_records, legacy_records)
    batches, found = memory_records.MemoryRecords(data), []
    while batches.has_next():
        found += [one.value for one in batches.next_batch()]
    return found


@pytest.mark.parametrize("read", [by_aiokafka, by_kafka_python])
@pytest.mark.parametrize("codec", CODECS)
def test_every_codec_is_read(codec: str, read: Callable[[bytes], list[bytes]]) -> None:
    assert read(batch(codec, b"abc" * 100_000)) == [b"abc" * 100_000] * 2


@pytest.mark.parametrize("read", [by_aiokafka, by_kafka_python])
@pytest.mark.parametrize("codec", CODECS)
def test_what_unpacks_to_more_than_the_limit_is_refused(
    codec: str, read: Callable[[bytes], list[bytes]], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(decompression, "LIMIT", 1 << 20)
    assert read(batch(codec, bytes(500_000))) == [bytes(500_000)] * 2
    with pytest.raises(DataError, match=f"bytes of {codec}, unpacks to more than 1048576 bytes"):
        read(batch(codec, bytes(1_000_000)))


def test_the_partition_and_the_offset_are_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(decompression, "LIMIT", 1000)
    with pytest.raises(DataError, match=r"^clicks partition 3, from offset 0: a batch of records, "):
        by_aiokafka(batch("zstd", bytes(2000)))


@pytest.mark.parametrize("codec", CODECS)
def test_a_bomb_costs_no_more_memory_than_the_limit(codec: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(decompression, "LIMIT", 8 << 20)
    bomb = BOMBS[codec](bytes(decompression.LIMIT * 4))
    decode: Any = decompression.DECODERS[f"{codec}_decode"]
    tracemalloc.start()
    try:
        with pytest.raises(DataError):
            decode(bomb)
        assert tracemalloc.get_traced_memory()[1] < decompression.LIMIT * 3
    finally:
        tracemalloc.stop()


@pytest.mark.parametrize("codec", CODECS)
def test_a_damaged_batch_is_named(codec: str) -> None:
    packed = BOMBS[codec](b"abcdefgh" * 1000)
    decode: Any = decompression.DECODERS[f"{codec}_decode"]
    cut = packed[: len(packed) // 2]  # zstd gives what it has; the batch's checksum tells
    for damaged in (b"nonsense" * 4, cut) if codec != "zstd" else (b"nonsense" * 4,):
        with pytest.raises(DataError, match=rf"bytes of {codec}, cannot be unpacked"):
            decode(damaged)


def test_snappy_without_javas_framing_is_read() -> None:
    packed = packers.snappy_encode(b"abc" * 1000, xerial_compatible=False)
    assert decompression.snappy(packed) == b"abc" * 1000
