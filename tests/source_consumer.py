"""A worker's consumer over logs without a broker, for unit tests: real but for its thread, its listener and its channel."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable, Mapping
from types import SimpleNamespace
from typing import Any

from faust.types import TP

from stream.app import InterestApp
from stream.core.fencing_log import LeftOut
from stream.kafka.batch import MicroBatch
from stream.kafka.consumer import SourceConsumer
from stream.kafka.losses import Losses
from stream.kafka.offset_gaps import Passed
from stream.kafka.truncation import TruncationWatch
from stream.settings import load

CHANGELOG = load().changelog_topic


class Owner:
    """In the place of the worker's listener: it owns no state."""

    def __init__(self) -> None:
        self.claimed = False  # whether a worker has claimed the changelog's partitions
        self.held = ""
        self.calls = 0

    def open_partition(self, partition: int) -> int:
        return -1

    def drop_partition(self, partition: int) -> None: ...

    async def claim(self, partitions: Iterable[int]) -> None: ...

    def is_claimed(self, partition: int) -> bool:
        return self.claimed

    def last_written(self, partition: int) -> int:
        return -1

    async def drained(self, seconds: float) -> bool:
        return True

    def calls_ended(self) -> int:
        return self.calls

    def held_up(self) -> str:
        return self.held

    def on_revoked(self) -> None: ...

    def on_committed(self) -> None: ...

    def on_left_out(self, records: LeftOut) -> None: ...


class Thread:
    """In the place of the consumer's thread: what the logs hold, and where we have sought."""

    beacon = None

    def __init__(self, start: int = 0, end: int = 0, *, aiokafka: Any = None) -> None:
        self.log = range(start, end)  # of every partition
        self.sought: dict[TP, int] = {}
        self.assigned: set[TP] = set()
        self.committed: dict[TP, int | None] = {}
        self.passed = Passed({"clicks"})
        self.truncations: Any = None
        self.joining = SimpleNamespace(held="")
        self._consumer = aiokafka

    @property
    def thread_loop(self) -> asyncio.AbstractEventLoop:
        return asyncio.get_running_loop()

    async def earliest_offsets(self, *tps: TP) -> Mapping[TP, int]:
        return dict.fromkeys(tps, self.log.start)

    async def highwaters(self, *tps: TP) -> Mapping[TP, int]:
        return dict.fromkeys(tps, self.log.stop)

    async def seek_wait(self, offsets: Mapping[TP, int]) -> None:
        self.sought.update(offsets)

    async def seek_to_committed(self) -> Mapping[TP, int | None]:
        return self.committed

    def assignment(self) -> set[TP]:
        return self.assigned

    def client(self) -> Any:
        return self._consumer


class Consumer(SourceConsumer):
    """The worker's consumer.

    Attributes:
        sent: The micro-batches that came into the channel.
        lost: The number of records of each loss that was accepted.
        owner: What stands in the place of the listener.
    """

    sent: list[MicroBatch]
    lost: list[int]
    owner: Any

    def _new_consumer_thread(self) -> Any:
        return self.app.thread


def consumer_of(thread: Any, owner: Any = None, *, accept_loss: bool = False, **settings: Any) -> Any:
    """A consumer that is not started, over this thread."""
    app: Any = InterestApp(load(**settings))
    sent: list[MicroBatch] = []
    lost: list[int] = []
    owner = owner or Owner()
    membership: Any = None

    async def put(batch: MicroBatch) -> None:
        sent.append(batch)

    async def nothing(*_: Any) -> None: ...

    app.use(membership, {}, owner, Losses(accept_loss, lost.append))
    app.thread, app.micro_batches = thread, SimpleNamespace(put=put)
    consumer: Any = Consumer(
        app.transport, callback=nothing, on_partitions_revoked=nothing, on_partitions_assigned=nothing
    )
    consumer.sent, consumer.lost, consumer.owner = sent, lost, owner
    return consumer


def watch_cuts(consumer: Any, aiokafka: Any) -> None:
    """Give the consumer's thread what watches aiokafka's consumer for truncated logs."""
    consumer._thread.truncations = TruncationWatch(
        aiokafka, consumer.sources, consumer.owner.last_written, consumer.app.losses.lose
    )
