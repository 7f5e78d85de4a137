"""A worker that is about to give partitions up waits for what is under way, and drops what nobody has seen."""

from __future__ import annotations

import asyncio
from types import SimpleNamespace
from typing import Any

from faust.types import TP

from stream.kafka.batch import MicroBatch
from tests.source_consumer import Thread, consumer_of
from tests.unit.stream.kafka.test_offset_gaps import CLICKS


class Stage:
    """In the place of the pipeline: it holds events until a micro-batch comes."""

    def __init__(self, consumer: Any) -> None:
        self._consumer = consumer
        consumer.owner.drained = self.drained

    async def drained(self, seconds: float) -> bool:
        async with asyncio.timeout(seconds):
            while not self._consumer.sent:
                await asyncio.sleep(0)
        self._consumer.take(self._consumer.sent[0])
        return True


def test_what_got_ready_while_a_micro_batch_lingered_is_finished_though_that_one_is_dropped() -> None:
    async def run() -> None:
        consumer = consumer_of(Thread(0, 20))
        Stage(consumer)
        lingering = consumer.hand_over.pending = MicroBatch(consumer.group.epoch)
        lingering.add(CLICKS, [])
        consumer.wake()  # a comment is encoded: it counts on the one that lingers
        assert not consumer.sent
        assert await consumer.settle(1.0)
        assert lingering not in consumer.sent

    asyncio.run(run())


def test_without_one_that_lingers_nothing_more_comes() -> None:
    async def run() -> None:
        consumer = consumer_of(Thread(0, 20))
        Stage(consumer)

        async def nothing(seconds: float) -> bool:
            return False

        consumer.owner.drained = nothing
        assert not await consumer.settle(1.0)
        assert consumer.sent == []

    asyncio.run(run())


def test_the_last_commit_is_not_one_that_began_before_the_last_micro_batch_ended() -> None:
    """Faust's `commit` joins the commit under way: at a stop or a rebalance that would leave the newest offsets out."""

    async def check() -> None:
        consumer = consumer_of(Thread())
        finished, committed = [1], []
        answer = asyncio.Event()

        async def force_commit(topics: Any, start_new_transaction: bool = True) -> bool:
            offset = finished[-1]
            await answer.wait()
            committed.append(offset)
            return True

        consumer.force_commit = force_commit
        under_way = asyncio.ensure_future(consumer.commit())
        await asyncio.sleep(0)
        finished.append(2)
        last = asyncio.ensure_future(consumer.commit_finished())
        await asyncio.sleep(0)
        answer.set()
        await asyncio.gather(under_way, last)
        assert committed == [1, 2]

    asyncio.run(check())


def test_a_micro_batch_that_lingers_is_sent_when_fetching_pauses() -> None:
    """Else nothing would call the pipeline any more: `wake` relies on the micro-batch that is on its way."""

    async def check() -> None:
        consumer = consumer_of(Thread())
        consumer.positions.begin({TP("clicks", 0): 0})
        consumer._set_active_tps({TP("clicks", 0)})
        lingering = consumer.hand_over.pending = MicroBatch(0)
        consumer.finish({}, hold={TP("clicks", 0)})
        consumer.wake()
        assert not consumer.sent
        await consumer._fetcher.fetch_once()
        assert consumer.sent == [lingering]
        assert lingering.sent

    asyncio.run(check())


def test_a_rebalance_waits_for_what_is_held_back() -> None:
    """A micro-batch that was handed over is finished, then the rest of the time is the pipeline's; a lingering one is let go."""

    async def check() -> None:
        consumer = consumer_of(Thread())
        batch = consumer.hand_over.pending = MicroBatch(0)
        batch.sent = True
        steps: list[str] = []

        async def drained(seconds: float) -> bool:
            assert 0 < seconds < 5
            steps.append("drained")
            return True

        async def work() -> None:
            await asyncio.sleep(0)
            assert consumer.take(batch)
            await asyncio.sleep(0)
            steps.append("finished")
            consumer.finish({}, hold=set())

        consumer.owner.drained = drained
        await asyncio.gather(consumer.settle(5), work())
        assert steps == ["finished", "drained"]
        lingering = consumer.hand_over.pending = MicroBatch(0)
        await consumer.settle(5)
        await asyncio.sleep(0)
        assert consumer.sent  # an empty one, which calls the pipeline
        assert lingering not in consumer.sent

    asyncio.run(check())


def test_nothing_is_begun_in_a_rebalance_while_the_worker_stops() -> None:
    """Whatever asks the consumer's thread then may wait for ever, and the stop with it."""

    def asked(partition: int) -> int:
        raise AssertionError("a partition is opened")

    consumer = consumer_of(Thread())
    consumer.owner.open_partition = asked
    consumer.hold()
    consumer.app.lease = SimpleNamespace()  # that cannot be granted
    asyncio.run(consumer.on_partitions_assigned({TP("x-changelog", 0)}))
