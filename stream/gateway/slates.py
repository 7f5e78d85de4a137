"""New slates of single users, as they appear in the recommendations topic, for server-sent events.

While nobody listens, nothing is fetched. Each listener holds only the newest slate of each placement that it has not sent
yet: a slate replaces the ones before it, so a slow client misses older ones and memory stays bounded.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterator, Sequence
from typing import Any, Final

import msgspec
from aiokafka import TopicPartition
from aiokafka.errors import OffsetOutOfRangeError

from stream.core.errors import RecordError
from stream.core.keys import key_of
from stream.core.messages import Recommendation
from stream.core.unreadable import UNREADABLE
from stream.gateway.figures import SlateFigures
from stream.gateway.problems import ProblemError
from stream.kafka.clients import consumer_tasks, groupless_consumer
from stream.settings import Settings

FETCH_WAIT_MS: Final = 50
POLL_MS: Final = 500
MOST: Final = 256
"""Listeners at the same time."""


class _Newest(msgspec.Struct):
    seq: int
    placement: str = ""


_NEWEST: Final = msgspec.json.Decoder(_Newest)
MOST_PLACEMENTS: Final = 64
"""Placements that a listener follows: more than there can be, but what no worker wrote must not grow without bound."""


_RECOMMENDATION: Final = msgspec.json.Decoder(Recommendation)


def slate_of(value: bytes, key: bytes, form: str) -> bytes | None:
    """Return a record of the recommendations topic as one line of JSON; None if it is no recommendation of its key's user.

    Args:
        value: The record's value.
        key: The record's key.
        form: The form of a key (stream.core.keys).
    """
    try:
        found = _RECOMMENDATION.decode(value)
        if found.seq < 0 or key_of(found.user, form) != key:
            return None
        return msgspec.json.encode(found)  # a line break between two fields would end the line of an event stream
    except (*UNREADABLE, RecordError):
        return None


class Listener:
    """One client that wants a user's slates."""

    def __init__(self) -> None:
        self._newest: dict[str, bytes] = {}
        self._seq: dict[str, int] = {}
        self._event = asyncio.Event()

    def put(self, value: bytes) -> None:
        """Offer a slate that `slate_of` has returned. One of a lower seq than the placement's last is an old one, sent again
        after a crash."""
        found = _NEWEST.decode(value)
        seq, placement = found.seq, found.placement
        if seq >= self._seq.get(placement, -1) and (placement in self._seq or len(self._seq) < MOST_PLACEMENTS):
            self._newest.pop(placement, None)  # it goes behind those of other placements
            self._seq[placement], self._newest[placement] = seq, value
            self._event.set()

    def forget(self) -> None:
        """Drop the slates that were not returned yet: the user was forgotten, and seq begins again."""
        self._seq, self._newest = {}, {}

    def wake(self) -> None:
        """Have `next` return at once, though there is no slate."""
        self._event.set()

    async def next(self, seconds: float) -> bytes | None:
        """Return the oldest of the slates that were not returned yet; None if there is none within some seconds."""
        try:
            async with asyncio.timeout(seconds):
                await self._event.wait()
        except TimeoutError:
            return None
        placement = next(iter(self._newest), None)
        value = None if placement is None else self._newest.pop(placement)
        if not self._newest:
            self._event.clear()
        return value


class Slates:
    """Follows the recommendations topic for its listeners.

    Args:
        settings: The settings.
        partitions: The partitions whose users are served.
        figures: Counts the slates that are read.
    """

    def __init__(self, settings: Settings, partitions: Sequence[int], figures: SlateFigures) -> None:
        self.task: asyncio.Task[None] | None = None
        self._settings = settings
        self._figures = figures
        self._topic_partitions = [TopicPartition(settings.recommendations_topic, partition) for partition in partitions]
        self._listeners: dict[bytes, set[Listener]] = {}
        self._wanted = asyncio.Event()
        self._at_end = asyncio.Event()
        self._consumer: Any = None
        self.count = 0
        """Number of listeners."""

    async def start(self) -> None:
        """Connect, and follow the topic in `task`."""
        self._consumer = groupless_consumer(
            self._settings, "slates", auto_offset_reset="latest", fetch_max_wait_ms=FETCH_WAIT_MS
        )
        await self._consumer.start()
        self.task = asyncio.create_task(self._follow(), name="slates")

    def tasks(self) -> Iterator[tuple[str, asyncio.Future[Any] | None]]:
        """Yield the tasks that must not end on their own."""
        yield "slates", self.task
        yield from consumer_tasks("the slates' consumer", self._consumer)

    async def stop(self) -> None:
        """End the task and the consumer. May be called twice."""
        if self.task is not None:
            self.task.cancel()
            await asyncio.wait([self.task])
        if self._consumer is not None:
            consumer, self._consumer = self._consumer, None
            await consumer.stop()

    async def listen(self, user: bytes) -> Listener:
        """Return a listener that gets every slate from now on. Raises ProblemError if there are too many."""
        if self.count >= MOST:
            raise ProblemError("overloaded", f"{MOST} clients follow slates already", headers={"Retry-After": "30"})
        found = Listener()
        self._listeners.setdefault(user, set()).add(found)
        self.count += 1
        self._wanted.set()
        try:
            await self._at_end.wait()
        except asyncio.CancelledError:
            self.leave(user, found)
            raise
        return found

    def leave(self, user: bytes, listener: Listener) -> None:
        """Forget a listener."""
        listeners = self._listeners.get(user, set())
        if listener in listeners:
            listeners.discard(listener)
            self.count -= 1
            if not listeners:
                del self._listeners[user]

    def wake(self) -> None:
        """Have every listener look whether it must end."""
        for listeners in self._listeners.values():
            for listener in listeners:
                listener.wake()

    async def _follow(self) -> None:
        while True:
            await self._wanted.wait()
            self._consumer.assign(self._topic_partitions)
            await self._consumer.seek_to_end(*self._topic_partitions)
            self._at_end.set()
            self._figures.begin()
            while self.count:
                await self._take()
            self._figures.end()
            self._at_end.clear()
            self._wanted.clear()
            self._consumer.unsubscribe()  # nothing is fetched until somebody listens again

    async def _take(self) -> None:
        try:
            batches = await self._consumer.getmany(timeout_ms=POLL_MS)
        except OffsetOutOfRangeError:  # the topic was cleaned: only what comes now counts
            await self._consumer.seek_to_end(*self._topic_partitions)
            return
        for records in batches.values():
            for record in records:
                if record.value is not None:
                    self._figures.add(record.value)
                listeners = self._listeners.get(record.key, ())
                slate = None
                if listeners and record.value is not None:
                    slate = slate_of(record.value, record.key, self._settings.key)
                    if slate is None:  # no worker wrote it
                        continue
                for listener in listeners:
                    if slate is None:
                        listener.forget()
                    else:
                        listener.put(slate)
