"""The consumer's thread: it fetches, commits and sends heartbeats."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from faust.transport.drivers import aiokafka as driver
from faust.types import TP

from stream.kafka.batch import Record
from stream.kafka.broker_clock import steady
from stream.kafka.clients import METADATA_MS
from stream.kafka.group_join import Joining
from stream.kafka.offset_gaps import Passed
from stream.kafka.thread_end import LiveUntilEnd
from stream.kafka.truncation import TruncationWatch
from stream.process.fatal import fatal
from stream.process.stopping import stopping
from stream.process.supervision import guard_loop

FETCH_WAIT_MS = 50
"""How long the broker may hold a fetch. A partition that is read to its end is not fetched again while the broker holds
another fetch, so this limits the latency of a quiet topic-partition. Faust's built-in value is 1,500."""


@dataclass(frozen=True)
class Fetched:
    """The result of one fetch.

    Attributes:
        records: Records by partition.
        before: The position in each requested partition before the fetch.
        after: The position in each requested partition after the fetch.
    """

    records: Mapping[Any, list[Record]]
    before: Mapping[TP, int]
    after: Mapping[TP, int]


class SourceThread(LiveUntilEnd, driver.AIOKafkaConsumerThread):
    """Faust's consumer thread. It notes good heartbeats, keeps its place in the group, and reads only committed records.

    Attributes:
        passed: What the fetcher validly skips in the source topics.
        cuts: Watches for truncated logs. Set when the thread has started.
        joining: Watches how the group is joined. Set when the thread has started.
    """

    truncations: TruncationWatch
    joining: Joining

    def __init__(self, *arguments: Any, **named: Any) -> None:
        super().__init__(*arguments, **named)
        self.passed = Passed(self.app.source_topics)

    async def on_start(self) -> None:
        guard_loop(self.thread_loop, lambda: stopping.asked)
        self.joining = Joining(self.app.settings.session_timeout, lambda: stopping.asked)
        await super().on_start()
        self.passed.watch(self._consumer._fetcher)
        coordinator = self._consumer._coordinator
        membership = self.app.membership
        membership.watch(coordinator)
        self.joining.watch(coordinator)
        await membership.leave_former(coordinator)
        self._note_heartbeats(coordinator)

    def _note_heartbeats(self, coordinator: Any) -> None:
        """Have each good heartbeat renew the lease."""
        beat = coordinator._do_heartbeat
        lease = self.app.lease

        async def noted() -> bool:
            sent = steady()
            lease.answered = False
            good = bool(await beat())
            lease.answered = good or coordinator.coordinator_id is not None
            if good and lease.age:  # age 0: nothing is assigned
                lease.grant(sent)
            return good

        coordinator._do_heartbeat = noted

    async def crash(self, reason: BaseException) -> None:
        """End the process, for example if the broker refuses a commit.

        Faust would only stop this thread and leave a worker that does nothing.
        """
        fatal(reason)

    async def fetch(self, tps: set[TP], timeout: float, room: int) -> Fetched:
        """Fetch records of these partitions.

        Raises:
            IllegalStateError: A partition is no longer assigned.
            OffsetOutOfRangeError: A partition has neither a record nor its end at the position.
        """
        consumer = self._ensure_consumer()
        before = {tp: await consumer.position(tp) for tp in tps}
        records = await self._fetch_records(consumer, tps, timeout=timeout, max_records=room)
        waiting = consumer._fetcher._records  # read in this order; a partition that is partly read would stay in front
        for tp in [tp for tp in records if tp in waiting]:
            waiting.move_to_end(tp)
        return Fetched(records, before, {tp: await consumer.position(tp) for tp in tps})

    def client(self) -> Any:
        """Return the AIOKafkaConsumer; None before the thread has started."""
        return self._consumer

    def stable_end(self, tp: TP) -> int | None:
        """Return the end of the readable records; None before the broker has reported it.

        An open transaction and everything after its first record come later.
        """
        stable: int | None = self._ensure_consumer().last_stable_offset(tp)
        return stable

    def _create_worker_consumer(self, transport: Any) -> Any:
        consumer = super()._create_worker_consumer(transport)
        consumer._fetch_max_wait_ms = FETCH_WAIT_MS
        consumer._isolation_level = "read_committed"
        consumer._client._metadata_max_age_ms = METADATA_MS
        app = self.app
        self.truncations = TruncationWatch(consumer, app.source_topics, app.listener.last_written, app.losses.lose)
        self.truncations.watch()
        return consumer
