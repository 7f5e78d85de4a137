"""A worker that is about to give partitions up waits for what is under way, and drops what nobody has seen."""

from __future__ import annotations

import asyncio
from typing import Any

from stream.kafka.batch import MicroBatch
from tests.unit.stream.kafka.test_offset_gaps import CLICKS, Broker, consumer_of


class Stage:
    """In the place of the pipeline: it holds events until a micro-batch comes."""

    def __init__(self, consumer: Any) -> None:
        self._consumer = consumer
        consumer.drained = self.drained
        consumer._changed, consumer._running, consumer._assigning = asyncio.Event(), None, False

    async def drained(self, seconds: float) -> bool:
        async with asyncio.timeout(seconds):
            while not self._consumer.sent:
                await asyncio.sleep(0)
        self._consumer.take(self._consumer.sent[0])
        return True


def test_what_got_ready_while_a_micro_batch_lingered_is_finished_though_that_one_is_dropped() -> None:
    async def run() -> None:
        consumer = consumer_of(Broker(0, 20), _guard=lambda: None)
        Stage(consumer)
        lingering = consumer._pending = MicroBatch(consumer.epoch)
        lingering.add(CLICKS, [])
        consumer.wake()  # a comment is encoded: it counts on the one that lingers
        assert not consumer.sent
        assert await consumer.settle(1.0)
        assert lingering not in consumer.sent

    asyncio.run(run())


def test_without_one_that_lingers_nothing_more_comes() -> None:
    async def run() -> None:
        consumer = consumer_of(Broker(0, 20))
        Stage(consumer)

        async def nothing(seconds: float) -> bool:
            return False

        consumer.drained = nothing
        assert not await consumer.settle(1.0)
        assert consumer.sent == []

    asyncio.run(run())
