"""Records that are good but for their partition: sent on to the right one, where the user's owner takes them in.

Kafka's clients do not agree on where a key belongs (docs/clients.md). The copy keeps key, value and headers, and its identity:
the header `original-record` names the place that it comes from, as for a dead letter that was sent back, so that a
copy that is sent twice
(a worker is killed before its commit) counts once. The header `forwarded` names it, too, where the record has an
`original-record` of its
own.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Final

from stream.core.origin import ORIGINAL_RECORD_HEADER, origin
from stream.kafka.batch import Record
from stream.kafka.producer import Outgoing

FORWARDED: Final = "forwarded"
"""Header of a copy; value: topic/partition/offset of the record."""

ROOM: Final = 1024
"""Bytes that a copy and its batch may have more than the record had."""

EVERY: Final = 60.0
"""Seconds between two warnings about one topic."""

CURE: Final = (
    "a client places keys by another hash than murmur2. With librdkafka (confluent-kafka, rdkafka, kcat) set "
    "partitioner=murmur2_random; docs/clients.md has the others"
)

log = logging.getLogger("freshet.misplaced")


class Misplaced:
    """Makes the copies. topics: of the sources; room: topic -> bytes that a record batch there may have; now: seconds."""

    def __init__(
        self, topics: Sequence[str], room: Mapping[str, int], now: Callable[[], float] = time.monotonic
    ) -> None:
        self._topics = tuple(topics)
        self._room = room
        self._now = now
        self._told: dict[str, float] = {}
        self._untold: dict[str, int] = {}

    def copy(self, topic: str, partition: int, record: Record) -> Outgoing | None:
        """The record as it is sent on. None: with its place beside it, it may be too large for the topic."""
        place = f"{topic}/{partition}/{record.offset}".encode()
        headers = list(record.headers or ())
        size = len(record.key or b"") + len(record.value or b"")
        size += sum(len(name.encode()) + len(value or b"") for name, value in headers)
        if size + ROOM > self._room.get(topic, 0):
            return None
        if not origin(headers, self._topics):
            headers = [one for one in headers if one[0] != ORIGINAL_RECORD_HEADER] + [(ORIGINAL_RECORD_HEADER, place)]
        headers = [one for one in headers if one[0] != FORWARDED] + [(FORWARDED, place)]
        self._tell(topic)
        return Outgoing(record.key, record.value, headers)

    def _tell(self, topic: str) -> None:
        self._untold[topic] = self._untold.get(topic, 0) + 1
        now = self._now()
        if now - self._told.get(topic, now - EVERY) >= EVERY:
            said = "records of %s lie on wrong partitions and are sent on: %s"
            log.warning(said, topic, CURE, extra={"records": self._untold[topic]})
            self._told[topic] = now
            self._untold[topic] = 0
