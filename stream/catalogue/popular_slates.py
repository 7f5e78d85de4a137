"""Publishes the slate for unknown users, the record with the key `*`."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Collection
from typing import Final, NamedTuple

import msgspec
import numpy as np
from aiokafka.partitioner import murmur2
from faust.types import TP
from numpy.typing import NDArray

from stream.catalogue import popularity
from stream.core.fold import Catalogue
from stream.core.keys import ANYONE_KEY
from stream.core.messages import Scored
from stream.core.rules import RuleSet
from stream.core.ruling import Ruling, Selections
from stream.kafka.broker_clock import Clock
from stream.kafka.fencing import Fence
from stream.kafka.producer import Outgoing, RecordBatches
from stream.settings import Settings

AGAIN: Final = 60.0
"""Seconds after which the `*` slate is published again."""


class Published(NamedTuple):
    """The slate that was published last, and the time on the monotonic clock."""

    items: list[Scored]
    at: float


class PopularSlates:
    """Publishes the `*` slate at start and whenever the live catalogue changes it.

    Only the owner of its partition does so, with its epoch in the headers. It publishes an unchanged slate again every
    AGAIN seconds, because someone may have deleted it.

    Args:
        settings: The worker's settings.
        bundle: Hex id of the bundle.
        counts: float32 [N + 1], the interactions of the bundle's items.
        fence: Knows which partitions are claimed.
        batches: Returns the object that sends record batches.
        clock: The brokers' clock.
        rules: Returns the rules in force.
        on_published: Called with partition and offset (-1: not reported) of each slate that is acknowledged.
        may: Returns whether slates of a partition may be published now.
    Attributes:
        lock: Held while a slate is published, and while another bundle is put in its place.
    """

    def __init__(
        self,
        settings: Settings,
        bundle: str,
        counts: NDArray[np.float32],
        fence: Fence,
        batches: Callable[[], RecordBatches],
        clock: Clock,
        rules: Callable[[], RuleSet],
        on_published: Callable[[int, int], object],
        may: Callable[[int], bool],
    ) -> None:
        self._settings = settings
        self._bundle = bundle
        self._counts = counts
        self._fence = fence
        self._batches = batches
        self._clock = clock
        self._rules = rules
        self._selections = Selections()
        self._on_published = on_published
        self._may = may
        self.lock = asyncio.Lock()
        self._key = ANYONE_KEY
        self._partition = (murmur2(self._key) & 0x7FFFFFFF) % settings.partitions
        self._last: Published | None = None

    def use(self, bundle: str, counts: NDArray[np.float32]) -> None:
        """Publish slates of another bundle from here on. Call it with `lock` held."""
        self._bundle, self._counts = bundle, counts
        self._selections = Selections()
        self._last = None

    async def publish(self, assigned: Collection[TP], snapshot: Callable[[], Catalogue]) -> None:
        """Publish the slate of the current snapshot if it is due and one of the `assigned` partitions is the slate's."""
        async with self.lock:
            await self._publish(assigned, snapshot())

    async def _publish(self, assigned: Collection[TP], snapshot: Catalogue) -> None:
        settings, partition = self._settings, self._partition
        owned = any(tp.topic == settings.sources[0] and tp.partition == partition for tp in assigned)
        if (
            not owned or not self._fence.owns(partition) or not self._may(partition)
        ):  # if assigned, it is claimed in a moment
            self._last = None
            return
        stamp = self._fence.stamp(partition)
        rules = self._rules()
        ruling = Ruling(rules, None, self._clock.now_ms(), self._selections)
        selection = ruling.of(popularity.NOBODY, 0, snapshot)
        by = settings.popular_by
        items = popularity.popular_items(self._counts, snapshot, settings.slate_size, selection, by)
        now = time.monotonic()
        if self._last is not None and items == self._last.items and now < self._last.at + AGAIN:
            return
        _, tables = popularity.counts_of(self._counts, snapshot, by)
        slate = popularity.popular_slate(items, snapshot.offset, self._bundle, self._clock.now_ms(), rules, tables)
        record = Outgoing(self._key, msgspec.json.encode(slate), stamp)
        target = settings.recommendations_topic, partition
        ends = await self._batches().send({target: [record]})
        self._on_published(partition, ends.get(target, -1))
        self._last = Published(items, now)
