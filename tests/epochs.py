"""Writes epochs of the topic `tables` as a tally does: the rows that changed and the closing record, in one transaction each."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import msgspec
from aiokafka import AIOKafkaProducer

from stream.core.tables import CLOSED_KEY, EpochClosed, TableRow, encode_closed, encode_row, hash_of, row_key
from stream.settings import Settings

HOUR = 3_600_000
UNIT = 1 << 20
"""A choice at the landmark."""


def row(item: str, near: Mapping[str, int] | None = None, count: int = 2, epoch: int = 1, popular: int = 3) -> TableRow:
    """A row; counts and sums of both directions are in choices at the landmark."""
    pairs = tuple((other, total * UNIT * 1024) for other, total in (near or {}).items())
    return TableRow(item, epoch, count * UNIT, popular * UNIT, count, pairs)


def closed(rows: Iterable[TableRow], epoch: int = 1, **values: Any) -> EpochClosed:
    """The closing record of an epoch with these rows."""
    rows = list(rows)
    made = EpochClosed(
        epoch=epoch, landmark=0, now=HOUR, near_half_life=0, prior_half_life=0, back=0.5, shrink=1.0, keep=100, reach=10,
        decay=0.8, cap=3, offsets={"clicks/0": 5}, rows=len(rows), hash="0" * 64, bundle="0" * 64, created=HOUR,
    )  # fmt: skip
    made = msgspec.structs.replace(made, **values)
    return msgspec.structs.replace(made, hash=hash_of(rows, made))


class Epochs:
    """A tally's topic, and the rows that it holds now."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._rows: dict[str, TableRow] = {}
        self.number = 0

    def write(self, changed: Sequence[TableRow], gone: Sequence[str] = (), **values: Any) -> int:
        """Write the next epoch, in which some rows change and some items go. Return its number.

        values: Fields of the closing record that differ.
        """
        self.number += 1
        changed = [msgspec.structs.replace(one, epoch=self.number) for one in changed]
        self._rows = {item: one for item, one in self._rows.items() if item not in gone}
        self._rows |= {one.item: one for one in changed}
        end = closed(self._rows.values(), values.pop("epoch", self.number))
        pairs: list[tuple[bytes, bytes | None]] = [(row_key(one.item), encode_row(one)) for one in changed]
        pairs += [(row_key(item), None) for item in gone]
        pairs.append((CLOSED_KEY, encode_closed(msgspec.structs.replace(end, **values))))
        asyncio.run(self._send(pairs))
        return self.number

    def send(self, key: bytes, value: bytes | None) -> None:
        """Write one record."""
        asyncio.run(self._send([(key, value)]))

    async def _send(self, pairs: Sequence[tuple[bytes, bytes | None]]) -> None:
        settings = self._settings
        producer = AIOKafkaProducer(
            bootstrap_servers=settings.brokers, transactional_id=f"{settings.app_id}-epochs", acks="all"
        )
        await producer.start()
        try:
            async with producer.transaction():
                for key, value in pairs:
                    await producer.send(settings.tables_topic, key=key, value=value, partition=0)
        finally:
            await producer.stop()
