"""One worker process: load the bundle, follow the catalogue, run the Faust app until told to stop.

Order of start: bundle and golden vectors, health server, catalogue to its end, then the app (join, recover, ready).
Order of stop (SIGTERM, SIGINT): no new records, waiting comments finish, commit, leave the group, close.
"""

from __future__ import annotations

import asyncio
import logging
import os
import signal
import sys
import threading
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from importlib.metadata import version

import msgspec
from aiokafka.errors import KafkaError
from aiokafka.partitioner import murmur2

from stream import logs, popularity, status
from stream.app import InterestApp
from stream.bundle import Bundle, current, load
from stream.catalogue import Catalogue
from stream.clock import Difference
from stream.comments import CommentStage
from stream.deadletter import DeadLetters
from stream.decoder import EventDecoder
from stream.encoder import Encoder, open_encoder
from stream.errors import FreshetError, RecordError
from stream.events import Scored
from stream.fatal import fatal, meaning
from stream.folder import Changelog, FolderCheck
from stream.health import Health
from stream.items import ItemsFollower
from stream.lag import Lag
from stream.metrics import Metrics
from stream.pipeline import Pipeline, Serving
from stream.session import Models, open_models
from stream.settings import Settings
from stream.transport import (
    Fence,
    Outgoing,
    SourceConsumer,
    bound_unpacking,
    check_private_names,
    escape_header_names,
    finder,
    reader,
)

STOP_LIMIT = 28.0  # seconds; a worker that is asked to stop is gone within 30
DRAIN = 5.0  # seconds that waiting comments get at the stop
TICK = 0.5  # seconds between two looks at the worker's condition

log = logging.getLogger("freshet.worker")


def run(settings: Settings, topics: Mapping[str, str] | None = None, cluster: str = "") -> None:
    """Run one worker until SIGTERM or SIGINT. topics: topic -> its id, where the broker tells ids; cluster: the cluster's.

    Raises FreshetError where it cannot start; later errors end the process.
    """
    logs.configure(settings.log_level)
    check_private_names()
    escape_header_names()
    bound_unpacking()
    bundle = load(current(settings.bundles))
    models = open_models(bundle, settings.provider)
    encoder = open_encoder(bundle, settings.provider)
    with asyncio.Runner(loop_factory=_loop_factory()) as runner:
        try:
            runner.run(Worker(settings, bundle, models, encoder, topics or {}, cluster).run())
        except (
            KafkaError
        ) as error:  # the broker went away after the topics were looked at, and before the app had started
            raise meaning(error) from None


def _loop_factory() -> type[asyncio.AbstractEventLoop] | None:
    try:
        import uvloop
    except ImportError:  # no wheel for this platform
        return None
    factory: type[asyncio.AbstractEventLoop] = uvloop.Loop
    return factory


def _items_ended(task: asyncio.Task[None]) -> None:
    """A worker whose catalogue stands still would recommend what is gone."""
    if not task.cancelled() and (error := task.exception()) is not None:
        fatal(error)


def _step_back() -> None:
    """Lower the calling thread's priority: where cores are short, a comment's text waits rather than everybody's slates."""
    if sys.platform == "linux":  # elsewhere priorities belong to processes
        with suppress(OSError):
            os.setpriority(os.PRIO_PROCESS, threading.get_native_id(), 10)


class Worker:
    """Everything of one worker, put together."""

    def __init__(
        self,
        settings: Settings,
        bundle: Bundle,
        models: Models,
        encoder: Encoder,
        topics: Mapping[str, str],
        cluster: str = "",
    ) -> None:
        self._settings = settings
        self._sources = {name: topics[name] for name in settings.sources if name in topics}
        self._changelog = Changelog(cluster, settings.changelog_topic, topics.get(settings.changelog_topic, ""))
        self._bundle = bundle
        self._models = models
        self._encoder = encoder
        self._metrics = Metrics(settings.sources, data_dir=settings.data_dir)
        self._health = Health(self._metrics, settings.web_host, settings.web_port)
        self._model_thread = ThreadPoolExecutor(1, "models")
        self._text_thread = ThreadPoolExecutor(1, "texts", initializer=_step_back)
        self._urgent_thread = ThreadPoolExecutor(1, "urgent-texts")  # a thread only once it is needed
        self._stop = asyncio.Event()
        self._fence: Fence | None = None

    async def run(self) -> None:
        settings = self._settings
        self._describe()
        catalogue = Catalogue(self._bundle, self._encoder.item_vectors)
        self._health.page = lambda missing: self._page(missing, catalogue)
        self._health.start()
        self._health.set(bundle=True)
        loop = asyncio.get_running_loop()
        for name in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(name, self._stop.set)
        items = ItemsFollower(settings, catalogue, on_rejected=self._reject_item)
        beating = asyncio.ensure_future(self._beat())
        await items.start()
        if items.task is not None:
            items.task.add_done_callback(_items_ended)
        self._health.set(catalogue=True)
        app = InterestApp(settings)
        comments = CommentStage(
            self._encoder.encode, self._text_thread, settings.comment_cache,
            self._encoder.encode_and_read if self._encoder.reads else None, self._urgent_thread,
        )  # fmt: skip
        pipeline = self._pipeline(app, comments, catalogue)
        app.interest.pipeline = pipeline
        watching = asyncio.ensure_future(self._watch(app, pipeline, catalogue))
        log.info("worker starts", extra={"port": self._health.port, "bundle": self._bundle.id})
        await app.start()
        await self._stop.wait()
        await self._shut(app, items, [watching, beating])

    def _pipeline(self, app: InterestApp, comments: CommentStage, catalogue: Catalogue) -> Pipeline:
        settings, bundle = self._settings, self._bundle
        consumer: SourceConsumer = app.consumer
        fence = self._fence = Fence(
            app.store,
            lambda: app.producer.batches,
            reader(settings, app.store.changelog_topic),
            finder(settings, app.store.changelog_topic),
            self._sources,
            settings.partitions,
            on_left_out=self._metrics.observe_left_out,
        )
        pipeline = Pipeline(
            settings,
            Serving(bundle.id, bundle.state_model, bundle.hidden, bundle.spec, self._models),
            consumer=lambda: consumer,
            batches=lambda: app.producer.batches,
            fence=lambda: fence,
            store=app.store,
            decoder=EventDecoder(settings.partitions, settings.rating_scale, settings.sources),
            comments=comments,
            dead_letters=DeadLetters(bundle.id, app.clock.now_ms),
            catalogue=lambda: catalogue.snapshot,
            executor=self._model_thread,
            metrics=self._metrics,
            clock=app.clock,
        )
        consumer.drained = comments.drained
        consumer.on_revoked = pipeline.revoked
        consumer.on_commit = lambda: self._metrics.observe_commit(app.clock.now())
        folder = FolderCheck(app.store, self._changelog, self._sources, self._metrics.damaged.inc, consumer.lose)
        consumer.prepare = folder.prepare
        consumer.drop = app.store.drop
        consumer.take_over = fence.take_over
        consumer.on_left_out = self._metrics.observe_left_out
        consumer.on_accepted_loss = self._metrics.accepted_loss.inc
        outputs = {
            app.store.changelog_topic: "changelog",
            settings.recommendations_topic: "recommendations",
            settings.dead_letters_topic: "dead-letters",
        }
        app.on_send_error = lambda topic: self._metrics.send_failed(outputs.get(topic, topic))
        comments.on_ready = consumer.wake
        return pipeline

    def _describe(self) -> None:
        self._metrics.use_version(version("freshet"))
        bundle = self._bundle
        data = str(bundle.data.get("name", ""))
        self._metrics.use_bundle(bundle.id, bundle.state_model.hex(), data, bundle.metrics)
        self._metrics.use_provider(self._models.provider, self._settings.provider)

    def _page(self, missing: list[str], catalogue: Catalogue) -> bytes:
        snapshot = catalogue.snapshot
        live = status.Live(missing, snapshot.live, snapshot.known, snapshot.offset)
        return status.page(self._bundle, version("freshet"), self._models.provider, live)

    def _reject_item(self, offset: int, key: bytes | None, value: bytes | None, error: RecordError) -> None:
        """The record stays in the items topic; here it is counted and named."""
        self._metrics.reject_item(error.reason)
        log.warning(
            "item record rejected: %s", error, extra={"offset": offset, "reason": error.reason, "field": error.field}
        )

    async def _beat(self) -> None:
        while True:
            self._health.beat()
            await asyncio.sleep(TICK)

    async def _watch(self, app: InterestApp, pipeline: Pipeline, catalogue: Catalogue) -> None:
        """Readiness, gauges, and the slate for anyone unknown."""
        consumer: SourceConsumer = app.consumer
        lag = Lag(self._settings.sources)
        differs = Difference()
        recovered = rebalances = 0
        shown: list[Scored] | None = None
        while True:
            try:
                up = consumer.joined and bool(app.tables.actives_ready) and not app.rebalancing
                self._health.set(joined=consumer.joined, recovered=up)
                if up and consumer.rebalances > rebalances:  # it may have come and gone since the last look
                    partitions = sum(tp.topic in app.source_topics for tp in consumer.assignment())
                    self._metrics.observe_rebalances(consumer.rebalances - rebalances, partitions)
                    rebalances = consumer.rebalances
                    back = consumer.read_back
                    log.info(
                        "worker is ready",
                        extra={
                            "partitions": partitions,
                            "recovered": back.records,
                            "recovery_seconds": round(back.seconds, 3),
                        },
                    )
                recovering = app.tables.recovery.active_remaining_total() if app.in_recovery else -1
                remaining = 0 if up else max(-1, recovering)
                self._metrics.observe_recovery(consumer.recovered - recovered, remaining)
                recovered = consumer.recovered
                snapshot = catalogue.snapshot
                self._metrics.observe_catalogue(snapshot.live, snapshot.known, snapshot.offset)
                self._metrics.observe_clock(app.clock.offset)
                differs.look(app.clock.offset)
                if up:
                    consumer.check_topology()
                    self._metrics.observe_lag(lag.look(app.clock.now(), consumer.lag(), pipeline.newest))
                    self._metrics.observe_undecided(consumer.undecided())
                    shown = await self._publish_popular(app, catalogue, shown)
            except asyncio.CancelledError:
                raise
            except Exception as error:
                fatal(error)
            await asyncio.sleep(TICK)

    async def _publish_popular(
        self, app: InterestApp, catalogue: Catalogue, shown: list[Scored] | None
    ) -> list[Scored] | None:
        """The `*` slate, at start and whenever the live catalogue changes it, by its partition's owner, named by epoch."""
        settings = self._settings
        key = popularity.ANYONE.encode()
        partition = (murmur2(key) & 0x7FFFFFFF) % settings.partitions
        if not any(tp.topic == settings.sources[0] and tp.partition == partition for tp in app.consumer.assignment()):
            return None
        stamp = self._fence.stamp(partition) if self._fence and self._fence.owns(partition) else None
        if stamp is None:
            return None  # claimed in a moment
        snapshot = catalogue.snapshot
        items = popularity.popular_items(self._bundle.popularity, snapshot, settings.slate_size)
        if items == shown:
            return shown
        slate = popularity.popular_slate(items, snapshot.offset, self._bundle.id, app.clock.now_ms())
        record = Outgoing(key, msgspec.json.encode(slate), stamp)
        await app.producer.batches.send({(settings.recommendations_topic, partition): [record]})
        self._metrics.slates.labels("popularity", "false").inc()
        return items

    async def _shut(self, app: InterestApp, items: ItemsFollower, tasks: list[asyncio.Future[None]]) -> None:
        log.info("worker stops")
        late = threading.Timer(STOP_LIMIT, fatal, [FreshetError(f"not stopped within {STOP_LIMIT:g} s")])
        late.daemon = True
        late.start()
        self._health.set(joined=False)
        app.consumer.hold()
        await app.consumer.settle(DRAIN)
        for task in tasks:
            task.cancel()
            with suppress(asyncio.CancelledError):
                await task
        await app.stop()
        await items.stop()
        self._health.stop()
        self._model_thread.shutdown(wait=False)
        for texts in (self._text_thread, self._urgent_thread):
            texts.shutdown(wait=False, cancel_futures=True)  # else the process waits for every text that waits
        log.info("worker stopped")
