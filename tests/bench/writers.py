"""Ways to write a micro-batch so that a stalled worker's late write does not count, and a process that writes at a rate:

    python -m tests.bench.writers '{"way": "claims", ...}'

A micro-batch is written as the worker does it, partitions at once: state records, then slates. `claims` is the worker's own
way (stream.kafka.fencing), `no fence` the same without headers and check. `transactions` has one transactional id for each
partition: states and slates go out together and are committed. `one transaction` has one id for all partitions of the
worker, which costs least and fences no partition: it is there as a bound.
Arrivals are drawn (Poisson), the same for every way. Prints one line of JSON.
"""

from __future__ import annotations

import asyncio
import json
import random
import sys
import time
from collections.abc import Callable, Coroutine, Iterable, Mapping
from dataclasses import asdict, dataclass
from itertools import accumulate
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, NamedTuple, Protocol, TypeVar

import uvloop
from aiokafka import AIOKafkaProducer

from stream.kafka.changelog_reader import ChangelogReader
from stream.kafka.fencing import Fence
from stream.kafka.producer import MAX_REQUEST, Outgoing, RecordBatches
from stream.settings import Settings
from stream.settings import load as load_settings
from tests.stores import plain_store
from tests.worker_process import read_all

Result = TypeVar("Result")
STATE_BYTES, SLATE_BYTES = 3089, 600  # docs/benchmarks.md
WARM_UP = 30  # micro-batches
FULL = 500  # events of a full micro-batch
USERS = 3_000


class Update(NamedTuple):
    """What one event writes."""

    user: bytes
    state: bytes
    slate: bytes


Batch = Mapping[int, list[Update]]  # by partition


class Writer(Protocol):
    """open: what a worker has before it is given partitions; take_over: all partitions; stall: stop amid a write."""

    async def open(self) -> None: ...

    async def take_over(self) -> None: ...

    async def write(self, batch: Batch) -> None: ...

    async def stall(self, batch: Batch) -> None: ...

    async def close(self) -> None: ...


def producer(settings: Settings, transactional_id: str | None = None, timeout: float = 60.0) -> AIOKafkaProducer:
    """Set like the worker's. timeout: of a transaction, in seconds."""
    return AIOKafkaProducer(
        bootstrap_servers=settings.brokers, acks="all", linger_ms=0, max_batch_size=786_432, max_request_size=MAX_REQUEST,
        enable_idempotence=True, transactional_id=transactional_id, transaction_timeout_ms=int(timeout * 1000),
    )  # fmt: skip


class Unfenced:
    """The idempotent producer alone: anybody may write."""

    def __init__(self, settings: Settings, folder: Path) -> None:
        self._settings = settings
        self._folder = folder

    async def open(self) -> None:
        self._producer = producer(self._settings)
        await self._producer.start()
        self._batches = RecordBatches(self._producer, self._settings.request_timeout)

    async def take_over(self) -> None:
        pass

    async def write(self, batch: Batch) -> None:
        topic = self._settings.changelog_topic
        await self._batches.send(
            {(topic, partition): [Outgoing(one.user, one.state) for one in found] for partition, found in batch.items()}
        )
        await self._batches.send(slates(self._settings, batch))

    async def stall(self, batch: Batch) -> None:
        raise NotImplementedError

    async def close(self) -> None:
        await self._producer.stop()


class Claims(Unfenced):
    """The worker's way: a claim for each partition, its epoch in each record, offsets that follow each other."""

    async def open(self) -> None:
        """The producer, and the states read back."""
        await super().open()
        settings = self._settings
        self._store = plain_store(self._folder, settings.changelog_topic)
        changelog = ChangelogReader(settings, settings.changelog_topic)
        self._fence = Fence(self._store, lambda: self._batches, changelog.read, changelog.find, {}, settings.partitions)
        for partition in range(settings.partitions):
            self._store.prepare(partition)
        for record in await asyncio.to_thread(lambda: list(read_all(settings, settings.changelog_topic))):
            self._store.apply(record.partition, [record])

    async def take_over(self) -> None:
        await self._fence.take_over(range(self._settings.partitions))

    async def write(self, batch: Batch) -> None:
        sent, ends = await self._send(batch)
        await self._fence.confirm(sent, ends)
        await self._batches.send(slates(self._settings, batch))

    async def stall(self, batch: Batch) -> None:
        await self._send(batch)

    async def _send(self, batch: Batch) -> tuple[dict[int, list[Outgoing]], dict[int, int]]:
        topic = self._settings.changelog_topic
        sent = {}
        for partition, found in batch.items():
            stamp = self._fence.stamp(partition)
            sent[partition] = [Outgoing(one.user, one.state, stamp) for one in found]
        ends = await self._batches.send({(topic, partition): records for partition, records in sent.items()})
        return sent, {partition: end for (_, partition), end in ends.items()}


class Transactions:
    """One transactional id for each of `group`'s values, by partition: that partition's own by default.

    Offsets of the sources are left to the commit timer, as the worker does, so a transaction holds states and slates only.
    """

    def __init__(
        self, settings: Settings, folder: Path, group: Callable[[int], int] = lambda partition: partition
    ) -> None:
        self._settings = settings
        self._group = group
        self._open: set[int] = set()

    async def open(self) -> None:
        pass  # a transactional id is taken over by starting its producer

    async def take_over(self) -> None:
        settings = self._settings
        groups = sorted({self._group(partition) for partition in range(settings.partitions)})
        self._producers = {group: producer(settings, f"{settings.app_id}-{group}") for group in groups}
        await asyncio.gather(*(one.start() for one in self._producers.values()))

    async def write(self, batch: Batch) -> None:
        await self._each(batch, commit=True)

    async def stall(self, batch: Batch) -> None:
        await self._each(batch, commit=False)

    async def _each(self, batch: Batch, *, commit: bool) -> None:
        groups: dict[int, dict[int, list[Update]]] = {}
        for partition, found in batch.items():
            groups.setdefault(self._group(partition), {})[partition] = found
        await asyncio.gather(*(self._one(group, part, commit=commit) for group, part in groups.items()))

    async def _one(self, group: int, batch: Batch, *, commit: bool) -> None:
        out = self._producers[group]
        if group not in self._open:
            await out.begin_transaction()
            self._open.add(group)
        topic = self._settings.changelog_topic
        states = {
            (topic, partition): [Outgoing(one.user, one.state) for one in found] for partition, found in batch.items()
        }
        await RecordBatches(out, self._settings.request_timeout).send({**states, **slates(self._settings, batch)})
        if commit:
            await out.commit_transaction()
            self._open.remove(group)

    async def close(self) -> None:
        for one in self._producers.values():
            await one.stop()


def one_transaction(settings: Settings, folder: Path) -> Transactions:
    return Transactions(settings, folder, lambda partition: 0)


WAYS: dict[str, Callable[[Settings, Path], Writer]] = {
    "no fence": Unfenced,
    "claims": Claims,
    "transactions": Transactions,
    "one transaction": one_transaction,
}


def slates(settings: Settings, batch: Batch) -> dict[tuple[str, int], list[Outgoing]]:
    topic = settings.recommendations_topic
    return {(topic, partition): [Outgoing(one.user, one.slate) for one in found] for partition, found in batch.items()}


class Updates:
    """Seeded made-up micro-batches of real sizes over `partitions`."""

    def __init__(self, seed: int, partitions: int) -> None:
        self._random = random.Random(seed)
        self._partitions = partitions
        self._states = [self._random.randbytes(STATE_BYTES) for _ in range(50)]

    def batch(self, dues: Iterable[float]) -> Batch:
        """One update for each event that was due then (unix seconds; 0: not to be measured). A slate begins with that time and
        with the present one, at which the micro-batch is ready; see `times`."""
        ready = time.time()
        made: dict[int, list[Update]] = {}
        for due in dues:
            user = self._random.randrange(USERS)
            slate = (b"%.6f %.6f " % (due, ready)).ljust(SLATE_BYTES, b".")
            update = Update(b"user-%d" % user, self._random.choice(self._states), slate)
            made.setdefault(user % self._partitions, []).append(update)
        return made


def times(slate: bytes) -> tuple[float, float]:
    """(due, ready) of a slate, unix seconds."""
    due, ready = slate.split(b" ", 2)[:2]
    return float(due), float(ready)


@dataclass(frozen=True)
class Order:
    """rate: events a second; 0: full micro-batches, one after the other."""

    way: str
    rate: int
    events: int
    seed: int

    def text(self) -> str:
        return json.dumps(asdict(self))


@dataclass(frozen=True)
class Written:
    """What the process says of itself. cpu: seconds, all threads; seconds: wall clock."""

    batches: int
    cpu: float
    seconds: float


async def write(settings: Settings, order: Order, folder: Path) -> Written:
    writer = WAYS[order.way](settings, folder)
    await writer.open()
    await writer.take_over()
    updates = Updates(order.seed, settings.partitions)
    for _ in range(WARM_UP):
        await writer.write(updates.batch([0.0] * settings.partitions))
    cpu, began = time.process_time(), time.perf_counter()
    batches = (
        await _write_at(writer, updates, settings, order) if order.rate else await _write_full(writer, updates, order)
    )
    written = Written(batches, time.process_time() - cpu, time.perf_counter() - began)
    await writer.close()
    return written


async def _write_full(writer: Writer, updates: Updates, order: Order) -> int:
    batches = 0
    for done in range(0, order.events, FULL):
        await writer.write(updates.batch([0.0] * min(FULL, order.events - done)))
        batches += 1
    return batches


async def _write_at(writer: Writer, updates: Updates, settings: Settings, order: Order) -> int:
    """One micro-batch at a time: whatever is due linger_ms after the first of it, or when the one before is written."""
    draw = random.Random(order.seed)
    began = time.time() + 0.02
    dues = [began + at for at in accumulate(draw.expovariate(order.rate) for _ in range(order.events))]
    batches = first = 0
    while first < len(dues):
        ahead = dues[first] + settings.linger_ms / 1000 - time.time()
        if ahead > 0:
            await asyncio.sleep(ahead)
        now, last = time.time(), first + 1
        while last < len(dues) and dues[last] <= now and last - first < settings.micro_batch:
            last += 1
        await writer.write(updates.batch(dues[first:last]))
        batches += 1
        first = last
    return batches


def run(work: Coroutine[Any, Any, Result]) -> Result:
    """On the worker's kind of event loop."""
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        return runner.run(work)


if __name__ == "__main__":
    with TemporaryDirectory(prefix="freshet-bench-") as made:
        print(json.dumps(asdict(run(write(load_settings(), Order(**json.loads(sys.argv[1])), Path(made))))))
