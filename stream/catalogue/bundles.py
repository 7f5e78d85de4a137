"""Follows the topic `bundles`, and writes to it what this process has made of an activation (docs/swap.md)."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Collection, Iterator, Sequence
from typing import Any

from aiokafka import AIOKafkaProducer, TopicPartition
from aiokafka.errors import KafkaError

from stream.catalogue.consumer import PAUSE, Record, TopicFollower
from stream.core.bundle_log import Activation, BundleLog, encode, key_of
from stream.core.bundle_log import Record as Said
from stream.core.denials import refusal
from stream.core.errors import BrokerError
from stream.kafka.clients import METADATA_MS, consumer_arguments, producer_tasks
from stream.settings import Settings

log = logging.getLogger("freshet.bundles")


class BundlesFollower(TopicFollower):
    """Applies the topic `bundles`. It reads all records: nobody writes there in transactions.

    Args:
        settings: The settings.
        on_records: Called in the event loop after records were applied.
        quiet: Whether it logs nothing: somebody else follows the topic soon.
    Attributes:
        log: What the topic says.
    """

    def __init__(
        self, settings: Settings, on_records: Callable[[], None] = lambda: None, *, quiet: bool = False
    ) -> None:
        super().__init__(
            settings, settings.bundles_topic, "bundles", "what was activated", isolation="read_uncommitted"
        )
        self.log = BundleLog()
        self._on_records = on_records
        self._quiet = quiet

    def offset(self) -> int:
        return self.log.offset

    def apply(self, records: Sequence[Record]) -> Callable[[], None]:
        left_out = self.log.apply(records)

        def tell() -> None:
            for one in () if self._quiet else left_out:
                log.warning(
                    "bundles: %s", one.message, extra={"offset": one.offset, "reason": one.reason, "field": one.field}
                )

        return tell

    def loaded(self) -> None:
        if self._quiet:
            return
        newest = self.log.newest
        log.info(
            "bundles loaded: %d activations, offset %d", len(self.log.activations), self.log.offset,
            extra={} if newest is None else {"activation": newest.number, "bundle": newest.bundle},
        )  # fmt: skip

    def report(self) -> None:
        self._on_records()

    async def read_to_end(self) -> None:
        """Wait until everything is applied that the topic has now. Raises KafkaError."""
        end = (await self._consumer.end_offsets([self._place]))[self._place]
        while self._at < end:
            await asyncio.sleep(PAUSE)

    async def ends(self, topic: str, partitions: Collection[int]) -> dict[int, int]:
        """Return the offset after the last record of each partition of a topic. Raises KafkaError."""
        wanted = {TopicPartition(topic, partition): partition for partition in partitions}
        found = await self._consumer.end_offsets(list(wanted))
        return {wanted[tp]: end for tp, end in found.items()}


async def read(settings: Settings) -> BundleLog:
    """Return what the topic `bundles` says now. Raises the errors of TopicFollower.start."""
    follower = BundlesFollower(settings, quiet=True)
    try:
        await follower.start()
        return follower.log
    finally:
        await follower.stop()


def candidates(settings: Settings) -> list[Activation]:
    """Return what a process that starts should try to serve, in this order. Raises the errors of TopicFollower.start."""
    return asyncio.run(read(settings)).candidates()


class BundlesWriter:
    """Writes records to the topic `bundles`, acknowledged by all replicas.

    Args:
        settings: The settings.
        process: `worker` or `gateway`, for the client id.
    """

    def __init__(self, settings: Settings, process: str) -> None:
        self._settings = settings
        self._process = process
        self._producer: Any = None

    async def start(self) -> None:
        """Connect. Raises BrokerError."""
        self._producer = AIOKafkaProducer(
            **consumer_arguments(self._settings),
            client_id=f"{self._settings.app_id}-{self._process}-bundles",
            acks="all",
            enable_idempotence=True,
            metadata_max_age_ms=METADATA_MS,
        )
        try:
            await self._producer.start()
        except KafkaError as error:
            raise refusal(error) or BrokerError(f"{self._settings.brokers}: {error}") from None

    async def write(self, records: Sequence[Said]) -> None:
        """Write records in order. All are acknowledged when this returns. Raises BrokerError."""
        topic, limit = self._settings.bundles_topic, self._settings.request_timeout
        try:
            async with asyncio.timeout(2 * limit):
                sent = [
                    await self._producer.send(topic, encode(record), key_of(record), 0, int(record.time))
                    for record in records
                ]
                await asyncio.gather(*sent)
        except TimeoutError:
            raise BrokerError(f"{topic}: no acknowledgement of what was activated within {2 * limit:g} s") from None
        except KafkaError as error:
            raise refusal(error, topic, "Write") or BrokerError(f"{topic}: {type(error).__name__}: {error}") from None

    def tasks(self) -> Iterator[tuple[str, asyncio.Future[Any] | None]]:
        """Yield the tasks that must not end on their own."""
        yield from producer_tasks("the producer of the topic bundles", self._producer)

    async def stop(self) -> None:
        """Wait for what was sent, then close. May be called twice."""
        if self._producer is not None:
            producer, self._producer = self._producer, None
            await producer.stop()
