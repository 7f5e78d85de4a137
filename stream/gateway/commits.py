"""Asks for the offsets that the workers' group has committed, only while requests wait for records that no state shows.

See stream.gateway.positions for what follows from a committed offset.
"""

from __future__ import annotations

import asyncio
import logging
from typing import Any, Final

from aiokafka import TopicPartition
from aiokafka.admin import AIOKafkaAdminClient
from aiokafka.errors import KafkaError

from stream.gateway.positions import Positions
from stream.gateway.replica import Replica
from stream.kafka.clients import METADATA_MS, consumer_arguments
from stream.settings import Settings

EVERY: Final = 0.2
"""Seconds between two requests, for all waiting requests together."""
LIMIT: Final = 5.0

log = logging.getLogger("freshet.gateway")


class Commits:
    """Tells `positions` what the workers have finished.

    Args:
        settings: The settings.
        replica: The replica.
        positions: Knows who waits, and gets the committed offsets.
    """

    def __init__(self, settings: Settings, replica: Replica, positions: Positions) -> None:
        self.task: asyncio.Task[None] | None = None
        self._settings = settings
        self._replica = replica
        self._positions = positions
        self._wake = asyncio.Event()
        self._admin: Any = None
        self._failed = False
        positions.on_impatient = self._wake.set

    def start(self) -> None:
        """Begin to answer."""
        self.task = asyncio.create_task(self._run(), name="commits")

    async def stop(self) -> None:
        """End the task and the client."""
        if self.task is not None:
            self.task.cancel()
            await asyncio.wait([self.task])
        if self._admin is not None:
            admin, self._admin = self._admin, None
            await admin.close()

    async def _run(self) -> None:
        while True:
            await self._wake.wait()
            while partitions := sorted(self._positions.asked):
                try:
                    async with asyncio.timeout(LIMIT):
                        await self._look(partitions)
                    self._failed = False
                except (KafkaError, TimeoutError, OSError) as error:
                    if not self._failed:  # once, until it works again
                        log.warning(
                            "the group's committed offsets could not be read: %s", error or type(error).__name__
                        )
                    self._failed = True
                await asyncio.sleep(EVERY)
            self._wake.clear()

    async def _look(self, partitions: list[int]) -> None:
        committed = await self._committed(partitions)
        ends = await self._replica.ends(partitions)  # after the offsets: what they stand for is written before
        for partition in partitions:
            await self._replica.reach(partition, ends[partition])
            self._positions.finished(partition, committed.get(partition, {}))

    async def _committed(self, partitions: list[int]) -> dict[int, dict[int, int]]:
        """Return partition -> behaviour -> committed offset."""
        if self._admin is None:
            admin = AIOKafkaAdminClient(
                **consumer_arguments(self._settings),
                client_id=f"{self._settings.app_id}-commits",
                metadata_max_age_ms=METADATA_MS,
            )
            await admin.start()
            self._admin = admin
        sources = self._settings.sources
        topic_partitions = [TopicPartition(topic, partition) for topic in sources for partition in partitions]
        found = await self._admin.list_consumer_group_offsets(self._settings.app_id, partitions=topic_partitions)
        committed: dict[int, dict[int, int]] = {}
        for topic_partition, one in found.items():
            if one.offset >= 0:
                committed.setdefault(topic_partition.partition, {})[sources.index(topic_partition.topic)] = one.offset
        return committed
