"""Send events and read slates, like any client of freshet: with kafka-python, acknowledged by all replicas."""

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
from stream.core.errors import BrokerError
from stream.core.keys import ANYONE_KEY
from stream.core.messages import Recommendation
from stream.settings import Settings

MOST = 2000  # maximum number of slates per poll


class Slate(NamedTuple):
    """The parts of a slate that the demo uses.

    Attributes:
        user: The user's id.
        seq: Number of events applied.
        items: Item ids, best first.
        applied: "topic/partition" -> offset.
        latency_ms: Time from an event to its slate; -1 for replays.
        replay: The slate repeats an earlier one.
    """

    user: str
    seq: int
    items: tuple[str, ...]
    applied: dict[str, int]
    latency_ms: int
    replay: bool


class Feed:
    """Sends events, and reads every slate from the beginning of the topic. Raises BrokerError.

    It has two producers: one that waits up to 20 ms to send events in bulk, and one that sends each event immediately.
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
        """Queue one of many messages for sending -> a future for `position`."""
        return self._bulk.send(*self._record(message))

    def send(self, message: Message) -> Any:
        """Send one message immediately -> a future for `position`."""
        return self._single.send(*self._record(message))

    def _record(self, message: Message) -> tuple[str, bytes, bytes]:
        """Return topic, key and value."""
        _, key, value = keyed(message, self._settings.key)
        return self._settings.prefix + message.topic, key, value

    def position(self, future: Any) -> Sent:
        """Wait until a message is acknowledged -> its position in Kafka."""
        return self._single.position(future)

    def slates(self, wait: float) -> list[Slate]:
        """Return the slates that have arrived since the last call, each user's in order.

        wait: how many seconds to wait for the first one.
        """
        try:
            batches = self._consumer.poll(timeout_ms=int(wait * 1000))
        except KafkaError as error:
            raise BrokerError(f"slates cannot be read from {self._settings.brokers}: {error}") from None
        found = []
        for records in batches.values():
            for record in records:
                if record.value is None or record.key == ANYONE_KEY:
                    continue
                slate = self._decoder.decode(record.value)
                if slate.placement is not msgspec.UNSET:
                    continue
                items = tuple(scored.item for scored in slate.items)
                found.append(Slate(slate.user, slate.seq, items, slate.applied, slate.latency_ms, slate.replay))
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
        with suppress(KafkaError):  # Ctrl-C during a send must not show up as a broker error
            self._consumer.close()
        self._bulk.abandon()
        self._single.abandon()
