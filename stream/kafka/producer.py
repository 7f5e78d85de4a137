"""Sending: one record batch per partition, acknowledged by all replicas, never after the lease has expired."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from typing import Any, Final, NamedTuple

from aiokafka.errors import OutOfOrderSequenceNumber, UnknownProducerId
from aiokafka.producer.message_accumulator import BatchBuilder
from aiokafka.record.default_records import DefaultRecordBatch
from faust.transport.drivers import aiokafka as driver

from stream.core.errors import BrokerError, LeaseError, LossError
from stream.kafka.broker_clock import Clock
from stream.kafka.lease import Lease
from stream.process.fatal import fatal
from stream.settings import Settings

LOG_APPEND_TIME = 1  # aiokafka's value for a timestamp that the broker has set, not the sender

FRAME = 16  # maximum bytes around a header, and half the maximum around a record
MAX_BATCH = 786_432  # bytes of a record batch, before it is compressed
MAX_REQUEST = 5 << 20  # bytes: a dead letter may hold a source record of 4 MiB and its headers

CODECS: Final = {"gzip": DefaultRecordBatch.CODEC_GZIP, "zstd": DefaultRecordBatch.CODEC_ZSTD}
"""Without lz4 and snappy: aiokafka's lz4 costs ten times zstd's time for more bytes."""

_NO_HEADERS: list[tuple[str, bytes]] = []  # aiokafka requires a list; it is never changed


class Outgoing(NamedTuple):
    """One record to send."""

    key: bytes | None
    value: bytes | None
    headers: list[tuple[str, bytes]] = _NO_HEADERS


class SourceProducer(driver.Producer):
    """Faust's producer, made idempotent. The lease guards its produce requests, including aiokafka's own retries."""

    def _settings_extra(self) -> Mapping[str, Any]:
        return {**super()._settings_extra(), "acks": "all", "enable_idempotence": True}

    async def on_start(self) -> None:
        await super().on_start()
        lease: Lease = self.app.lease
        sender = self._producer._sender
        send = sender._send_produce_req

        async def guarded(node: int, batches: Mapping[Any, Any]) -> None:
            try:
                lease.check()
            except LeaseError as error:
                fatal(error)
            await send(node, batches)
            for tp, batch in batches.items():
                if not batch.future.done():  # the broker did not accept it; aiokafka sends it again
                    self.app.on_send_error(tp.topic)

        sender._send_produce_req = guarded

    @property
    def batches(self) -> RecordBatches:
        """Return an object that sends record batches with the started producer."""
        codecs = codecs_of(self.app.settings)
        return RecordBatches(self._producer, self.request_timeout, self.app.clock, self.app.room, codecs)


def codecs_of(settings: Settings) -> dict[str, int]:
    """Return the codecs of the topics whose record batches a worker compresses."""
    wanted = {
        settings.changelog_topic: settings.changelog_compression,
        settings.recommendations_topic: settings.slate_compression,
    }
    return {topic: CODECS[codec] for topic, codec in wanted.items() if codec != "none"}


def _size(record: Outgoing) -> int:
    """Return the maximum bytes that the record needs in a batch."""
    headers = sum(len(name.encode()) + len(value or b"") + FRAME for name, value in record.headers)
    return len(record.key or b"") + len(record.value or b"") + headers + 2 * FRAME


class RecordBatches:
    """Sends lists of records, one Kafka record batch per partition (1.6 us per record instead of 13 with `send`).

    Args:
        producer: A started AIOKafkaProducer.
        timeout: Seconds until a send fails.
        clock: Sets the timestamps, and learns from the acknowledgements when the broker appended the records. None: a
            new clock.
        room: Topic -> maximum bytes of a record batch there, if that may be less than the producer's own limit.
        codecs: Topic -> codec of its record batches. Other topics get the producer's own.
    """

    def __init__(
        self,
        producer: Any,
        timeout: float,
        clock: Clock | None = None,
        room: Mapping[str, int] | None = None,
        codecs: Mapping[str, int] | None = None,
    ) -> None:
        self._producer = producer
        self._timeout = timeout
        self._clock = clock or Clock()
        self._room = room or {}
        self._codecs = codecs or {}

    async def send(self, lists: Mapping[tuple[str, int], Sequence[Outgoing]]) -> dict[tuple[str, int], int]:
        """Send records by (topic, partition). All are acknowledged when this returns.

        Returns:
            The last offset written per partition, or -1 if the broker did not report it (for a retried batch that had
            already arrived).
        Raises:
            BrokerError: The acknowledgement did not arrive in time.
        """
        try:
            async with asyncio.timeout(self._timeout):
                ends = await asyncio.gather(
                    *(self._send_partition(tp, records) for tp, records in lists.items() if records)
                )
        except TimeoutError:
            raise BrokerError(f"no acknowledgement of produced records within {self._timeout:g} s") from None
        return dict(ends)

    async def _send_partition(self, tp: tuple[str, int], records: Sequence[Outgoing]) -> tuple[tuple[str, int], int]:
        topic, partition = tp
        room = self._room.get(topic, 0)
        began, now = self._clock.steady(), self._clock.now_ms()
        sent: list[tuple[asyncio.Future[Any], int]] = []
        batch = self._batch(topic)
        for record in records:
            full = room and batch.record_count() and batch.size() + _size(record) > room
            if not full and self._append(batch, record, now):
                continue
            sent.append(await self._close(batch, topic, partition))
            batch = self._batch(topic)
            if not self._append(batch, record, now):
                raise BrokerError(f"a record of {len(record.value or b'')} bytes does not fit into a batch for {topic}")
        sent.append(await self._close(batch, topic, partition))
        last = -1
        for future, count in sent:
            try:
                metadata = await future
            except (OutOfOrderSequenceNumber, UnknownProducerId):
                raise LossError(
                    f"{topic} partition {partition}: the broker lacks records of ours that it had acknowledged: was a "
                    "leader elected that had missed records (an unclean election)?"
                ) from None
            if metadata.timestamp_type == LOG_APPEND_TIME:
                self._clock.learn(began, metadata.timestamp)
            if metadata.offset >= 0:  # -1: a duplicate sequence number, so the offset is unknown
                last = max(last, metadata.offset + count - 1)
        return tp, last

    def _batch(self, topic: str) -> Any:
        codec = self._codecs.get(topic)
        return BatchBuilder(MAX_BATCH, codec) if codec else self._producer.create_batch()

    @staticmethod
    def _append(batch: Any, record: Outgoing, stamp: int) -> bool:
        added = batch.append(timestamp=stamp, key=record.key, value=record.value, headers=record.headers)
        return added is not None

    async def _close(self, batch: Any, topic: str, partition: int) -> tuple[asyncio.Future[Any], int]:
        batch.close()  # an open batch would wait for the linger time
        return await self._producer.send_batch(batch, topic, partition=partition), batch.record_count()
