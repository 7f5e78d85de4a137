"""Says in the topic `bundles` which bundle makes the slates of this worker's partitions, before it makes the first of them."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Collection, Sequence
from typing import Final, Protocol

from aiokafka.errors import KafkaError

from stream.core.bundle_log import CURRENT, Activation, BundleLog, Record, Switched
from stream.core.denials import refusal
from stream.kafka.fencing import Fence
from stream.settings import Settings

PAUSE: Final = 0.5
"""Seconds before a broker that could not answer is asked again."""

log = logging.getLogger("freshet.bundles")


class Followed(Protocol):
    """The topic `bundles`, as stream.catalogue.bundles.BundlesFollower reads it."""

    @property
    def log(self) -> BundleLog: ...

    async def read_to_end(self) -> None: ...

    async def ends(self, topic: str, partitions: Collection[int]) -> dict[int, int]: ...


class Switches:
    """Writes `switched` for partitions of this worker.

    Args:
        settings: The settings.
        name: The worker's name.
        fence: Knows the partitions' epochs.
        followed: The topic as far as it is read.
        write: Writes records to it; they are acknowledged when it returns.
        now: Returns the time in epoch ms.
    """

    def __init__(
        self,
        settings: Settings,
        name: str,
        fence: Fence,
        followed: Followed,
        write: Callable[[Sequence[Record]], Awaitable[None]],
        now: Callable[[], int],
    ) -> None:
        self._topic = settings.recommendations_topic
        self._name = name
        self._fence = fence
        self._followed = followed
        self._write = write
        self._now = now
        self._said: dict[int, Activation] = {}  # partition -> what makes its slates

    def has(self, partition: int) -> bool:
        """Return whether slates of a partition may be published: the topic says by which bundle."""
        return partition in self._said

    def forget(self) -> None:
        """Forget all partitions: they are given up."""
        self._said.clear()

    async def announce(self, partitions: Collection[int], serving: Activation) -> None:
        """Write which bundle makes the slates of partitions from here on, unless the topic says so already.

        The first `switched` of a partition is preceded by one with what made its slates until then, if this worker did:
        CURRENT may name another bundle by now, and a rollback needs to know.

        No slate of them may be sent meanwhile, and all former ones must be acknowledged. Waits for brokers that cannot answer.

        Args:
            partitions: Partitions that this worker has claimed.
            serving: The activation that will be served, or what stands for CURRENT.

        Raises:
            BrokerError: The records cannot be written, or a right is missing.
        """
        wanted = set(partitions)
        while wanted:
            try:
                await self._followed.read_to_end()  # another worker may have written just now
                due = sorted(one for one in wanted if self._followed.log.must_switch(one, serving))
                ends = await self._followed.ends(self._topic, due) if due else {}
                break
            except KafkaError as error:
                if refused := refusal(error, self._topic, "Read"):
                    raise refused from None
                log.warning("%r: asking again where the slates of partitions end", error)
                await asyncio.sleep(PAUSE)
        else:
            return
        records = [
            Switched(of.number, of.bundle, one, ends[one], self._name, self._fence.epoch(one), self._now())
            for one in due
            if self._fence.owns(one)  # a rebalance may have taken it meanwhile
            for of in (*self._before(one, serving), serving)
        ]
        if records:
            await self._write(records)
            log.info(
                "slates are made by another bundle",
                extra={
                    "bundle": serving.bundle,
                    "activation": serving.number,
                    "partitions": {str(one.partition): one.slates for one in records},
                },
            )
        self._said |= dict.fromkeys(wanted, serving)

    def _before(self, partition: int, serving: Activation) -> list[Activation]:
        """Return what made the slates of a partition until now, if the topic does not say it; else nothing."""
        before = self._said.get(partition)
        if before is None or before.number != CURRENT or before.bundle == serving.bundle:
            return []
        return [] if self._followed.log.last(partition) else [before]
