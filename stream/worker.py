"""One worker process: it loads the bundle, follows the catalogue and runs the Faust app until it is stopped.

Start order: bundle and golden vectors, health server, catalogue to its end, then the app (join, recover, ready).
Stop order (SIGTERM, SIGINT): accept no new records, finish waiting comments, commit, leave the group, close.
"""

from __future__ import annotations

import asyncio
import json
import logging
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from functools import partial
from importlib.metadata import version
from typing import Any, NamedTuple

import msgspec
from aiokafka.partitioner import murmur2

from stream.app import InterestApp
from stream.catalogue import popularity
from stream.catalogue.catalogue import Catalogue
from stream.catalogue.consumer import ItemsFollower
from stream.core.errors import BundleError, FreshetError, RecordError, SettingsError
from stream.core.messages import Scored
from stream.inference.bundle import Bundle, current, load
from stream.inference.serving import Opened, Threads, open_for
from stream.inference.text_encoder import Vectors
from stream.kafka.broker_clock import Difference
from stream.kafka.consumer import SourceConsumer
from stream.kafka.decoding import decoder_of
from stream.kafka.fencing import ChangelogReader, Fence
from stream.kafka.lenient_records import bound_unpacking, escape_header_names
from stream.kafka.membership import Membership, take
from stream.kafka.private_api import check_private_names
from stream.kafka.producer import Outgoing
from stream.kafka.store_identity import Changelog, FolderCheck
from stream.observability import logs, status
from stream.observability.health import Health
from stream.observability.lag import Lag
from stream.observability.metrics import Metrics
from stream.pipeline.comments import CommentStage
from stream.pipeline.dead_letter import DeadLetters
from stream.pipeline.misplaced import Misplaced
from stream.pipeline.pipeline import Pipeline, Serving
from stream.pipeline.sent_before import SentBefore, since_reader
from stream.process import supervision
from stream.process.fatal import fatal, leave, prepare
from stream.process.progress import LoopWatch, Progress, Work
from stream.process.stopping import stopping
from stream.process.watchdog import guard
from stream.settings import Settings

BUNDLE_LIMIT = 120.0  # seconds to load a bundle and to compute its golden vectors
START = 5.0  # seconds that a start in progress gets to finish once a stop is requested
DRAIN = 5.0  # seconds that waiting comments get when the worker stops
AGAIN = 60.0  # seconds after which the `*` slate is published again
TICK = 0.5  # seconds between two checks of the worker's condition
THREADS = ("health", "topics", "signals")  # must not end on their own

log = logging.getLogger("freshet.worker")


def run(
    settings: Settings,
    topics: Mapping[str, str] | None = None,
    cluster: str = "",
    room: Mapping[str, int] | None = None,
) -> None:
    """Run one worker until SIGTERM or SIGINT, then end the process. Later errors end the process, too.

    Args:
        settings: The worker's settings.
        topics: Topic -> its id, if the broker reports ids.
        cluster: The cluster's id.
        room: Source topic -> maximum bytes of a record batch there.
    Raises:
        FreshetError: The bundle cannot be used, or the settings do not fit it.
    """
    logs.configure(settings.log_level)
    stopping.listen()
    prepare()
    check_private_names()
    escape_header_names()
    bound_unpacking()
    guard.arm(max(settings.hang_limit, 2 * BUNDLE_LIMIT))  # a driver may hang, too
    with _in_time(
        BUNDLE_LIMIT, BundleError(f"golden.npz: not computed within {BUNDLE_LIMIT:g} s: a graph does not end")
    ):
        bundle = load(current(settings.bundles))
        check_fit(settings, bundle)
        threads = Threads()
        opened = open_for(bundle, settings.provider, threads)
    place = take(settings.data_dir, others="data_dir" not in settings.model_fields_set)
    if place.folder != settings.data_dir:
        log.warning("data_dir: %s is in use by another worker; this one uses %s", settings.data_dir, place.folder)
    settings = settings.model_copy(update={"data_dir": place.folder})
    supervision.guard_threads(lambda: stopping.asked)
    supervision.guard_services(lambda: stopping.asked)
    with asyncio.Runner(loop_factory=_loop_factory()) as runner:
        supervision.guard_loop(runner.get_loop(), lambda: stopping.asked)
        runner.run(Worker(settings, bundle, opened, threads, topics or {}, cluster, place, room or {}).live())
    leave(0)  # threads that are still busy do not delay the end


def check_fit(settings: Settings, bundle: Bundle) -> None:
    """Raise SettingsError if a setting contradicts the bundle: the model would take each rating for another one."""
    if settings.rating_scale != bundle.spec.rating_scale:
        found, expected = json.dumps(settings.rating_scale), json.dumps(bundle.spec.rating_scale)
        raise SettingsError(
            f"rating_scale: found {found}, expected {expected}, on which the bundle {bundle.id[:12]}... was trained; set "
            f"FRESHET_RATING_SCALE='{expected}' for the worker and all other commands, or point CURRENT at a bundle with {found}"
        )


@contextmanager
def _in_time(seconds: float, error: FreshetError) -> Iterator[None]:
    """End the process with `error` if the block takes longer: a running graph cannot be interrupted."""
    late = threading.Timer(seconds, fatal, [error])
    late.daemon = True
    late.start()
    try:
        yield
    finally:
        late.cancel()


def _loop_factory() -> type[asyncio.AbstractEventLoop] | None:
    try:
        import uvloop
    except ImportError:  # no wheel for this platform
        return None
    factory: type[asyncio.AbstractEventLoop] = uvloop.Loop
    return factory


def _tell(loop: asyncio.AbstractEventLoop, call: Callable[[], None]) -> None:
    """Have `loop` run `call`; do nothing if the loop is closed."""
    with suppress(RuntimeError):
        loop.call_soon_threadsafe(call)


class Shown(NamedTuple):
    """The `*` slate that was published last, and the time on the monotonic clock."""

    items: list[Scored]
    at: float


class Worker:
    """Builds, runs and stops all parts of one worker."""

    def __init__(
        self,
        settings: Settings,
        bundle: Bundle,
        opened: Opened,
        threads: Threads,
        topics: Mapping[str, str],
        cluster: str,
        place: Membership,
        room: Mapping[str, int],
    ) -> None:
        """Create the worker; it starts with `live`.

        Args:
            settings: The worker's settings.
            bundle: The loaded bundle.
            opened: The bundle's models, ready to run.
            threads: The threads that run the models.
            topics: See `run`.
            cluster: See `run`.
            place: The worker's place in the group, which belongs to settings.data_dir.
            room: See `run`.
        """
        self._settings = settings
        self._place = place
        self._room = room
        self._sources = {name: topics[name] for name in settings.sources if name in topics}
        self._changelog = Changelog(cluster, settings.changelog_topic, topics.get(settings.changelog_topic, ""))
        self._bundle = bundle
        self._models = opened.models
        self._encoder = opened.encoder
        self._why_cpu = opened.why_cpu
        self._threads = threads
        self._metrics = Metrics(settings.sources, data_dir=settings.data_dir)
        others = "web_port" not in settings.model_fields_set
        self._health = Health(self._metrics, settings.web_host, settings.web_port, others=others)
        self._stop = asyncio.Event()
        self._fence: Fence | None = None
        self._progress = Progress(settings.stall_limit)
        self._items: ItemsFollower | None = None
        self._app: InterestApp | None = None
        self._comments: CommentStage | None = None
        self._tasks: list[tuple[str, asyncio.Future[None]]] = []
        self._turned = self._consumer_turned = 0  # how often the two loops have turned
        self._encoded = 0  # comment texts

    async def live(self) -> None:
        """Call `run`. An error ends the process here, before parts that are still open can log anything else."""
        try:
            await self.run()
        except Exception as error:
            fatal(error)

    async def run(self) -> None:
        settings = self._settings
        self._describe()
        catalogue = Catalogue(self._bundle, self._encoder.item_vectors)
        self._health.page = lambda missing: self._page(missing, catalogue)
        self._health.progress = self._progress
        self._metrics.standing.set_function(lambda: self._progress.seconds)
        self._health.start()
        self._health.set(bundle=True)
        items = self._items = ItemsFollower(settings, catalogue, on_rejected=self._reject_item)
        self._tasks = [("beat", asyncio.ensure_future(self._beat()))]
        beats = {"the event loop": lambda: self._turned, "the consumer's loop": self._beat_of_consumer}
        guard.arm(settings.hang_limit)
        LoopWatch(settings.stall_limit, beats, guard.beat).start()
        await items.start()
        self._health.set(catalogue=True)
        app = self._app = InterestApp(settings)
        app.use(self._place, self._room)
        comments = self._comments = CommentStage(
            self._encode, self._threads.texts, settings.comment_cache,
            self._encode_and_read if self._encoder.reads else None, self._threads.urgent,
        )  # fmt: skip
        pipeline = self._pipeline(app, comments, catalogue)
        app.interest.pipeline = pipeline
        loop = asyncio.get_running_loop()
        stopping.in_order(lambda: _tell(loop, partial(self._ask_stop, app)))
        self._tasks.append(("watch", asyncio.ensure_future(self._watch(app, pipeline, catalogue))))
        log.info("worker starts", extra={"port": self._health.port, "bundle": self._bundle.id})
        asked = asyncio.ensure_future(self._stop.wait())
        starting = asyncio.ensure_future(app.start())
        await asyncio.wait((asked, starting), return_when=asyncio.FIRST_COMPLETED)
        if not starting.done():  # a stop was requested meanwhile: nothing is claimed from here on
            await asyncio.wait((starting,), timeout=START)
        if not starting.done():
            log.info("worker stopped")
            leave(0)
        await starting
        await asked
        await self._shut(app, items)

    def _ask_stop(self, app: InterestApp) -> None:
        app.consumer.hold()
        self._stop.set()

    def _encode(self, text: str) -> Vectors:
        vector = self._encoder.encode(text)
        self._encoded += 1
        return vector

    def _encode_and_read(self, text: str) -> tuple[Vectors, float]:
        found = self._encoder.encode_and_read(text)
        self._encoded += 1
        return found

    def _pipeline(self, app: InterestApp, comments: CommentStage, catalogue: Catalogue) -> Pipeline:
        settings, bundle = self._settings, self._bundle
        consumer: SourceConsumer = app.consumer
        changelog = ChangelogReader(settings, app.store.changelog_topic)
        consumer.held_up = lambda: changelog.held
        fence = self._fence = Fence(
            app.store,
            lambda: app.producer.batches,
            changelog.read,
            changelog.find,
            self._sources,
            settings.partitions,
            on_left_out=self._metrics.observe_left_out,
            key=settings.key,
        )
        forwards = settings.misplaced == "forward"
        sent_before = SentBefore(lambda: consumer.lay, since_reader(settings)) if forwards else None
        pipeline = Pipeline(
            settings,
            Serving(bundle.id, bundle.state_model, bundle.hidden, bundle.spec, self._models),
            consumer=lambda: consumer,
            batches=lambda: app.producer.batches,
            fence=lambda: fence,
            store=app.store,
            decoder=decoder_of(settings),
            comments=comments,
            dead_letters=DeadLetters(bundle.id, app.clock.now_ms),
            misplaced=Misplaced(settings.sources, self._room) if forwards else None,
            sent_before=sent_before,
            catalogue=lambda: catalogue.snapshot,
            executor=self._threads.models,
            metrics=self._metrics,
            clock=app.clock,
        )
        consumer.calls = lambda: self._models.ended + (sent_before.records if sent_before is not None else 0)
        consumer.drained = comments.drained
        consumer.on_revoked = pipeline.revoked
        consumer.on_commit = lambda: self._metrics.observe_commit(app.clock.now())
        folder = FolderCheck(app.store, self._changelog, self._sources, self._metrics.damaged.inc, consumer.lose)
        consumer.prepare = folder.prepare
        consumer.drop = app.store.drop
        consumer.take_over = fence.take_over
        consumer.on_left_out = self._metrics.observe_left_out
        consumer.written = fence.written
        consumer.claimed = lambda partition: app.store.claim(partition).epoch > 0
        consumer.on_accepted_loss = self._metrics.accepted_loss.inc
        outputs = {
            **dict.fromkeys(settings.sources, "sources"),
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
        self._describe_provider()

    def _describe_provider(self) -> None:
        """Report the provider. If `auto` finds no GPU, warn only if `provider` was set; the default takes either."""
        found, policy = self._models.provider, self._settings.provider
        asked = "provider" in self._settings.model_fields_set
        self._metrics.use_provider(found, policy if asked else "default")
        if policy == "auto" and found == "cpu":
            level = logging.WARNING if asked else logging.INFO
            log.log(level, "provider auto runs on the CPU: %s", self._why_cpu)

    def _page(self, missing: list[str], catalogue: Catalogue) -> bytes:
        snapshot = catalogue.snapshot
        live = status.Live(missing, snapshot.live, snapshot.known, snapshot.offset)
        return status.page(self._bundle, version("freshet"), self._models.provider, live)

    def _reject_item(self, offset: int, key: bytes | None, value: bytes | None, error: RecordError) -> None:
        """Count and log a rejected record; it stays in the items topic."""
        self._metrics.reject_item(error.reason)
        log.warning(
            "item record rejected: %s", error, extra={"offset": offset, "reason": error.reason, "field": error.field}
        )

    async def _beat(self) -> None:
        """Send the heartbeat, and check that everything that must run is running and makes progress."""
        threads = [(one.name, one) for one in threading.enumerate() if one.name in THREADS]
        while True:
            self._turned += 1
            self._health.beat()
            if not stopping.asked:
                try:
                    self._look(threads)
                except Exception as error:
                    fatal(error)
            await asyncio.sleep(TICK)

    def _look(self, threads: Sequence[tuple[str, threading.Thread | None]]) -> None:
        tasks: list[tuple[str, asyncio.Future[Any] | None]] = [*self._tasks]
        work = {}
        if self._items is not None:
            tasks += self._items.tasks()
            work = self._items.work()
        if self._app is not None:
            consumer: SourceConsumer = self._app.consumer
            tasks += [*consumer.tasks(), *self._app.producer_tasks()]
            threads = [*threads, ("consumer", consumer.thread())]
            work |= consumer.work(self._recovered(self._app))
        if self._comments is not None and self._comments.held:
            work["comments"] = Work(f"{self._comments.held} events behind comments to be encoded", self._encoded)
        supervision.look(tasks, threads)
        self._progress.look(work)

    def _beat_of_consumer(self) -> int:
        """Return how often the loop of the consumer's thread has turned, and ask it to turn again."""
        if self._app is None or self._app.consumer.thread() is None:
            self._consumer_turned += 1
        else:
            self._app.consumer.turn(self._count_turn)
        return self._consumer_turned

    def _count_turn(self) -> None:
        self._consumer_turned += 1

    @staticmethod
    def _recovered(app: InterestApp) -> bool:
        return bool(app.consumer.joined and app.tables.actives_ready and not app.rebalancing)

    async def _watch(self, app: InterestApp, pipeline: Pipeline, catalogue: Catalogue) -> None:
        """Update readiness and gauges, and publish the slate for unknown users."""
        consumer: SourceConsumer = app.consumer
        lag = Lag(self._settings.sources)
        differs = Difference()
        recovered = rebalances = 0
        shown: Shown | None = None
        while True:
            try:
                up = self._recovered(app)
                self._health.set(joined=consumer.joined, recovered=up)
                if up and consumer.rebalances > rebalances:  # readiness may have come and gone since the last check
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

    async def _publish_popular(self, app: InterestApp, catalogue: Catalogue, shown: Shown | None) -> Shown | None:
        """Publish the `*` slate at start and whenever the live catalogue changes it.

        Only the owner of its partition does so, with its epoch in the headers. It publishes an unchanged slate again
        every AGAIN seconds, because someone may have deleted it.
        """
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
        now = time.monotonic()
        if shown is not None and items == shown.items and now < shown.at + AGAIN:
            return shown
        slate = popularity.popular_slate(items, snapshot.offset, self._bundle.id, app.clock.now_ms())
        record = Outgoing(key, msgspec.json.encode(slate), stamp)
        await app.producer.batches.send({(settings.recommendations_topic, partition): [record]})
        self._metrics.slates.labels("popularity", "false").inc()
        return Shown(items, now)

    async def _shut(self, app: InterestApp, items: ItemsFollower) -> None:
        log.info("worker stops")
        self._health.set(joined=False)
        stopping.waits_for = "micro-batches and comments in progress"
        if not await app.consumer.settle(DRAIN):
            waiting = self._comments.held if self._comments else 0
            log.warning(
                "%d events wait for comments to be encoded: the next owner of their partitions reads them again",
                waiting,
            )
        for _, task in self._tasks:
            task.cancel()
            with suppress(asyncio.CancelledError):
                await task
        stopping.waits_for = "Kafka's clients and RocksDB to be closed"
        await app.stop()
        stopping.waits_for = "the items' consumer to be closed"
        await items.stop()
        self._health.stop()
        self._threads.models.shutdown(wait=False)
        for texts in (self._threads.texts, self._threads.urgent):
            texts.shutdown(wait=False, cancel_futures=True)
        log.info("worker stopped")
