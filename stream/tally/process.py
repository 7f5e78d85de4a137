"""The process of `freshet tally`: it counts what comes to the source topics, and publishes epochs until it is stopped.

Start order: bundle (for its settings), health server, folder, producer (which ends what a killed tally has left open), the
newest epoch, source topics. Then, again and again: read a micro-batch, count it, write RocksDB with the offsets, and
publish an epoch if one is due. Stop order (SIGTERM, SIGINT): finish the micro-batch or the epoch, close.

It owns all partitions. A second one is stopped by its folder's lock, or by the broker (stream.tally.publisher).
"""

from __future__ import annotations

import asyncio
import json
import logging
import threading
import time
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from functools import partial
from importlib.metadata import version
from typing import Any, Final, TypeVar

import msgspec
from aiokafka import TopicPartition

from stream.core import times
from stream.core.errors import LossError, RecordError, SettingsError
from stream.core.messages import SourceEvent
from stream.core.tables import BACK_BITS, HISTORY, whole_back
from stream.core.tally import ForwardDecay, PairShape
from stream.inference.bundle import Bundle, current, load
from stream.inference.serving import check_fit
from stream.kafka.batch import Record
from stream.kafka.decoding import decoder_of
from stream.kafka.lenient_records import bound_unpacking, escape_header_names
from stream.observability import logs
from stream.observability.health import Health
from stream.pipeline.refusal_log import RefusalLog
from stream.process import supervision
from stream.process.fatal import fatal, leave, prepare
from stream.process.progress import LoopWatch, Progress, Work
from stream.process.startup import loop_factory
from stream.process.stopping import stopping
from stream.process.watchdog import guard
from stream.settings import Settings
from stream.tally.counting import Sums, TableShape, count
from stream.tally.epoch import Epoch, TableSettings, close
from stream.tally.figures import COUNTED, SETTING, Figure, choose, described, half_life_ms, kept_in, passed_over
from stream.tally.metrics import TallyMetrics
from stream.tally.publisher import Publisher
from stream.tally.sources import MOST, Sources
from stream.tally.store import Meta, TallyStore, place

PROCESS: Final = "tally"
CONDITIONS: Final = ("bundle", "sums", "tables", "sources")
KEEP: Final = 100
MOST_AHEAD: Final = 900
"""Half-lives after the landmark from which on sums exceed what a double holds."""
PAUSE: Final = 5
"""How many times as long as the last epoch took the next one is due at the earliest, by time."""
LINGER: Final = 0.25
"""Seconds to wait for more records if few have come: nobody waits for a single one, and larger micro-batches cost less."""
TICK: Final = 0.5  # seconds between two checks of its condition
THREADS: Final = ("health", "topics", "signals")  # must not end on their own
NOT_COUNTED: Final = "%s/%d/%d is not counted (%s): %s; the worker keeps it as a dead letter or sends it on"

log = logging.getLogger("freshet.tally")

Result = TypeVar("Result")


def run(
    settings: Settings,
    topics: Mapping[str, str] | None = None,
    cluster: str = "",
    *,
    once: bool = False,
    recount: bool = False,
) -> None:
    """Run one tally until SIGTERM or SIGINT, then end the process. Later errors end the process, too.

    Args:
        settings: The settings.
        topics: Topic -> its id, if the broker reports ids.
        cluster: The cluster's id.
        once: Read to the ends that the source topics have at the start, publish one epoch, and end.
        recount: If the bundle has other figures than those that the folder's sums were counted with, count again.

    Raises:
        FreshetError: The bundle cannot be used, or the settings do not fit it.
    """
    logs.configure(settings.log_level)
    stopping.listen()
    prepare(PROCESS)
    escape_header_names()
    bound_unpacking()
    bundle = load(current(settings.bundles))
    check_fit(settings, bundle)
    supervision.guard_threads(lambda: stopping.asked)
    with asyncio.Runner(loop_factory=loop_factory()) as runner:
        supervision.guard_loop(runner.get_loop(), lambda: stopping.asked)
        runner.run(TallyProcess(settings, bundle, topics or {}, cluster, once=once, recount=recount).live())
    leave(0)


def table_settings(
    settings: Settings, bundle: Bundle, landmark: int, figures: Mapping[str, Figure] | None = None
) -> TableSettings:
    """Return what an epoch depends on besides the events: the bundle's choices and weights of actions, and the figures.

    Without `figures`, they are those of an empty folder.
    """
    chosen = choose(settings, bundle.counted, {}) if figures is None else figures
    near, prior, reach, decay, back, shrink = (figure.value for figure in chosen.values())
    return TableSettings(
        TableShape(
            ForwardDecay(landmark, half_life_ms(near)),
            ForwardDecay(landmark, half_life_ms(prior)),
            PairShape(int(reach), decay, settings.tally_cap),
            bundle.spec.chosen(),
            dict(bundle.spec.weights),
        ),
        whole_back(back) / (1 << BACK_BITS),
        float(shrink),
        settings.tally_keep or bundle.blend.neighbours or KEEP,
        bundle.id,
    )


def shape_text(shape: TableShape, key: str) -> str:
    """Return what sums depend on besides the events and the landmark, as text. key: The setting `key`."""
    pairs = shape.pairs
    fields = {
        "half_life": shape.near.half_life, "prior_half_life": shape.prior.half_life, "reach": pairs.reach,
        "decay": pairs.decay, "cap": pairs.cap, "choices": sorted(shape.chosen), "weights": sorted(shape.weights.items()),
        "history": HISTORY, "key": key,
    }  # fmt: skip
    return json.dumps(fields)


class TallyProcess:
    """Builds, runs and stops all parts of one tally. See `run` for the arguments. It starts with `live`."""

    def __init__(
        self,
        settings: Settings,
        bundle: Bundle,
        topics: Mapping[str, str],
        cluster: str,
        *,
        once: bool = False,
        recount: bool = False,
    ) -> None:
        self._settings = settings
        self._bundle = bundle
        self._ids = {name: topics[name] for name in settings.sources if name in topics}
        self._cluster = cluster
        self._once = once
        self._recounts = recount
        self._metrics = TallyMetrics(settings.sources)
        others = "web_port" not in settings.model_fields_set
        self._health = Health(
            self._metrics, settings.web_host, settings.web_port, others=others, hosts=settings.web_hosts,
            conditions=CONDITIONS,
        )  # fmt: skip
        self._progress = Progress(settings.stall_limit)
        self._stop = asyncio.Event()
        self._turned = 0
        self._beating: asyncio.Task[None] | None = None
        self._thread = ThreadPoolExecutor(1, "sums")  # the only one that uses the store and the sums
        self._busy = ""  # what that thread does
        self._done = 0  # how often it has finished
        self._decoder = decoder_of(settings)
        self._refusals = RefusalLog(wording=NOT_COUNTED)
        self._store = TallyStore(settings.tally_dir)
        self._publisher = Publisher(settings)
        self._sources = Sources(settings, self._lose)
        self._meta = Meta()
        self._sums = Sums()
        self._tables = table_settings(settings, bundle, 0)
        self._begins: dict[str, int] = {}  # where each source partition begins at the start
        self._since = 0.0  # when the newest epoch was closed, or the start
        self._took = 0.0  # seconds that it took

    async def live(self) -> None:
        """Call `run`. An error ends the process here, before parts that are still open can log anything else."""
        try:
            await self.run()
        except Exception as error:
            fatal(error)

    async def run(self) -> None:
        """Start all parts, count until a stop is asked for, and stop them."""
        loop = asyncio.get_running_loop()
        self._metrics.build_info.labels(version("freshet")).set(1)
        self._health.progress = self._progress
        self._health.start()
        self._health.set(bundle=True)
        guard.arm(self._settings.hang_limit)
        LoopWatch(self._settings.stall_limit, {"the event loop": lambda: self._turned}, guard.beat).start()
        self._beating = asyncio.create_task(self._beat(), name="beat")
        log.info("tally starts", extra={"port": self._health.port, "bundle": self._bundle.id})
        meta = await self._call("the folder to be opened", self._store.open)
        await self._publisher.start()
        self._health.set(tables=True)
        spans = await self._sources.start()
        self._begins = {name: begin for name, (begin, _) in spans.items()}
        await self._call("the sums to be read", lambda: self._prepare(meta))
        self._health.set(sums=True)
        self._sources.seek(self._meta.offsets, spans)
        self._health.set(sources=True)
        stopping.in_order(lambda: _tell(loop, self._stop.set))
        newest = self._publisher.closed
        if newest is not None:
            self._metrics.closed(newest)
        log.info(
            "tally is ready",
            extra={"items": len(self._sums.items), "epoch": newest.epoch if newest is not None else 0},
        )
        self._since = time.monotonic()
        await self._count(spans)
        await self._shut()

    # the start

    def _prepare(self, meta: Meta) -> None:
        """Read the sums, or begin again if they do not fit. Raises LossError, SettingsError."""
        newest = self._publisher.closed
        figures = self._figures(meta)
        landmark = self._landmark(meta, newest.landmark if newest is not None else None)
        self._tables = table_settings(self._settings, self._bundle, landmark, figures)
        shape = shape_text(self._tables.shape, self._settings.key)
        given = tuple(name for name in COUNTED if figures[name].source == SETTING)
        fresh = Meta(shape, landmark, self._cluster, self._ids, {}, 0, given)
        counted: Mapping[str, int] = meta.offsets
        why = ""
        if not meta.shape:
            counted = newest.offsets if newest is not None else {}
            why = "tally_dir is empty"
        elif meta.cluster != self._cluster or any(
            self._ids.get(topic, one) != one for topic, one in meta.topics.items()
        ):
            why = "a source topic was recreated, or belongs to another cluster"
        elif (meta.shape, meta.landmark) != (shape, landmark):
            why = "the settings of the tally, or the figures, choices or weights of the bundle, have changed"
        if not why:
            self._meta, self._sums = msgspec.structs.replace(meta, given=given), self._store.load(meta)
            return
        if counted:
            self._recount(counted, why)
            self._store.begin_again()
        self._meta, self._sums = fresh, Sums()

    def _figures(self, meta: Meta) -> dict[str, Figure]:
        """Choose the figures by which tables are counted, and log them."""
        settings, bundle = self._settings, self._bundle.counted
        kept = {} if self._recounts else kept_in(meta.shape, meta.given)
        figures = choose(settings, bundle, kept)
        log.info("tables are counted by these figures", extra={"figures": described(figures)})
        if other := passed_over(figures, settings, bundle):
            log.warning(
                "the sums keep the figures that they were counted with; a new folder would have others: "
                "`freshet tally --recount` counts everything again with these, from what the source topics hold",
                extra={"kept": described({name: figures[name] for name in other}), "new": described(other)},
            )
        return figures

    def _landmark(self, meta: Meta, published: int | None) -> int:
        """Return the landmark: the setting's, else the folder's, else the newest epoch's, else min_time."""
        if self._settings.tally_landmark:
            return times.parse(self._settings.tally_landmark)
        if meta.shape:
            return meta.landmark
        return self._settings.oldest if published is None else published

    def _recount(self, counted: Mapping[str, int], why: str) -> None:
        """Say that everything is counted again. Raises LossError if records that were counted are deleted."""
        for name, offset in counted.items():
            begin = self._begins.get(name, 0)
            if offset and begin:
                message = (
                    f"{why}, and the first {begin} records of {name} are deleted: the sums cannot be counted again"
                )
                if not self._settings.accept_loss:
                    raise LossError(f"{message}; --accept-loss counts what is left")
                self._lose(message)
                break
        log.warning("%s: everything is counted again", why)

    def _lose(self, message: str) -> None:
        self._metrics.accepted_loss.inc()
        log.warning("accepted loss: %s", message)

    # counting

    async def _count(self, spans: Mapping[str, tuple[int, int]]) -> None:
        """Count and publish until a stop is asked for; with `once`, until the ends in `spans`."""
        while not self._stop.is_set():
            most = MOST
            if self._settings.tally_epoch_events and not self._once:
                most = min(MOST, max(1, self._settings.tally_epoch_events - self._waiting()))
            batch = await self._sources.take(most)
            if batch:
                await self._call("records to be counted", partial(self._apply, batch))
            if self._once:
                if await self._sources.passed(spans):
                    await self._publish()
                    return
                continue
            if self._due():
                await self._publish()
            if sum(map(len, batch.values())) < most:
                await self._linger()

    async def _linger(self) -> None:
        """Wait for more records, or for a stop."""
        with suppress(TimeoutError):
            async with asyncio.timeout(LINGER):
                await self._stop.wait()

    def _apply(self, batch: Mapping[TopicPartition, list[Record]]) -> None:
        """Count a micro-batch, and write it with its offsets."""
        topics = self._settings.sources
        offsets = dict(self._meta.offsets)
        events: list[SourceEvent] = []
        for tp, records in batch.items():
            behaviour = topics.index(tp.topic)
            for record in records:
                try:
                    events.append(
                        self._decoder.decode(
                            behaviour, tp.partition, record.offset, record.timestamp, record.key, record.value,
                            record.headers,
                        )
                    )  # fmt: skip
                except RecordError as error:
                    self._metrics.refuse(error.reason)
                    self._refusals.see(tp.topic, tp.partition, record.offset, error)
            offsets[place(*tp)] = records[-1].offset + 1
        changed = count(self._sums, self._tables.shape, events, self._store.read)
        meta = msgspec.structs.replace(self._meta, offsets=offsets, now=self._sums.now)
        self._store.write(meta, self._sums, changed)
        self._meta = meta
        self._metrics.counted(changed)

    # publishing

    def _waiting(self) -> int:
        """Return how many records are counted that are in no epoch; below 0 if an epoch has more than is counted."""
        newest = self._publisher.closed
        before = newest.offsets if newest is not None else {}
        return sum(offset - before.get(name, self._begins.get(name, 0)) for name, offset in self._meta.offsets.items())

    def _due(self) -> bool:
        newest = self._publisher.closed
        offsets = self._meta.offsets
        if newest is not None and any(offsets.get(name, 0) < offset for name, offset in newest.offsets.items()):
            return False  # what is counted again has not reached it
        waiting, most = self._waiting(), self._settings.tally_epoch_events
        if not waiting and (newest is None or self._publisher.whole):
            return False
        pause = max(self._settings.tally_epoch_seconds, PAUSE * self._took)
        return bool(most and waiting >= most) or time.monotonic() - self._since >= pause

    async def _publish(self) -> None:
        """Close an epoch, unless it would be the same as the newest one, and the topic holds that."""
        began = time.monotonic()
        epoch = await self._call("an epoch to be made", self._close)
        newest = self._publisher.closed
        if newest is None or newest.hash != epoch.closed.hash or not self._publisher.whole:
            rows = await self._publisher.publish(epoch)
            self._metrics.rows.inc(rows)
            self._metrics.closed(epoch.closed)
            log.info(
                "epoch published",
                extra={
                    "epoch": epoch.closed.epoch,
                    "rows": epoch.closed.rows,
                    "changed": rows,
                    "hash": epoch.closed.hash,
                },
            )
        elif self._once:
            log.info("the newest epoch has everything: none is published", extra={"epoch": newest.epoch})
        self._since = time.monotonic()
        self._took = self._since - began
        self._metrics.epoch_seconds.set(self._took)

    def _close(self) -> Epoch:
        shape, now = self._tables.shape, self._sums.now
        for name, decay in (("tally_half_life", shape.near), ("tally_prior_half_life", shape.prior)):
            if decay.half_life and now - decay.landmark >= MOST_AHEAD * decay.half_life:
                raise SettingsError(
                    f"tally_landmark, {name}: the newest event is {(now - decay.landmark) // decay.half_life} half-lives after "
                    f"the landmark, expected less than {MOST_AHEAD}: set FRESHET_TALLY_LANDMARK to a later time, or a longer "
                    "half-life; everything is then counted again"
                )
        newest = self._publisher.closed
        number = 1 if newest is None else newest.epoch + 1
        return close(self._sums, self._tables, self._meta.offsets, number, int(time.time() * 1000))

    # while it runs

    async def _call(self, what: str, work: Callable[[], Result]) -> Result:
        """Run `work` in the thread of the sums."""
        self._busy = what
        try:
            return await asyncio.get_running_loop().run_in_executor(self._thread, work)
        finally:
            self._busy = ""
            self._done += 1

    async def _beat(self) -> None:
        """Send the heartbeat, update gauges, and check that everything that must run is running and makes progress."""
        threads = [(one.name, one) for one in threading.enumerate() if one.name in THREADS]
        due = 0.0  # when the next epoch was first seen to be due; 0 while none is
        while True:
            self._turned += 1
            self._health.beat()
            if not stopping.asked:
                try:
                    supervision.look([*self._sources.tasks(), *self._publisher.tasks()], threads)
                    work = self._sources.work()
                    if self._busy:
                        work["sums"] = Work(self._busy, self._done)
                    self._progress.look(work)
                except Exception as error:
                    fatal(error)
            for topic, records in self._sources.lag().items():
                self._metrics.lag.labels(topic).set(records)
            self._metrics.items.set(len(self._sums.items))
            due = (due or time.monotonic()) if self._since and self._due() else 0.0
            self._metrics.overdue.set(time.monotonic() - due if due else 0.0)
            await asyncio.sleep(TICK)

    async def _shut(self) -> None:
        log.info("tally stops")
        self._health.set(sources=False)
        stopping.waits_for = "Kafka's clients and RocksDB to be closed"
        if self._beating is not None:
            self._beating.cancel()
            with suppress(asyncio.CancelledError):
                await self._beating
        await self._sources.stop()
        await self._publisher.stop()
        self._thread.shutdown(wait=True)
        self._store.close()
        self._health.stop()
        log.info("tally stopped")


def _tell(loop: asyncio.AbstractEventLoop, call: Callable[[], Any]) -> None:
    """Have `loop` run `call`; do nothing if the loop is closed."""
    with suppress(RuntimeError):
        loop.call_soon_threadsafe(call)
