"""Reading slates as they come, with the time of their arrival, and afterwards the source records that they cover."""

from __future__ import annotations

import json
import threading
import time
from dataclasses import dataclass
from typing import Any

from confluent_kafka import Consumer, TopicPartition

from stream.settings import Settings

Place = tuple[str, int, int]


def _consumer(settings: Settings) -> Consumer:
    return Consumer(
        {"bootstrap.servers": settings.brokers, "group.id": "bench", "enable.auto.commit": False,
         "auto.offset.reset": "earliest", "fetch.wait.max.ms": 50}
    )  # fmt: skip


def _assign(consumer: Consumer, topics: list[str]) -> dict[tuple[str, int], int]:
    """From the beginning of every partition -> where each ends now."""
    known = consumer.list_topics(timeout=10).topics
    tps = [TopicPartition(topic, number, 0) for topic in topics for number in known[topic].partitions]
    consumer.assign(tps)
    return {(p.topic, p.partition): consumer.get_watermark_offsets(p, timeout=10)[1] for p in tps}


class SlateLog:
    """Follows the recommendations topic in a thread. arrivals: (unix ms of arrival, stamp of the record, value)."""

    def __init__(self, settings: Settings) -> None:
        self._consumer = _consumer(settings)
        _assign(self._consumer, [settings.recommendations_topic])
        self.arrivals: list[tuple[float, int, bytes]] = []
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._follow, daemon=True)
        self._thread.start()

    def _follow(self) -> None:
        while not self._over.is_set():
            records = self._consumer.consume(500, 0.001)
            now = time.time() * 1000
            self.arrivals += [(now, record.timestamp()[1], record.value()) for record in records if not record.error()]

    def quiet(self) -> bool:
        """Nothing has come for half a second."""
        last = self.arrivals[-1][0] if self.arrivals else 0.0
        return time.time() * 1000 - last > 500

    def __enter__(self) -> SlateLog:
        return self

    def __exit__(self, *_: object) -> None:
        self._over.set()
        self._thread.join()
        self._consumer.close()


@dataclass(frozen=True)
class Source:
    """One source record. append_ms: the broker's clock; due_ms: when it was due to be sent."""

    behaviour: int
    user: bytes
    append_ms: int
    due_ms: int


def sources(settings: Settings) -> dict[Place, Source]:
    """Every record of the three source topics."""
    consumer = _consumer(settings)
    try:
        ends = _assign(consumer, list(settings.sources))
        missing = sum(ends.values())
        found: dict[Place, Source] = {}
        while missing > 0:
            for record in consumer.consume(1000, 1.0):
                message: dict[str, Any] = json.loads(record.value())
                found[record.topic(), record.partition(), record.offset()] = Source(
                    settings.sources.index(record.topic()), record.key(), record.timestamp()[1], message["time"]
                )
                missing -= 1
        return found
    finally:
        consumer.close()
