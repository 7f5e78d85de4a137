"""The Faust app with batch-native sources, its transport and its channel of micro-batches."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Iterator, Mapping
from typing import Any, Final

import faust
from faust.auth import OAuthCredentials
from faust.channels import Channel
from faust.transport.drivers import aiokafka as driver
from faust.types import TP

from stream.core.errors import FreshetError
from stream.kafka.batch import MicroBatch
from stream.kafka.broker_clock import Clock
from stream.kafka.clients import producer_tasks
from stream.kafka.consumer import SourceConsumer
from stream.kafka.credentials import token_provider
from stream.kafka.lease import Lease
from stream.kafka.losses import Losses
from stream.kafka.membership import Membership
from stream.kafka.partition_listener import PartitionListener
from stream.kafka.producer import MAX_BATCH, MAX_REQUEST, SourceProducer
from stream.process.fatal import fatal
from stream.process.supervision import Task
from stream.settings import Settings, security

NEVER: Final = 100 * 365 * 86_400.0
"""Seconds without a fetch until aiokafka leaves the group; in effect never. A worker that owns no partition has nothing
to fetch. If it owns some, the stall watch checks that it makes progress."""

Handler = Callable[[MicroBatch], Awaitable[None]]


class SourceTransport(driver.Transport):
    """Faust's aiokafka transport with our consumer and producer."""

    Consumer = SourceConsumer
    Producer = SourceProducer


class MicroBatchChannel(Channel):
    """A channel of micro-batches, named after the topics that they come from.

    Its queue is unmanaged, because Faust's flow control would clear it and lose records that were never processed.
    """

    @property
    def queue(self) -> Any:
        if self._queue is None:  # type: ignore[has-type]
            self._queue = self.app.FlowControlQueue(maxsize=4, clear_on_resume=False)
        return self._queue

    def get_topic_name(self) -> str:
        return ", ".join(sorted(self.app.source_topics))


class SourceApp(faust.App):
    """A Faust app whose source topics arrive as micro-batches. It ends the process if any service crashes."""

    def __init__(self, settings: Settings) -> None:
        self.settings = settings
        self.lease = Lease(settings.session_timeout)
        self.clock = Clock()
        self.source_topics: frozenset[str] = frozenset(settings.sources)
        self.on_send_error: Callable[[str], None] = lambda topic: None
        self.membership: Membership
        self.room: Mapping[str, int] = {}
        self.listener: PartitionListener | None = None
        self.losses: Losses
        super().__init__(
            settings.app_id,
            broker=[f"kafka://{address}" for address in settings.brokers.split(",")],
            broker_credentials=credentials(settings),
            store="rocksdb://",
            datadir=str(settings.data_dir),
            origin="stream",
            autodiscover=False,
            topic_allow_declare=False,
            topic_disable_leader=True,
            topic_partitions=settings.partitions,
            key_serializer="raw",
            value_serializer="raw",
            web_enabled=False,
            web_in_thread=False,
            processing_guarantee="at_least_once",
            agent_supervisor="mode.CrashingSupervisor",
            table_standby_replicas=settings.standby_replicas,
            broker_commit_interval=settings.commit_interval,
            broker_session_timeout=settings.session_timeout,
            broker_heartbeat_interval=settings.heartbeat_interval,
            broker_rebalance_timeout=settings.rebalance_timeout,
            broker_request_timeout=settings.group_request_timeout,
            broker_max_poll_interval=NEVER,
            consumer_auto_offset_reset="none",  # no silent reset: SourceConsumer decides where to continue
            consumer_max_fetch_size=5 << 20,
            producer_acks=-1,
            producer_linger=0,
            producer_max_batch_size=MAX_BATCH,
            producer_max_request_size=MAX_REQUEST,
            producer_request_timeout=settings.request_timeout,
            stream_wait_empty=True,
        )
        self.micro_batches = MicroBatchChannel(self)

    def use(self, membership: Membership, room: Mapping[str, int], listener: PartitionListener, losses: Losses) -> None:
        """Set what the app needs before it has a consumer.

        Args:
            membership: This worker's place in its group.
            room: Source topic -> maximum bytes of a record batch there.
            listener: The owner of the states.
            losses: Decides whether a loss ends the worker.
        """
        self.membership = membership
        self.room = room
        self.listener = listener
        self.losses = losses

    def changelog(self, partition: int) -> TP:
        """Return the changelog partition that belongs to a source partition."""
        return TP(self.settings.changelog_topic, partition)

    def _new_transport(self) -> SourceTransport:
        return SourceTransport(self.conf.broker_consumer, self)

    def source_agent(self, name: str, handle: Handler, description: str) -> Any:
        """Register the agent that passes each micro-batch to `handle`, one at a time; any exception ends the process."""
        source = self.topic(*self.settings.sources, key_type=bytes, value_type=bytes)

        async def consume(batches: Any) -> None:
            self.topics.add(source)  # subscribes without creating a separate stream
            async for batch in batches:
                try:
                    await handle(batch)
                except asyncio.CancelledError:
                    current = asyncio.current_task()
                    if current is None or not current.cancelling():  # something it awaited was cancelled, not the agent
                        fatal(FreshetError(f"a micro-batch was cancelled inside the agent {name}: this is a bug"))
                    raise
                except Exception as error:
                    fatal(error)

        consume.__name__ = name
        consume.__doc__ = description
        return self.agent(self.micro_batches, name=name)(consume)

    def producer_tasks(self) -> Iterator[tuple[str, Task | None]]:
        """Yield the tasks of aiokafka's producer; the values are None before it has started."""
        yield from producer_tasks("the worker's producer", getattr(self._producer, "_producer", None))

    async def crash(self, reason: BaseException) -> None:
        fatal(reason)


def credentials(settings: Settings) -> Any:
    """Return Faust's credentials for the security protocol in the settings; None for PLAINTEXT."""
    protocol = settings.security_protocol
    if protocol == "PLAINTEXT":
        return None
    context = security.tls(settings)
    if "SASL" not in protocol:
        return faust.SSLCredentials(context)
    if settings.sasl_mechanism == "OAUTHBEARER" and settings.sasl_token_file is not None:
        tokens = token_provider(settings.sasl_token_file)
        return OAuthCredentials(oauth_cb=tokens, ssl_context=context)
    return faust.SASLCredentials(
        mechanism=settings.sasl_mechanism,
        username=settings.sasl_username,
        password=settings.sasl_password.get_secret_value(),
        ssl_context=context,
    )
