"""One worker process: it loads the bundle, follows the catalogue and the rules and runs the Faust app until it is stopped.

Start order: bundle and golden vectors, health server, catalogue and rules to their ends, then the app (join, recover, ready).
While it runs it changes to the bundle of the newest activation (stream.swap).
Stop order (SIGTERM, SIGINT): accept no new records, finish waiting comments, commit, leave the group, close.

`run` loads what can be wrong without a broker, then `Worker.run` starts the parts that `stream.assembly` builds.
"""

from __future__ import annotations

import asyncio
import logging
import threading
import time
import uuid
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import replace
from functools import partial
from importlib.metadata import version
from typing import Any

from stream.app import InterestApp
from stream.assembly import Inputs, Parts, Served, assemble
from stream.catalogue.bundles import BundlesFollower, BundlesWriter
from stream.catalogue.catalogue import Catalogue, Snapshot
from stream.catalogue.consumer import ItemsFollower, RulesFollower, TablesFollower
from stream.core.bundle_log import Activation
from stream.core.errors import InternalError, RecordError
from stream.core.rules import RuleBook
from stream.inference.loading import Loaded, Loader, Refusal, prove
from stream.inference.serving import Threads
from stream.kafka.broker_clock import Difference
from stream.kafka.lenient_records import bound_unpacking, escape_header_names
from stream.kafka.membership import take
from stream.kafka.private_api import check_private_names
from stream.observability import logs, status
from stream.observability.health import Health
from stream.observability.lag import Lag
from stream.observability.metrics import Metrics
from stream.process import supervision
from stream.process.fatal import fatal, leave, prepare
from stream.process.progress import LoopWatch, Progress, Work
from stream.process.startup import loop_factory
from stream.process.stopping import stopping
from stream.process.watchdog import guard
from stream.settings import Settings
from stream.swap import BUNDLE_LIMIT, Swap, SwapParts, choose

START = 5.0  # seconds that a start in progress gets to finish once a stop is requested
DRAIN = 5.0  # seconds that waiting comments get when the worker stops
TICK = 0.5  # seconds between two checks of the worker's condition
THREADS = ("health", "topics", "signals")  # must not end on their own

log = logging.getLogger("freshet.worker")


def run(
    settings: Settings,
    topics: Mapping[str, str] | None = None,
    cluster: str = "",
    room: Mapping[str, int] | None = None,
    activated: Sequence[Activation] = (),
) -> None:
    """Run one worker until SIGTERM or SIGINT, then end the process. Later errors end the process, too.

    Args:
        settings: The worker's settings.
        topics: Topic -> its id, if the broker reports ids.
        cluster: The cluster's id.
        room: Source topic -> maximum bytes of a record batch there.
        activated: What the topic `bundles` has activated, the newest first; the first bundle that can be used is
            served, else the one that CURRENT names.
    Raises:
        FreshetError: No bundle can be used, or the settings do not fit it.
    """
    logs.configure(settings.log_level)
    stopping.listen()
    prepare()
    check_private_names()
    escape_header_names()
    bound_unpacking()
    guard.arm(max(settings.hang_limit, (2 + len(activated)) * BUNDLE_LIMIT))  # a driver may hang, too
    threads = Threads()
    chosen = [
        choose(settings, activated, threads, BUNDLE_LIMIT)
    ]  # given away below: what is served first must not stay for ever
    membership = take(settings.data_dir, others="data_dir" not in settings.model_fields_set)
    if membership.folder != settings.data_dir:
        log.warning("data_dir: %s is in use by another worker; this one uses %s", settings.data_dir, membership.folder)
    settings = settings.model_copy(update={"data_dir": membership.folder})
    inputs = Inputs(
        settings=settings, threads=threads, membership=membership, name=uuid.uuid4().hex, topics=topics or {},
        cluster=cluster, room=room or {},
    )  # fmt: skip
    worker = Worker(inputs, *chosen.pop())
    supervision.guard_threads(lambda: stopping.asked)
    supervision.guard_services(lambda: stopping.asked)
    with asyncio.Runner(loop_factory=loop_factory()) as runner:
        supervision.guard_loop(runner.get_loop(), lambda: stopping.asked)
        runner.run(worker.live())
    leave(0)  # threads that are still busy do not delay the end


def _tell(loop: asyncio.AbstractEventLoop, call: Callable[[], None]) -> None:
    """Have `loop` run `call`; do nothing if the loop is closed."""
    with suppress(RuntimeError):
        loop.call_soon_threadsafe(call)


class Worker:
    """Runs and stops all parts of one worker. It starts with `live`.

    Args:
        inputs: What it is made of.
        loaded: What is served at first.
        refused: The activations that were refused before.
    """

    def __init__(self, inputs: Inputs, loaded: Loaded, refused: Sequence[Refusal]) -> None:
        settings = inputs.settings
        self._inputs = inputs
        self._settings = settings
        self._metrics = Metrics(settings.sources, data_dir=settings.data_dir)
        others = "web_port" not in settings.model_fields_set
        self._health = Health(
            self._metrics, settings.web_host, settings.web_port, others=others, hosts=settings.web_hosts
        )
        self._stop = asyncio.Event()
        self._progress = Progress(settings.stall_limit)
        self._served = Served(loaded, self._items_of(loaded))
        self._refused = refused
        self._bundles = BundlesFollower(settings, self._look_at_bundles)
        self._writer = BundlesWriter(settings, "worker")
        self._loader = Loader()
        self._swap: Swap[Served] | None = None
        self._following = False  # whether the topics items and bundles are followed
        self._rules: RulesFollower | None = None
        self._tables: TablesFollower | None = None
        self._parts: Parts | None = None
        self._tasks: list[tuple[str, asyncio.Future[None] | None]] = []
        self._turned = self._consumer_turned = 0  # how often the two loops have turned

    async def live(self) -> None:
        """Call `run`. An error ends the process here, before parts that are still open can log anything else."""
        try:
            await self.run()
        except Exception as error:
            fatal(error)

    async def run(self) -> None:
        """Start all parts in the order of the module's docstring, wait for a stop, and stop them."""
        self._describe()
        self._start_health()
        self._served.items.on_rejected = self._reject_item
        self._following = True
        self._start_beats()
        await self._served.items.start()
        book = RuleBook(self._settings.key)
        rules = self._rules = RulesFollower(
            self._settings, book, lambda one: self._metrics.refuse_rule(one.reason), self._metrics.observe_rules
        )
        await rules.start()
        await self._follow_tables(self._served)
        await self._bundles.start()
        await self._writer.start()
        self._health.set(catalogue=True)
        parts = self._parts = assemble(self._inputs, self._served, book, self._bundles, self._writer, self._metrics)
        loop = asyncio.get_running_loop()
        stopping.loops = {"the main loop": loop, "the consumer's thread": parts.consumer.thread_loop()}
        stopping.in_order(lambda: _tell(loop, partial(self._ask_stop, parts)))
        self._tasks.append(("watch", asyncio.ensure_future(self._watch(parts))))
        self._swap = self._start_swap()
        log.info(
            "worker starts",
            extra={"folder": str(self._settings.data_dir), "port": self._health.port, "bundle": self._served.bundle.id},
        )
        await self._run_app(parts.app)
        await self._shut(parts, rules)

    # the start

    def _describe(self) -> None:
        self._metrics.use_version(version("freshet"))
        self._describe_bundle()
        self._describe_provider()

    def _describe_bundle(self) -> None:
        bundle = self._served.bundle
        data = str(bundle.data.get("name", ""))
        self._metrics.use_bundle(bundle.id, bundle.state_model.hex(), data, bundle.metrics)

    def _describe_provider(self) -> None:
        """Report the provider. If `auto` finds no GPU, warn only if `provider` was set; the default takes either."""
        opened, policy = self._served.opened, self._settings.provider
        found, asked = opened.models.provider, "provider" in self._settings.model_fields_set
        self._metrics.use_provider(found, policy if asked else "default")
        if policy == "auto" and found == "cpu":
            level = logging.WARNING if asked else logging.INFO
            log.log(level, "provider auto runs on the CPU: %s", opened.why_cpu)

    def _start_health(self) -> None:
        self._health.page = self._page
        self._health.progress = self._progress
        self._metrics.standing.set_function(lambda: self._progress.seconds)
        self._health.start()
        self._health.set(bundle=True)

    def _page(self, missing: list[str]) -> bytes:
        served = self._served
        snapshot = served.snapshot()
        live = status.Live(missing, snapshot.live, snapshot.known, snapshot.offset)
        return status.page(served.bundle, version("freshet"), served.opened.models.provider, live)

    def _reject_item(self, offset: int, key: bytes | None, value: bytes | None, error: RecordError) -> None:
        """Count and log a rejected record; it stays in the items topic."""
        self._metrics.reject_item(error.reason)
        log.warning(
            "item record rejected: %s", error, extra={"offset": offset, "reason": error.reason, "field": error.field}
        )

    async def _follow_tables(self, served: Served) -> None:
        """Have a catalogue use the epochs of the tables topic, unless the bundle's own tables are always used."""
        if self._settings.tables == "bundle":
            return
        if served.bundle.tables is None:
            log.info(
                "the bundle's score graph has its tables inside: the topic %s is not read", self._settings.tables_topic
            )
        elif self._tables is not None:
            await self._tables.serve(served.catalogue)
        else:
            tables = TablesFollower(
                self._settings,
                served.catalogue,
                lambda one: self._metrics.refuse_table(one.reason),
                lambda epoch: self._metrics.observe_tables(epoch.closed.epoch, epoch.closed.created),
            )
            if self._parts is None:
                self._tables = tables  # its start is watched
            await tables.start()
            self._tables = tables

    # changing the bundle

    def _items_of(self, loaded: Loaded, *, steps_back: bool = False) -> ItemsFollower:
        """Return what follows the items for a bundle. It is not started."""
        catalogue = Catalogue(loaded.bundle, loaded.opened.encoder.item_vectors)
        return ItemsFollower(self._settings, catalogue, steps_back=steps_back)

    def _start_swap(self) -> Swap[Served]:
        inputs = self._inputs
        parts = SwapParts[Served](
            name=inputs.name, process="worker", log=lambda: self._bundles.log, write=self._writer.write,
            prepare=self._prepare, switch=self._switch, figures=self._metrics.bundle, now=lambda: int(time.time() * 1000),
        )  # fmt: skip
        loaded = self._served.loaded
        swap = Swap(parts, loaded.activation, self._refused, loaded.seconds)
        swap.start()
        self._tasks.append(("swap", swap.task))
        return swap

    def _look_at_bundles(self) -> None:
        if self._swap is not None:
            self._swap.look()

    async def _prepare(self, activation: Activation) -> Served:
        """Load the bundle of an activation beside the one in use, and all that belongs to it."""
        settings, threads, encoder = self._settings, self._inputs.threads, self._served.opened.encoder
        loaded = await self._loader.run(lambda: prove(settings, activation, threads, encoder))
        items = await self._loader.run(lambda: self._items_of(loaded, steps_back=True))
        try:
            await items.start()
            served = Served(loaded, items)
            await self._follow_tables(served)
        except BaseException:
            await items.stop()
            self._leave_tables(items.catalogue)
            raise
        return served

    async def _switch(self, activation: Activation, served: Served | None) -> None:
        """Serve what was prepared, and free what was served; None: the same bundle under another activation."""
        parts, before = self._parts, self._served
        if parts is None:
            raise InternalError("a bundle is switched before the worker has begun: this is a bug")
        if served is None:
            served = Served(replace(before.loaded, activation=activation), before.items)
        await served.items.reach(before.items)  # no slate has an older catalogue than those before it
        await parts.switch(served)
        self._served = served
        if served.items is before.items:
            return
        served.items.on_rejected = self._reject_item
        served.items.keep_up()
        self._describe_bundle()
        self._leave_tables(before.catalogue)
        await before.items.stop()
        del before
        await self._loader.free()

    def _leave_tables(self, catalogue: Catalogue) -> None:
        if self._tables is not None:
            self._tables.leave(catalogue)

    def _start_beats(self) -> None:
        """Start the heartbeat of the event loop, and the watch over this loop and the consumer's."""
        self._tasks = [("beat", asyncio.ensure_future(self._beat()))]
        beats = {"the event loop": lambda: self._turned, "the consumer's loop": self._beat_of_consumer}
        guard.arm(self._settings.hang_limit)
        LoopWatch(self._settings.stall_limit, beats, guard.beat).start()

    async def _run_app(self, app: InterestApp) -> None:
        """Start the app and wait for a stop. If the start has not ended START seconds after a stop, end the process."""
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

    # while it runs

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
        work: dict[str, Work] = {}
        if self._following:
            for follower in (self._served.items, self._bundles):
                tasks += follower.tasks()
                work |= follower.work()
            tasks += self._writer.tasks()
        if self._rules is not None:
            tasks += self._rules.tasks()
            work |= self._rules.work()
        if self._tables is not None:
            tasks += self._tables.tasks()
            work |= self._tables.work()
        if self._parts is not None:
            parts = self._parts
            tasks += [*parts.consumer.tasks(), *parts.app.producer_tasks()]
            threads = [*threads, ("consumer", parts.consumer.thread())]
            work |= parts.consumer.work(self._recovered(parts))
            if held := parts.comments.held:
                work["comments"] = Work(f"{held} events behind comments to be encoded", parts.encoder.encoded)
        supervision.look(tasks, threads)
        self._progress.look(work)

    def _beat_of_consumer(self) -> int:
        """Return how often the loop of the consumer's thread has turned, and ask it to turn again."""
        if self._parts is None or self._parts.consumer.thread() is None:
            self._consumer_turned += 1
        else:
            self._parts.consumer.turn(self._count_turn)
        return self._consumer_turned

    def _count_turn(self) -> None:
        self._consumer_turned += 1

    @staticmethod
    def _recovered(parts: Parts) -> bool:
        app = parts.app
        return bool(parts.consumer.group.joined and app.tables.actives_ready and not app.rebalancing)

    async def _watch(self, parts: Parts) -> None:
        """Update readiness and gauges, and publish the slate for unknown users."""
        watch = Watch(parts, lambda: self._served.snapshot(), self._settings, self._metrics)
        while True:
            try:
                recovered = self._recovered(parts)
                self._health.set(joined=parts.consumer.group.joined, recovered=recovered)
                await watch.look(recovered)
            except asyncio.CancelledError:
                raise
            except Exception as error:
                fatal(error)
            await asyncio.sleep(TICK)

    # the stop

    def _ask_stop(self, parts: Parts) -> None:
        parts.consumer.hold()
        self._stop.set()

    async def _shut(self, parts: Parts, rules: RulesFollower) -> None:
        log.info("worker stops")
        self._health.set(joined=False)
        stopping.waits_for = "micro-batches and comments in progress"
        if not await parts.consumer.settle(DRAIN):
            log.warning(
                "%d events wait for comments to be encoded: the next owner of their partitions reads them again",
                parts.comments.held,
            )
        for _, task in self._tasks:
            if task is not None:
                task.cancel()
                with suppress(asyncio.CancelledError):
                    await task
        stopping.waits_for = "Kafka's clients and RocksDB to be closed"
        await parts.pipeline.reissues.stop()
        await parts.app.stop()
        stopping.waits_for = "the consumers of items, rules, tables and bundles to be closed"
        await self._writer.stop()
        for follower in (self._served.items, rules, self._tables, self._bundles):
            if follower is not None:
                await follower.stop()
        self._loader.stop()
        self._health.stop()
        threads = self._inputs.threads
        threads.models.shutdown(wait=False)
        for texts in (threads.texts, threads.urgent):
            texts.shutdown(wait=False, cancel_futures=True)
        log.info("worker stopped")


class Watch:
    """Follows a worker's condition in metrics and logs, and publishes the slate for unknown users.

    Args:
        parts: The worker's parts.
        snapshot: Returns the catalogue's snapshot.
        settings: The worker's settings.
        metrics: The worker's metrics.
    """

    def __init__(self, parts: Parts, snapshot: Callable[[], Snapshot], settings: Settings, metrics: Metrics) -> None:
        self._parts = parts
        self._snapshot = snapshot
        self._metrics = metrics
        self._lag = Lag(settings.sources)
        self._difference = Difference()
        self._rebalances = 0  # that were reported
        self._read_back = 0  # changelog records that were reported

    async def look(self, recovered: bool) -> None:
        """Look once; `recovered` says whether the worker is ready."""
        app, consumer = self._parts.app, self._parts.consumer
        if recovered and consumer.group.rebalances > self._rebalances:
            self._report_ready()  # readiness may have come and gone since the last look
        recovering = app.tables.recovery.active_remaining_total() if app.in_recovery else -1
        remaining = 0 if recovered else max(-1, recovering)
        self._metrics.observe_recovery(consumer.read_back.total - self._read_back, remaining)
        self._read_back = consumer.read_back.total
        snapshot = self._snapshot()
        self._metrics.observe_catalogue(snapshot.live, snapshot.known, snapshot.offset)
        self._metrics.observe_clock(app.clock.offset)
        self._difference.look(app.clock.offset)
        if recovered:
            consumer.check_topology()
            self._metrics.observe_lag(self._lag.look(app.clock.now(), consumer.lag(), self._parts.pipeline.newest))
            self._metrics.observe_undecided(consumer.undecided())
            self._parts.pipeline.reissues.look()
            await self._parts.popular_slates.publish(consumer.assignment(), self._snapshot)

    def _report_ready(self) -> None:
        consumer = self._parts.consumer
        partitions = sum(tp.topic in consumer.sources for tp in consumer.assignment())
        self._metrics.observe_rebalances(consumer.group.rebalances - self._rebalances, partitions)
        self._rebalances = consumer.group.rebalances
        figures = consumer.read_back.figures
        log.info(
            "worker is ready",
            extra={
                "partitions": partitions,
                "recovered": figures.records,
                "recovery_seconds": round(figures.seconds, 3),
            },
        )
