"""Sends records to freshet's topics with kafka-python: acknowledged by all replicas, placed by murmur2 of the key."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import suppress
from types import TracebackType
from typing import Any, NamedTuple

from kafka import KafkaProducer
from kafka.errors import (
    InvalidTimestampError,
    KafkaError,
    KafkaTimeoutError,
    MessageSizeTooLargeError,
    TopicAuthorizationFailedError,
)

from deploy.clients.admin import admin
from deploy.clients.arguments import client_arguments
from deploy.clients.connect import connect
from stream.core.denials import refusal
from stream.core.errors import BrokerError, DataError, TopologyError
from stream.settings import Settings

METADATA_MS = 5000  # to look up a topic; a missing topic is noticed in this time
MAX_REQUEST = 5 << 20  # the source topics accept 4 MiB
ABANDON = 1.0  # seconds to close without waiting for records


class Sent(NamedTuple):
    """Where a record was written."""

    topic: str
    partition: int
    offset: int


class Producer:
    """Sends records.

    Args:
        settings: Settings of the deployment.
        linger_ms: Milliseconds that a record may wait for others; 0 to send single records.

    Raises:
        BrokerError: No broker answers, or it does not accept the record.
        TopologyError: The topic is missing.
    """

    def __init__(self, settings: Settings, linger_ms: int = 0) -> None:
        self._settings = settings
        self._brokers = settings.brokers
        self._known: set[str] = set()
        arguments = client_arguments(settings)
        self._producer = connect(
            settings,
            lambda wait: KafkaProducer(
                **arguments,
                acks="all",
                linger_ms=linger_ms,
                batch_size=256 << 10,
                max_request_size=MAX_REQUEST,
                allow_auto_create_topics=False,
                request_timeout_ms=int(settings.request_timeout * 1000),
                delivery_timeout_ms=int(settings.request_timeout * 2000),
                bootstrap_timeout_ms=wait,
                max_block_ms=METADATA_MS,
            ),
        )

    def send(
        self,
        topic: str,
        key: bytes | None,
        value: bytes | None,
        headers: Sequence[tuple[str, bytes]] = (),
        partition: int | None = None,
    ) -> Any:
        """Start to send one record. Return a future for `position`. partition: None for that of the key."""
        try:
            if topic not in self._known:
                self._find(topic)
                self._known.add(topic)
            return self._producer.send(topic, value, key, list(headers), partition)
        except MessageSizeTooLargeError as error:
            raise DataError(f"a record is too large for topic {topic}: {error}") from None
        except KafkaError as error:
            refused = refusal(error, topic, "Write")
            raise refused or BrokerError(
                f"{self._brokers} did not accept a record for topic {topic}: {_name(error)}"
            ) from None

    def _find(self, topic: str) -> None:
        try:
            found = self._producer.partitions_for(topic)
        except KafkaTimeoutError:
            found = None
        if not found:
            self._check_allowed(topic)
            raise TopologyError(f"topic {topic} is missing: create it with `freshet topics create`")

    def _check_allowed(self, topic: str) -> None:
        """Raise the broker's error if an ACL hides the topic. A producer gets the same answer for this and a missing topic."""
        with admin(self._settings) as client:
            (answer,) = client.describe_topics([topic])
        if answer["error_code"] == TopicAuthorizationFailedError.errno:
            raise TopicAuthorizationFailedError(topic)

    def position(self, future: Any) -> Sent:
        """Wait until the record is acknowledged. Return where it was written."""
        try:
            landed = future.get()
        except InvalidTimestampError:
            raise BrokerError(
                f"{self._brokers} refused the time of a record: this machine's clock is further ahead of the broker's clock than "
                "the topic's message.timestamp.after.max.ms allows; correct the clock"
            ) from None
        except KafkaError as error:
            refused = refusal(error, operation="Write")
            raise refused or BrokerError(f"{self._brokers} did not acknowledge a record: {_name(error)}") from None
        return Sent(landed.topic, landed.partition, landed.offset)

    def acknowledged(self, future: Any) -> bool:
        """Return whether the record has been written by now."""
        return bool(future.succeeded())

    def close(self) -> None:
        """Wait for all records that were sent, then close."""
        try:
            self._producer.flush()
        except KafkaError as error:
            refused = refusal(error, operation="Write")
            raise refused or BrokerError(f"{self._brokers} did not acknowledge all records: {_name(error)}") from None
        finally:
            self._producer.close()

    def abandon(self) -> None:
        """Close without waiting for what was sent: another error occurred, and that one must be reported."""
        with suppress(KafkaError):
            self._producer.close(timeout=ABANDON)

    def __enter__(self) -> Producer:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if kind is None:
            self.close()
        else:
            self.abandon()


def _name(error: Exception) -> str:
    """Return an error as one line with its type's name. Most of kafka-python's errors begin with it in str(error), not all."""
    kind, text = type(error).__name__, " ".join(str(error).split())
    return (text if kind in text else f"{kind} {text}".strip())[:200]
