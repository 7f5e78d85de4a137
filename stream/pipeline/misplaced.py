"""Records that are valid except for their partition: they are forwarded to the right one, whose owner applies them.

Kafka's clients do not agree on the partition of a key (docs/clients.md). The copy keeps key, value, headers and
identity: the header `original-record` names the place of the first record, as for a dead letter that was sent back. So
a copy that is sent twice (because a worker is killed before its commit) counts once. The header `forwarded` names the
place, too, for records that already have an `original-record`.
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
"""Bytes by which a copy and its batch may exceed the record."""

EVERY: Final = 60.0
"""Seconds between two warnings about one topic."""

CURE: Final = (
    "a client partitions keys with another hash than murmur2. With librdkafka (confluent-kafka, rdkafka, kcat) set "
    "partitioner=murmur2_random; for other clients see docs/clients.md"
)

log = logging.getLogger("freshet.misplaced")


class Misplaced:
    """Creates the copies.

    Args:
        topics: The source topics.
        room: Topic -> maximum bytes of a record batch there.
        now: Returns the time in seconds.
    """

    def __init__(
        self, topics: Sequence[str], room: Mapping[str, int], now: Callable[[], float] = time.monotonic
    ) -> None:
        self._topics = tuple(topics)
        self._room = room
        self._now = now
        self._logged: dict[str, float] = {}
        self._unlogged: dict[str, int] = {}

    def copy(self, topic: str, partition: int, record: Record) -> Outgoing | None:
        """Return the copy of the record to send. None: with the added headers it may be too large for the topic."""
        original = f"{topic}/{partition}/{record.offset}".encode()
        headers = list(record.headers or ())
        size = len(record.key or b"") + len(record.value or b"")
        size += sum(len(name.encode()) + len(value or b"") for name, value in headers)
        if size + ROOM > self._room.get(topic, 0):
            return None
        if not origin(headers, self._topics):
            headers = [one for one in headers if one[0] != ORIGINAL_RECORD_HEADER] + [
                (ORIGINAL_RECORD_HEADER, original)
            ]
        headers = [one for one in headers if one[0] != FORWARDED] + [(FORWARDED, original)]
        self._log(topic)
        return Outgoing(record.key, record.value, headers)

    def _log(self, topic: str) -> None:
        self._unlogged[topic] = self._unlogged.get(topic, 0) + 1
        now = self._now()
        if now - self._logged.get(topic, now - EVERY) >= EVERY:
            message = "records of %s are on wrong partitions and are forwarded: %s"
            log.warning(message, topic, CURE, extra={"records": self._unlogged[topic]})
            self._logged[topic] = now
            self._unlogged[topic] = 0
