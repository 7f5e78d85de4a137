"""Record batches that a worker sends: which are compressed, and by what."""

from __future__ import annotations

import asyncio
from types import SimpleNamespace
from typing import Any

import pytest
from aiokafka.producer.message_accumulator import BatchBuilder
from aiokafka.record.memory_records import MemoryRecords

from stream.kafka.producer import CODECS, Outgoing, RecordBatches, codecs_of
from stream.settings import load

ROWS = [Outgoing(b"user%d" % number, b"state of a user " * 20, [("name", b"value")]) for number in range(50)]


def written(codecs: dict[str, int]) -> dict[str, bytes]:
    """Send ROWS to two topics -> the bytes of each topic's batch."""
    sent: dict[str, bytes] = {}

    async def send_batch(batch: Any, topic: str, *, partition: int) -> asyncio.Future[Any]:
        future = asyncio.get_running_loop().create_future()
        future.set_result(SimpleNamespace(timestamp_type=0, offset=7))
        sent[topic] = bytes(batch._build())
        return future

    producer = SimpleNamespace(create_batch=lambda: BatchBuilder(1 << 20, 0), send_batch=send_batch)
    lists = {("log", 0): ROWS, ("slates", 0): ROWS}
    ends = asyncio.run(RecordBatches(producer, 5.0, codecs=codecs).send(lists))
    assert set(ends.values()) == {7 + len(ROWS) - 1}
    return sent


@pytest.mark.parametrize("codec", sorted(CODECS))
def test_only_the_topics_with_a_codec_are_compressed(codec: str) -> None:
    sent = written({"log": CODECS[codec]})
    assert len(sent["log"]) < len(sent["slates"]) / 5
    for content in sent.values():
        batch = MemoryRecords(content).next_batch()
        assert [(one.key, one.value, list(one.headers)) for one in batch] == [tuple(row) for row in ROWS]


def test_the_settings_say_which() -> None:
    assert codecs_of(load()) == {}
    one = load(changelog_compression="zstd")
    assert codecs_of(one) == {one.changelog_topic: CODECS["zstd"]}
    both = load(changelog_compression="zstd", slate_compression="gzip")
    assert codecs_of(both) == {both.changelog_topic: CODECS["zstd"], both.recommendations_topic: CODECS["gzip"]}
