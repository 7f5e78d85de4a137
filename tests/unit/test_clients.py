"""What a client of aiokafka says of itself, also before it has started."""

from __future__ import annotations

import asyncio

from aiokafka import AIOKafkaConsumer

from stream.clients import absent, consumer_tasks, reached, unread


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
