"""One gateway process: it loads the bundle, follows the catalogue and the states, and answers until it is stopped.

Start order: bundle and golden vectors, the server (which answers 503 and says what it waits for), then the catalogue, the
states and Kafka's clients. While it runs it changes to the bundle of the newest activation (stream.swap). Stop order
(SIGTERM, SIGINT): accept no new connections, end streams, answer what has begun, close.

Any part that ends on its own ends the process, with a line that says why (stream.process.supervision).
"""

from __future__ import annotations

import asyncio
import logging
import threading
import time
import uuid
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import replace
from importlib.metadata import version
from typing import Any, Final

import msgspec
from aiokafka.errors import KafkaError

from stream.catalogue.bundles import BundlesFollower, BundlesWriter
from stream.catalogue.catalogue import Catalogue
from stream.catalogue.consumer import RulesFollower, TablesFollower
from stream.core.bundle_log import Activation
from stream.core.denials import refusal
from stream.core.errors import BrokerError, FreshetError, RecordError, SettingsError
from stream.core.features import UNKNOWN
from stream.core.rules import RuleBook, RuleSet
from stream.gateway import openapi
from stream.gateway.api import Api, Parts, routes
from stream.gateway.application import Application
from stream.gateway.auth import Tokens
from stream.gateway.commits import Commits
from stream.gateway.connections import listen, server
from stream.gateway.demo_page import DemoPage
from stream.gateway.events import Acceptance, Writer
from stream.gateway.figures import SlateFigures
from stream.gateway.hosts import is_local
from stream.gateway.metrics import GatewayMetrics
from stream.gateway.page import page
from stream.gateway.positions import Positions
from stream.gateway.replica import Replica
from stream.gateway.replica_store import ReplicaStore
from stream.gateway.routing import Router
from stream.gateway.served import Served, served
from stream.gateway.slates import Slates
from stream.gateway.trends import Trends
from stream.inference.loading import Loaded, Loader, Refusal, prove
from stream.inference.serving import Threads
from stream.kafka.lenient_records import bound_unpacking, escape_header_names
from stream.observability import logs
from stream.process import supervision
from stream.process.fatal import fatal, leave, prepare
from stream.process.progress import LoopWatch, Progress, Work
from stream.process.startup import loop_factory
from stream.process.stopping import stopping
from stream.process.watchdog import guard
from stream.settings import Settings
from stream.swap import BUNDLE_LIMIT, Swap, SwapParts, choose

PROCESS: Final = "gateway"
DRAIN: Final = 10.0  # seconds that requests get when it stops
TICK: Final = 0.5  # seconds between two checks of its condition
STALE: Final = 10.0  # seconds without a turn of the event loop, or without news of a partition, until it is not ready
THREADS: Final = ("topics", "signals")  # must not end on their own

log = logging.getLogger("freshet.gateway")


def run(
    settings: Settings,
    topics: Mapping[str, str] | None = None,
    cluster: str = "",
    activated: Sequence[Activation] = (),
) -> None:
    """Run one gateway until SIGTERM or SIGINT, then end the process. Later errors end the process, too.

    Args:
        settings: The gateway's settings.
        topics: Topic -> its id, if the broker reports ids.
        cluster: The cluster's id.
        activated: What the topic `bundles` has activated, the newest first; the first bundle that can be used is
            served, else the one that CURRENT names.
    Raises:
        FreshetError: No bundle can be used, or the settings do not fit it.
    """
    logs.configure(settings.log_level)
    stopping.listen()
    prepare(PROCESS)
    escape_header_names()
    bound_unpacking()
    partitions = _partitions(settings)
    tokens = Tokens(settings.serve_tokens)
    if not tokens.required and not is_local(settings.serve_host):
        raise SettingsError(
            f"serve_host: found {settings.serve_host}, expected this machine's own address (127.0.0.1): without serve_tokens "
            "everybody who reaches it could read users and write events; set FRESHET_SERVE_TOKENS to a file of tokens"
        )
    guard.arm(max(settings.hang_limit, (2 + len(activated)) * BUNDLE_LIMIT))  # a driver may hang, too
    threads = Threads()
    chosen = [
        choose(settings, activated, threads, BUNDLE_LIMIT)
    ]  # given away below: what is served first must not stay for ever
    supervision.guard_threads(lambda: stopping.asked)
    with asyncio.Runner(loop_factory=loop_factory()) as runner:
        supervision.guard_loop(runner.get_loop(), lambda: stopping.asked)
        runner.run(Gateway(settings, *chosen.pop(), threads, tokens, partitions, topics or {}, cluster).live())
    leave(0)  # threads that are still busy do not delay the end


def _partitions(settings: Settings) -> tuple[int, ...]:
    """Return the partitions to serve. Raises SettingsError."""
    wanted = settings.serve_partitions or range(settings.partitions)
    if wrong := [partition for partition in wanted if not 0 <= partition < settings.partitions]:
        raise SettingsError(f"serve_partitions: found {wrong[0]}, expected 0 to {settings.partitions - 1}")
    return tuple(sorted(set(wanted)))


def _tell(loop: asyncio.AbstractEventLoop, call: Callable[[], object]) -> None:
    """Have `loop` run `call`; do nothing if the loop is closed."""
    with suppress(RuntimeError):
        loop.call_soon_threadsafe(call)


class Gateway:
    """Builds, runs and stops all parts of one gateway."""

    def __init__(
        self,
        settings: Settings,
        loaded: Loaded,
        refused: Sequence[Refusal],
        threads: Threads,
        tokens: Tokens,
        partitions: tuple[int, ...],
        topics: Mapping[str, str],
        cluster: str,
    ) -> None:
        """Create the gateway; it starts with `live`. See `run` for the arguments."""
        self._settings = settings
        self._refused = refused
        self._threads = threads
        self._tokens = tokens
        self._closing = asyncio.Event()
        self._stop = asyncio.Event()
        self._turned = 0
        self._beaten = time.monotonic()
        self._progress = Progress(settings.stall_limit)
        self._started: set[str] = {"bundle"}
        self._tasks: list[tuple[str, asyncio.Future[Any] | None]] = []
        self._read = 0
        self.positions = Positions()
        self._book = RuleBook(settings.key)
        store = ReplicaStore(
            settings.replica_dir, cluster, settings.changelog_topic, topics.get(settings.changelog_topic, "")
        )
        self._trends = Trends(settings.serve_trending)
        self._replica = Replica(settings, store, partitions, self.positions, self._left_out, self._trends.add)
        self.positions.unowned = lambda partition: self._replica.offset(partition) < 0
        self._commits = Commits(settings, self._replica, self.positions)
        self._served = self._serve(loaded)
        self._served.items.on_rejected, self._served.items.on_snapshot = self._reject_item, self._on_snapshot
        self._bundles = BundlesFollower(settings, self._look_at_bundles)
        self._bundles_writer = BundlesWriter(settings, PROCESS)
        self._loader = Loader()
        self._swap: Swap[Served] | None = None
        acceptance = Acceptance(settings)
        self._writer = Writer(settings, acceptance, self._knows)
        figures = SlateFigures()
        self._slates = Slates(settings, partitions, figures)
        self._rules = RulesFollower(
            settings, self._book, lambda one: self._metrics.refuse_rule(one.reason), self._on_rules
        )
        self._tables: TablesFollower | None = None
        if settings.tables == "stream" and loaded.bundle.tables is not None:
            self._tables = self._tables_of(self._served)
        api = Api(
            Parts(
                settings, lambda: self._served, threads.texts, threads.models, lambda: self._book.current, self._replica,
                self.positions, acceptance, self._writer, self._slates, self._trends, figures, lambda: self._metrics,
                self.missing, self.age, self._closing, lambda: self._document, lambda: self._page, DemoPage(),
            )
        )  # fmt: skip
        table = routes(api)
        document = openapi.document(table, version("freshet"), tokens=tokens.required)
        self._document = msgspec.json.encode(document)
        self._page = page(document)
        self._metrics = GatewayMetrics(tuple(dict.fromkeys(route.path for route in table)))
        self._application = Application(settings, Router(table), tokens, self._metrics, fatal)
        self._metrics.ready.set_function(lambda: float(not self.missing()))
        self._describe_bundle()
        self._metrics.build_info.labels(version("freshet")).set(1)

    def age(self) -> float:
        """Return the seconds since the event loop last turned."""
        return time.monotonic() - self._beaten

    def _knows(self, item: str) -> bool:
        """Return whether an item is in the bundle or in the topic `items`; True until that topic is read."""
        return "catalogue" not in self._started or self._served.catalogue.snapshot.row(item) != UNKNOWN

    def missing(self) -> list[str]:
        """Return the conditions for ready that are not met; empty: ready."""
        found = [
            one for one in ("bundle", "catalogue", "rules", "tables", "replica", "broker") if one not in self._started
        ]
        if not found:
            found = [
                f"news of partition {one}" for one in self._replica.partitions if self._replica.age(one) > 3 * STALE
            ]  # fmt: skip
        return found

    async def live(self) -> None:
        """Call `run`. An error ends the process here, before parts that are still open can log anything else."""
        try:
            await self.run()
        except Exception as error:
            fatal(error)

    async def run(self) -> None:
        loop = asyncio.get_running_loop()
        listening = listen(self._settings)
        port = listening.getsockname()[1]
        http = server(self._application, self._settings, DRAIN)
        guard.arm(self._settings.hang_limit)
        LoopWatch(self._settings.stall_limit, {"the event loop": lambda: self._turned}, guard.beat).start()
        stopping.in_order(lambda: _tell(loop, self._stop.set))
        self._served.scorer.start()
        self._tasks = [
            ("beat", asyncio.ensure_future(self._beat(http))),
            ("server", asyncio.ensure_future(http.serve([listening]))),
        ]
        log.info("gateway starts", extra={"port": port, "bundle": self._served.bundle.id})
        asked = asyncio.ensure_future(self._stop.wait())
        starting = asyncio.ensure_future(self._start())
        await asyncio.wait((asked, starting), return_when=asyncio.FIRST_COMPLETED)
        if not starting.done():
            leave(0, "gateway stopped", level=logging.INFO)
        await starting
        self._swap = self._start_swap()
        log.info("gateway is ready", extra={"port": port, "partitions": len(self._replica.partitions)})
        await asked
        await self._shut(http)

    async def _start(self) -> None:
        """Start what needs Kafka, all at once. Raises FreshetError."""
        await asyncio.gather(
            self._start_items(),
            self._start_rules(),
            self._start_tables(),
            self._start_states(),
            self._start_clients(),
            self._start_bundles(),
        )

    async def _start_items(self) -> None:
        await self._served.items.start()
        self._started.add("catalogue")

    async def _start_rules(self) -> None:
        await self._rules.start()
        self._started.add("rules")

    async def _start_tables(self) -> None:
        if self._tables is not None:
            await self._tables.start()
        self._started.add("tables")

    async def _start_bundles(self) -> None:
        await self._bundles.start()
        await self._bundles_writer.start()
        self._started.add("bundles")

    async def _start_states(self) -> None:
        await self._replica.start()
        self._trends.begin()  # what it has read until now is no part of the last window
        self._commits.start()
        self._tasks.append(("commits", self._commits.task))
        self._started.add("replica")

    async def _start_clients(self) -> None:
        try:
            await self._writer.start()
            await self._slates.start()
        except KafkaError as error:
            raise refusal(error) or BrokerError(f"{self._settings.brokers}: {error}") from None
        self._started.add("broker")

    async def _beat(self, http: Any) -> None:
        """Update gauges, and check that everything that must run is running and makes progress."""
        threads = [(one.name, one) for one in threading.enumerate() if one.name in THREADS]
        while True:
            self._turned += 1
            self._beaten = time.monotonic()
            if not stopping.asked:
                try:
                    self._look(threads, http)
                except Exception as error:
                    fatal(error)
            await asyncio.sleep(TICK)

    def _look(self, threads: Iterable[tuple[str, threading.Thread | None]], http: Any) -> None:
        items, scorer = self._served.items, self._served.scorer
        tasks = [*self._tasks, ("scorer", scorer.task)]
        work: dict[str, Work] = {}
        if "catalogue" in self._started:
            tasks += items.tasks()
        if "rules" in self._started:
            tasks += self._rules.tasks()
        if self._tables is not None:
            tasks += self._tables.tasks() if "tables" in self._started else ()
            work |= self._tables.work()
        if "bundles" in self._started:
            tasks += [*self._bundles.tasks(), *self._bundles_writer.tasks()]
        if "replica" in self._started:
            tasks += self._replica.tasks()
        if "broker" in self._started:
            tasks += [*self._slates.tasks(), *self._writer.tasks()]
        supervision.look(tasks, threads)
        for one in (items.work(), self._rules.work(), self._bundles.work(), self._replica.work(), scorer.work()):
            work |= one
        self._progress.look(work)
        self._tokens.refresh()
        metrics, replica = self._metrics, self._replica
        metrics.connections.set(len(http.server_state.connections))
        metrics.listeners.set(self._slates.count)
        metrics.replica(replica.lag(), {one: replica.age(one) for one in replica.partitions})
        metrics.records.inc(replica.records - self._read)
        self._read = replica.records

    # changing the bundle

    def _serve(self, loaded: Loaded, *, steps_back: bool = False) -> Served:
        return served(
            self._settings, loaded, self._threads, lambda: self._book.current,
            lambda size, seconds: self._metrics.scored(size, seconds), steps_back=steps_back,
        )  # fmt: skip

    def _tables_of(self, of: Served) -> TablesFollower:
        return TablesFollower(
            self._settings, of.catalogue, lambda one: self._metrics.refuse_table(one.reason),
            lambda epoch: self._metrics.observe_tables(epoch.closed.epoch, epoch.closed.created),
        )  # fmt: skip

    def _describe_bundle(self) -> None:
        bundle = self._served.bundle
        self._metrics.bundle_info.clear()
        self._metrics.bundle_info.labels(bundle.id, bundle.state_model.hex()).set(1)

    def _start_swap(self) -> Swap[Served]:
        parts = SwapParts[Served](
            name=uuid.uuid4().hex, process=PROCESS, log=lambda: self._bundles.log, write=self._bundles_writer.write,
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
        settings, threads, encoder = self._settings, self._threads, self._served.encoder
        loaded = await self._loader.run(lambda: prove(settings, activation, threads, encoder))
        made = await self._loader.run(lambda: self._serve(loaded, steps_back=True))
        try:
            await made.items.start()
            if settings.tables == "stream" and loaded.bundle.tables is not None:
                if self._tables is not None:
                    await self._tables.serve(made.catalogue)
                else:
                    tables = self._tables_of(made)
                    await tables.start()
                    self._tables = tables
        except BaseException:
            await made.items.stop()
            self._leave_tables(made.catalogue)
            raise
        return made

    async def _switch(self, activation: Activation, made: Served | None) -> None:
        """Answer with what was prepared, and free what was served; None: the same bundle under another activation."""
        before = self._served
        if made is None:
            self._served = replace(before, loaded=replace(before.loaded, activation=activation))
            return
        await made.items.reach(before.items)  # what a client has seen stays: min_offset holds
        before.items.on_snapshot = None
        made.items.on_rejected, made.items.on_snapshot = self._reject_item, self._on_snapshot
        made.items.keep_up()
        made.scorer.start()
        self._served = made
        self._on_snapshot(made.catalogue.snapshot)
        self._describe_bundle()
        self._leave_tables(before.catalogue)
        await before.items.stop()
        await asyncio.sleep(self._settings.serve_timeout)  # requests that have begun end with what they began with
        await before.scorer.stop()
        del before
        await self._loader.free()

    def _leave_tables(self, catalogue: Catalogue) -> None:
        if self._tables is not None:
            self._tables.leave(catalogue)

    def _left_out(self, fenced: int, forged: int) -> None:
        self._metrics.left_out.inc(fenced + forged)

    def _on_snapshot(self, snapshot: Any) -> None:
        self._metrics.catalogue_items.labels("live").set(snapshot.live)
        self._metrics.catalogue_items.labels("known").set(snapshot.known)
        self._metrics.catalogue_offset.set(snapshot.offset)
        self.positions.catalogue(self._served.catalogue.offset)

    def _on_rules(self, rules: RuleSet) -> None:
        self._metrics.observe_rules(rules)
        self.positions.rules_read(rules.offset)

    def _reject_item(self, offset: int, key: bytes | None, value: bytes | None, error: RecordError) -> None:
        log.warning(
            "item record rejected: %s", error, extra={"offset": offset, "reason": error.reason, "field": error.field}
        )

    async def _shut(self, http: Any) -> None:
        log.info("gateway stops")
        self._closing.set()
        self._slates.wake()
        stopping.waits_for = "requests in progress"
        http.should_exit = True
        for name, task in self._tasks:
            if name == "server" and task is not None:
                with suppress(FreshetError):
                    await task
        for _, task in self._tasks:
            if task is not None:
                task.cancel()
        stopping.waits_for = "Kafka's clients and RocksDB to be closed"
        await self._commits.stop()
        if self._swap is not None:
            await self._swap.stop()
        await self._served.scorer.stop()
        await self._slates.stop()
        await self._writer.stop()
        await self._replica.stop()
        await self._served.items.stop()
        await self._bundles_writer.stop()
        await self._bundles.stop()
        self._loader.stop()
        await self._rules.stop()
        if self._tables is not None:
            await self._tables.stop()
        log.info("gateway stopped")
