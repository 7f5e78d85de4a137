"""Reads the newest epoch from the topic `tables`, and writes the next one in one transaction.

The transactional id is the deployment's. So a tally that starts ends what a killed one has left open, and whatever an
older one still tries to write is refused by the broker: it ends with FencedError.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator
from hashlib import blake2b
from typing import Any, Final

from aiokafka import AIOKafkaProducer, TopicPartition
from aiokafka.errors import InvalidProducerEpoch, KafkaError, ProducerFenced, TransactionalIdAuthorizationFailed

from stream.core.denials import refusal
from stream.core.errors import BrokerError, FencedError, RecordError
from stream.core.tables import (
    CLOSED_KEY,
    EpochClosed,
    TableRow,
    decode_closed,
    decode_row,
    encode_closed,
    encode_row,
    hash_of_lines,
    item_of,
    line_of,
    row_key,
)
from stream.kafka.clients import METADATA_MS, consumer_arguments, groupless_consumer, producer_tasks
from stream.settings import Settings
from stream.tally.epoch import Epoch

TIMEOUT_MS: Final = 300_000
"""How long a transaction may stay open; at most the broker's transaction.max.timeout.ms, 15 minutes by default."""
MAX_BATCH: Final = 512 << 10  # bytes
POLL_MS: Final = 1_000

log = logging.getLogger("freshet.tally")


def digest(line: bytes) -> bytes:
    """Return what is remembered of a row that was written."""
    return blake2b(line, digest_size=16).digest()


class Publisher:
    """Writes epochs.

    Attributes:
        closed: The closing record of the newest epoch; None if there is none.

    Args:
        settings: The settings.
    """

    def __init__(self, settings: Settings) -> None:
        self.closed: EpochClosed | None = None
        self._settings = settings
        self._topic = settings.tables_topic
        self._identity = f"{settings.app_id}-tally"
        self._producer: Any = None
        self._whole = True  # whether the newest closing record can be read, and the rows are those of its hash
        self._written: dict[str, bytes] = {}  # item -> digest of its row's line; b"" if the row must be written again

    async def start(self) -> None:
        """End what another tally has left open, then read the newest epoch.

        Raises:
            BrokerError: No broker answers, or it denies access.
            FencedError: Another tally has started.
        """
        self._producer = AIOKafkaProducer(
            **consumer_arguments(self._settings),
            client_id=self._identity,
            transactional_id=self._identity,
            transaction_timeout_ms=TIMEOUT_MS,
            metadata_max_age_ms=METADATA_MS,
            max_batch_size=MAX_BATCH,
            linger_ms=5,
            compression_type="lz4",
        )
        try:
            await self._producer.start()
            await self._read()
        except KafkaError as error:
            raise self._meaning(error, "Read") from None

    async def publish(self, epoch: Epoch) -> int:
        """Write the rows that differ from the newest epoch, and the closing record. Return the number of rows written.

        Raises:
            BrokerError: The broker does not answer, or denies access. Whether the epoch is written is then unknown.
            FencedError: Another tally has started.
        """
        digests = {item: digest(line) for item, line in epoch.lines.items()}
        changed = [item for item, one in digests.items() if self._written.get(item) != one]
        gone = [item for item in self._written if item not in digests]
        try:
            async with self._producer.transaction():
                sent = [
                    await self._producer.send(self._topic, encode_row(epoch.rows[item]), key=row_key(item), partition=0)
                    for item in changed
                ]
                sent += [await self._producer.send(self._topic, None, key=row_key(item), partition=0) for item in gone]
                for one in sent:
                    await one
                closing = encode_closed(epoch.closed)
                await self._producer.send_and_wait(self._topic, closing, key=CLOSED_KEY, partition=0)
        except KafkaError as error:
            raise self._meaning(error, "Write") from None
        self._written, self.closed, self._whole = digests, epoch.closed, True
        return len(changed) + len(gone)

    def tasks(self) -> Iterator[tuple[str, Any]]:
        """Yield the tasks that must not end on their own."""
        yield from producer_tasks("the tally's producer", self._producer)

    @property
    def whole(self) -> bool:
        """Whether the topic holds the rows of the newest epoch, and no record that is not acceptable."""
        return self._whole and all(self._written.values())

    async def stop(self) -> None:
        """Close the producer. May be called twice."""
        if self._producer is not None:
            producer, self._producer = self._producer, None
            await producer.stop()

    async def _read(self) -> None:
        """Read the topic to its end."""
        rows: dict[str, TableRow | None] = {}
        consumer = groupless_consumer(self._settings, "tally-tables")
        try:
            await consumer.start()
            tp = TopicPartition(self._topic, 0)
            consumer.assign([tp])
            begin = (await consumer.beginning_offsets([tp]))[tp]
            end = (await consumer.end_offsets([tp]))[tp]
            consumer.seek(tp, begin)
            while await consumer.position(tp) < end:
                for records in (await consumer.getmany(tp, timeout_ms=POLL_MS)).values():
                    for record in records:
                        self._apply(rows, record)
        finally:
            await consumer.stop()
        lines = {item: line_of(row) for item, row in rows.items() if row is not None}
        whole = self.closed is not None and self.closed.hash == hash_of_lines(
            (lines[item] for item in sorted(lines)), self.closed
        )
        self._whole = self._whole and (whole or not rows)
        if rows and not whole:
            log.warning("%s does not hold the rows of its newest epoch: all rows are written again", self._topic)
        self._written = {item: digest(lines[item]) if whole and item in lines else b"" for item in rows}

    def _apply(self, rows: dict[str, TableRow | None], record: Any) -> None:
        """Note one record. A row that cannot be read is None: it is written again."""
        try:
            item = item_of(record.key)
            if item is None:
                self._whole = False
                self.closed = decode_closed(record.value)
                self._whole = True
            elif record.value is None:
                rows.pop(item, None)
            else:
                rows[item] = None
                rows[item] = decode_row(record.key, record.value)
        except RecordError as error:
            log.warning(
                "record of %s passed over: %s", self._topic, error,
                extra={"offset": record.offset, "reason": error.reason, "field": error.field},
            )  # fmt: skip

    def _meaning(self, error: KafkaError, operation: str) -> Exception:
        if isinstance(error, ProducerFenced | InvalidProducerEpoch):
            return FencedError("another `freshet tally` of this app_id has started; one is enough for a deployment")
        if isinstance(error, TransactionalIdAuthorizationFailed):
            return refusal(error, self._identity, "Write") or error
        return refusal(error, self._topic, operation) or BrokerError(
            f"topic {self._topic}: {type(error).__name__}: {error}"
        )
