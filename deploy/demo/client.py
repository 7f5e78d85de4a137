"""Events in, slates out, as any client of freshet would do it: kafka-python, acknowledged by all replicas."""

from __future__ import annotations

from contextlib import suppress
from types import TracebackType
from typing import Any, NamedTuple

import msgspec
from kafka import KafkaConsumer, TopicPartition
from kafka.errors import KafkaError

from deploy.clients.arguments import client_arguments
from deploy.clients.message_keys import keyed
from deploy.clients.producer import Producer, Sent
from models.data import Message
from stream.catalogue.popularity import ANYONE
from stream.core.errors import BrokerError
from stream.core.messages import Recommendation
from stream.settings import Settings

MOST = 2000  # slates in one poll


class Slate(NamedTuple):
    """What the demo looks at. items: ids, best first; applied: "topic/partition" -> offset; latency_ms: -1 for replays."""

    user: str
    seq: int
    items: tuple[str, ...]
    applied: dict[str, int]
    latency_ms: int
    replay: bool


class Feed:
    """One producer, and one consumer that reads every slate from the topic's beginning. Raises BrokerError.

    linger_ms: how long an event waits for others before it is sent.
    """

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._bulk = Producer(settings, linger_ms=20)
        self._single = Producer(settings)
        self._decoder = msgspec.json.Decoder(Recommendation)
        try:
            self._consumer = KafkaConsumer(
                **client_arguments(settings),
                enable_auto_commit=False,
                isolation_level="read_committed",
                auto_offset_reset="earliest",
                max_poll_records=MOST,
                check_crcs=False,  # its crc32c is pure Python
            )
            topic = settings.recommendations_topic
            self._consumer.assign(
                [TopicPartition(topic, number) for number in sorted(self._consumer.partitions_for_topic(topic) or ())]
            )
        except KafkaError as error:
            raise BrokerError(f"slates cannot be read from {settings.brokers}: {error}") from None

    def send_bulk(self, message: Message) -> Any:
        """Put one of many on its way -> a future for `place`."""
        return self._bulk.send(*self._record(message))

    def send(self, message: Message) -> Any:
        """Send one at once -> a future for `place`."""
        return self._single.send(*self._record(message))

    def _record(self, message: Message) -> tuple[str, bytes, bytes]:
        """Topic, key and value."""
        _, key, value = keyed(message, self._settings.key)
        return self._settings.prefix + message.topic, key, value

    def place(self, future: Any) -> Sent:
        """Wait until it is acknowledged -> where it landed."""
        return self._single.place(future)

    def slates(self, wait: float) -> list[Slate]:
        """Slates that have come since the last call, in the order of each user's; waits `wait` seconds for the first."""
        try:
            batches = self._consumer.poll(timeout_ms=int(wait * 1000))
        except KafkaError as error:
            raise BrokerError(f"slates cannot be read from {self._settings.brokers}: {error}") from None
        found = []
        for records in batches.values():
            for record in records:
                if record.value is None or record.key == ANYONE.encode():
                    continue
                said = self._decoder.decode(record.value)
                items = tuple(scored.item for scored in said.items)
                found.append(Slate(said.user, said.seq, items, said.applied, said.latency_ms, said.replay))
        return found

    def close(self) -> None:
        self._consumer.close()
        self._bulk.close()
        self._single.close()

    def __enter__(self) -> Feed:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if kind is None:
            self.close()
            return
        with suppress(KafkaError):  # Ctrl-C in the middle of a send must not end as an error of the broker
            self._consumer.close()
        self._bulk.abandon()
        self._single.abandon()
