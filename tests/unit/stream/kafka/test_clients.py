"""What a client of aiokafka says of itself, also before it has started."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any

import pytest
from aiokafka import AIOKafkaConsumer
from aiokafka.consumer import fetcher

from stream.app import InterestApp
from stream.catalogue import consumer as items
from stream.catalogue.catalogue import Catalogue
from stream.kafka import changelog_reader, clients
from stream.kafka.clients import absent, consumer_tasks, reached, unread
from stream.kafka.losses import Losses
from stream.settings import Settings
from tests.source_consumer import Owner
from tests.unit.stream.catalogue.test_catalogue import Tower, bundle


class MadeError(Exception):
    """A consumer was made with these arguments, and is not started."""


async def of_the_sources(settings: Settings) -> None:
    app = InterestApp(settings)
    membership: Any = None
    app.use(membership, {}, Owner(), Losses(False, lambda records: None))
    transport = app._new_transport()

    async def nothing(*_: Any) -> None: ...

    consumer = transport.create_consumer(nothing, on_partitions_revoked=nothing, on_partitions_assigned=nothing)
    consumer._new_consumer_thread()._create_worker_consumer(transport)


async def of_the_items(settings: Settings) -> None:
    await items.ItemsFollower(settings, Catalogue(bundle(), Tower())).start()


async def of_a_takeover(settings: Settings) -> None:
    await changelog_reader.ChangelogReader(settings, "changelog").read(0, 0, 9)


@pytest.mark.parametrize("make", [of_the_sources, of_the_items, of_a_takeover])
def test_no_client_of_a_worker_moves_on_by_itself_where_records_are_gone(
    make: Callable[[Settings], Awaitable[None]], monkeypatch: pytest.MonkeyPatch
) -> None:
    """aiokafka begins at the log's start or end without a word, where it may: what was deleted or cut off is told to nobody."""
    resets: list[int] = []

    def made(*given: Any, **more: Any) -> None:
        resets.append(fetcher.OffsetResetStrategy.from_str(more["auto_offset_reset"]))
        raise MadeError

    monkeypatch.setattr("aiokafka.AIOKafkaConsumer", made)
    monkeypatch.setattr(clients, "AIOKafkaConsumer", made)
    with pytest.raises(MadeError):
        asyncio.run(make(Settings()))  # type: ignore[arg-type]
    assert resets == [fetcher.OffsetResetStrategy.NONE]


def test_a_consumer_that_has_not_started_is_no_error() -> None:
    async def look() -> None:
        consumer = AIOKafkaConsumer("clicks", group_id="group")
        try:
            assert absent(consumer, [("clicks", 0)], group=True) == "a broker: the group has no coordinator"
            assert not unread(consumer, ["clicks"])
            assert not reached(consumer, ["clicks"])
            assert [task for _, task in consumer_tasks("it", consumer)] == [None, None, None]
        finally:
            await consumer.stop()

    asyncio.run(look())
