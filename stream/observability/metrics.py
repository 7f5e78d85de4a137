"""All metrics of the worker in one class, written once per micro-batch. docs/metrics.md explains each.

Metrics use base units, and counters end in `_total`. Labels come from fixed sets only: no user, item or text ever
becomes a label, so the number of series does not grow with the data. The event loop writes; the HTTP thread of
`stream.observability.health` reads.

    figures = BatchFigures()                       # one per micro-batch, filled while it goes through the steps
    figures.outcome(CLICK, "applied")
    figures.latencies[CLICK].append(0.012)         # seconds, append time -> slate acknowledged; replays left out
    with figures.stage("step"): ...
    metrics.observe_batch(figures)                 # the only call per micro-batch
"""

from __future__ import annotations

import shutil
import time
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from itertools import product
from pathlib import Path
from threading import Lock
from typing import Final

import numpy as np
from numpy.typing import ArrayLike
from prometheus_client import CollectorRegistry, Counter, Gauge, ProcessCollector, disable_created_metrics
from prometheus_client.metrics_core import HistogramMetricFamily, Metric
from prometheus_client.registry import Collector

from stream.core.errors import REASONS, RULE_REASONS, TABLE_REASONS
from stream.core.fencing_log import LeftOut
from stream.core.messages import BEHAVIOURS
from stream.core.prequential import JUDGED, KINDS, KNOWN, NEW, Gains
from stream.core.rules import RuleSet
from stream.core.times import UNITS
from stream.observability.bundle_figures import BundleFigures

OUTCOMES: Final = ("applied", "duplicate", "redelivered", "dead_letter", "forwarded", "forgotten")
STAGES: Final = ("read", "decode", "encode", "step", "score", "changelog", "slates", "store")
STRATEGIES: Final = ("interest", "popularity")
FAILURES: Final = ("key", "partition", "decode", "validate", "encode", "inference", "catalogue")
"""The stages at which a dead letter may fail: the values of its header `stage`."""
OUTPUTS: Final = ("changelog", "recommendations", "dead-letters", "sources", "forgotten")
WRONG_UNITS: Final = tuple(name for name in UNITS if name != "milliseconds")
OTHER: Final = "other"
"""Replaces a label value outside its fixed set."""

SECONDS: Final = (
    0.001, 0.002, 0.003, 0.005, 0.0075, 0.01, 0.015, 0.02, 0.03, 0.05, 0.075, 0.1, 0.15, 0.2, 0.3, 0.5, 0.75,
    1.0, 1.5, 2.0, 3.0, 5.0, 7.5, 10.0,
)  # fmt: skip
EVENTS: Final = (1, 2, 5, 10, 20, 50, 100, 200, 500, 1000, 2000, 5000)


@dataclass(slots=True)
class BatchFigures:
    """The figures of one micro-batch. Counts are of events unless noted. All start at 0.

    Attributes:
        outcomes: (behaviour index, one of OUTCOMES) -> events.
        slates: (strategy, replay) -> acknowledged slates.
        dead_letters: (source topic, stage, reason) -> records.
        wrong_units: Unit that their time is probably in -> those of the dead letters.
        latencies: Per behaviour, seconds from append to acknowledged slate.
        stages: Name from STAGES -> seconds.
    """

    outcomes: dict[tuple[int, str], int] = field(default_factory=dict)
    slates: dict[tuple[str, bool], int] = field(default_factory=dict)
    dead_letters: dict[tuple[str, str, str], int] = field(default_factory=dict)
    wrong_units: dict[str, int] = field(default_factory=dict)
    latencies: tuple[list[float], list[float], list[float]] = field(default_factory=lambda: ([], [], []))
    stages: dict[str, float] = field(default_factory=dict)
    seconds: float = 0.0  # the whole micro-batch
    late: int = 0
    unknown_items: int = 0
    comments_encoded: int = 0
    comment_cache_hits: int = 0
    ratings_read: int = 0
    states_written: int = 0  # records put into the store
    states_deleted: int = 0  # states of forgotten users removed from it
    state_bytes: int = 0  # size of their values, without keys
    changelog_bytes: int = 0  # keys and values sent to the changelog
    refolded: int = 0  # states rebuilt from their recent events
    gains: Gains = field(default_factory=Gains)  # of the standing slates, by what their users did
    held: int | None = None  # events waiting behind comments after this batch; None: leave the gauge

    def outcome(self, behaviour: int, outcome: str, events: int = 1) -> None:
        self.outcomes[behaviour, outcome] = self.outcomes.get((behaviour, outcome), 0) + events

    def slate(self, strategy: str, replay: bool, slates: int = 1) -> None:
        self.slates[strategy, replay] = self.slates.get((strategy, replay), 0) + slates

    def dead_letter(self, behaviour: int, topic: str, stage: str, reason: str, unit: str = "") -> None:
        """Count one dead letter of a source topic, and the event's outcome. unit: as in RecordError."""
        self.outcome(behaviour, "dead_letter")
        if unit:
            self.wrong_units[unit] = self.wrong_units.get(unit, 0) + 1
        self.dead_letters[topic, stage, reason] = self.dead_letters.get((topic, stage, reason), 0) + 1

    @contextmanager
    def stage(self, name: str) -> Iterator[None]:
        """Add the time of the block to one stage, even if the block raises."""
        began = time.perf_counter()
        try:
            yield
        finally:
            self.stages[name] = self.stages.get(name, 0.0) + time.perf_counter() - began

    @property
    def events(self) -> int:
        return sum(self.outcomes.values())


class Buckets(Collector):
    """A histogram that takes a whole batch at once: prometheus_client has no bulk `observe`.

    Args:
        registry: The registry to which it adds itself.
        name: The metric's name.
        documentation: The metric's help text.
        bounds: Upper bounds, ascending, without +Inf.
        label: Name of its only label, or "".
        values: The label's fixed values.
    """

    def __init__(
        self,
        registry: CollectorRegistry,
        name: str,
        documentation: str,
        bounds: Sequence[float],
        label: str = "",
        values: Sequence[str] = ("",),
    ) -> None:
        self._name = name
        self._documentation = documentation
        self._label = label
        self._values = tuple(values)
        self._bounds = np.asarray(bounds, np.float64)
        self._names = [repr(float(bound)) for bound in bounds] + ["+Inf"]
        self._counts = np.zeros((len(self._values), len(bounds) + 1), np.int64)
        self._sums = [0.0] * len(self._values)
        self._lock = Lock()
        registry.register(self)

    def observe(self, values: ArrayLike, row: int = 0) -> None:
        """Add values, float [n] with any n. `row` is the index of the label's value."""
        array = np.asarray(values, np.float64)
        if not array.size:
            return
        buckets = np.bincount(np.searchsorted(self._bounds, array), minlength=self._counts.shape[1])
        total = float(array.sum())
        with self._lock:  # a scrape sees buckets and sum of the same batches
            self._counts[row] += buckets
            self._sums[row] += total

    def describe(self) -> Iterable[Metric]:
        return [HistogramMetricFamily(self._name, self._documentation)]

    def collect(self) -> Iterable[Metric]:
        family = HistogramMetricFamily(self._name, self._documentation, labels=[self._label] if self._label else [])
        with self._lock:
            counts, sums = self._counts.cumsum(axis=1).tolist(), list(self._sums)
        for value, row, total in zip(self._values, counts, sums, strict=True):
            family.add_metric([value] if self._label else [], list(zip(self._names, row, strict=True)), total)
        yield family


class Metrics:
    """All metrics of one worker.

    Args:
        topics: The three source topics with their prefix, in the order of BEHAVIOURS. They are the values of the label
            `topic`.
        registry: The registry of the metrics; a new one by default.
        data_dir: The folder whose disk is watched.
    """

    def __init__(
        self, topics: Sequence[str] = (), registry: CollectorRegistry | None = None, data_dir: Path | None = None
    ) -> None:
        self.registry = registry or CollectorRegistry()
        ProcessCollector(registry=self.registry)
        disable_created_metrics()  # type: ignore[no-untyped-call]  # `_created` series double the number of counters and say nothing here
        self._topics = tuple(topics)
        self._add_events()
        self._add_micro_batches()
        self._add_input()
        self._add_group()
        self._add_state(data_dir)
        self._add_models()
        self._add_process()
        self._start_at_zero()

    def _counter(self, name: str, documentation: str, *labels: str) -> Counter:
        return Counter(f"freshet_{name}", documentation, labels, registry=self.registry)

    def _gauge(self, name: str, documentation: str, *labels: str) -> Gauge:
        return Gauge(f"freshet_{name}", documentation, labels, registry=self.registry)

    def _add_events(self) -> None:
        self.events = self._counter("events", "Finished source records, by their outcome", "behaviour", "outcome")
        self.dead_letters = self._counter("dead_letters", "Acknowledged dead letters", "topic", "stage", "reason")
        self.wrong_units = self._counter(
            "wrong_unit_records", "Dead letters whose time is probably not in milliseconds, by its likely unit", "unit"
        )
        self.slates = self._counter("slates", "Acknowledged slates", "strategy", "replay")
        self.event_to_slate = Buckets(
            self.registry, "freshet_event_to_slate_seconds",
            "Time from the append of an event until its slate was acknowledged, without replays",
            SECONDS, "behaviour", BEHAVIOURS,
        )  # fmt: skip
        self.prequential_choices = self._counter(
            "prequential_choices", "Choices that judged the slate before them, by their item", "behaviour", "item"
        )
        labels = "judged", "behaviour", "item"
        self.prequential_hits = self._counter(
            "prequential_hits", "Judging choices whose item was in the slate", *labels
        )
        self.prequential_gain = self._counter("prequential_gain", "Sum of 1 / log2(place + 2) of these hits", *labels)
        self.prequential_reciprocal = self._counter(
            "prequential_reciprocal_rank", "Sum of 1 / (place + 1) of these hits", *labels
        )
        self.late_events = self._counter("late_events", "Events older than the newest event of their user")
        self.unknown_items = self._counter("unknown_items", "Events folded with the UNKNOWN item row")

    def _add_micro_batches(self) -> None:
        self.micro_batch_seconds = Buckets(
            self.registry, "freshet_micro_batch_seconds", "Time for one micro-batch, from decoded to stored", SECONDS
        )
        self.micro_batch_events = Buckets(
            self.registry, "freshet_micro_batch_events", "Source records in one micro-batch", EVENTS
        )
        self.stage_seconds = self._counter("stage_seconds", "Time spent in each step of the micro-batches", "stage")
        self.comments_encoded = self._counter("comments_encoded", "Comment texts encoded by BERT")
        self.comment_cache_hits = self._counter("comment_cache_hits", "Comment texts whose vector was already known")
        self.ratings_read = self._counter(
            "ratings_read", "Comments without a value whose rating was read from the text"
        )
        self.held_events = self._gauge("held_events", "Events waiting behind a comment of their user")

    def _add_input(self) -> None:
        self.lag_records = self._gauge("lag_records", "Records of the assigned partitions not yet finished", "topic")
        self.lag_seconds = self._gauge(
            "lag_seconds", "Age of the oldest record not yet finished; 0 if there is none", "topic"
        )
        self.undecided_records = self._gauge(
            "undecided_records", "Records that cannot be read until a producer's open transaction ends", "topic"
        )

    def _add_group(self) -> None:
        self.commits = self._counter("commits", "Acknowledged offset commits")
        self.last_commit = self._gauge(
            "last_commit_timestamp_seconds", "Unix time of the last acknowledged offset commit"
        )
        self.rebalances = self._counter("rebalances", "Group rebalances that this worker took part in")
        self.partitions_assigned = self._gauge("partitions_assigned", "Source partitions assigned to this worker")
        self.fenced = self._counter(
            "fenced_records",
            "Changelog records that are not part of any state: a worker that had lost its partition wrote them, or no worker",
        )
        self.forged = self._counter(
            "forged_claims",
            "Those of the fenced_records that no worker can have written: claims, and records under a key of no user",
        )
        self.damaged = self._counter(
            "damaged_partitions", "RocksDB partitions that were damaged, and so deleted and read back"
        )
        self.accepted_loss = self._counter(
            "accepted_loss_records", "Records deleted before they were read, and accepted as lost (accept_loss)"
        )

    def _add_state(self, data_dir: Path | None) -> None:
        self.states_written = self._counter("state_writes", "State records written to the store")
        self.states_deleted = self._counter("state_deletes", "Empty states of forgotten users deleted from the store")
        self.state_bytes = self._counter("state_bytes", "Size of the state records written to the store")
        self.changelog_bytes = self._counter("changelog_bytes", "Keys and values sent to the changelog")
        self.send_errors = self._counter(
            "send_errors", "Sends that the broker rejected or did not acknowledge", "output"
        )
        self.recovered_records = self._counter("recovered_records", "Changelog records read back into the store")
        self.recovery_remaining = self._gauge(
            "recovery_remaining_records", "Changelog records still to be read back; -1: not known yet"
        )
        self.refolded_states = self._counter("refolded_states", "States rebuilt from their recent events")
        self.disk_free = self._gauge("data_disk_free_bytes", "Free space on the disk of the store")
        self.disk_free.set(float("nan"))
        if data_dir is not None:
            self.disk_free.set_function(_free_space(data_dir))

    def _add_models(self) -> None:
        self.catalogue_items = self._gauge(
            "catalogue_items", "Items: live ones can be recommended, known ones have a vector", "state"
        )
        self.catalogue_offset = self._gauge(
            "catalogue_offset", "Offset of the items topic that the catalogue has reached"
        )
        self.items_rejected = self._counter(
            "items_rejected", "Records of the items topic that were not acceptable", "reason"
        )
        self.rules = self._gauge("rules", "Rules: those in force, and those that are refused", "state")
        self.rules_offset = self._gauge("rules_offset", "Offset of the rules topic up to which rules are applied")
        self.rules_refused = self._counter(
            "rules_refused", "Records of the rules topic that were malformed or contradicted another rule", "reason"
        )
        self.tables_epoch = self._gauge(
            "tables_epoch", "Epoch of the tables that slates are scored with; 0 for the bundle's own"
        )
        self.tables_age = self._gauge(
            "tables_age_seconds", "Seconds since that epoch was written; NaN for the bundle's own tables"
        )
        self.tables_age.set(float("nan"))
        self.tables_refused = self._counter(
            "tables_refused", "Records of the tables topic that were malformed, and epochs that are not used", "reason"
        )
        self.reissued = self._counter(
            "reissued_slates", "Slates re-issued because an item that they showed must no longer be shown"
        )
        self.reissues_waiting = self._gauge(
            "reissue_waiting_users", "Users whose slates are known to show a withdrawn item, at most 10,000"
        )
        self.reissues_seconds = self._gauge(
            "reissue_seconds", "Seconds since the oldest change after which slates are still looked through; 0 for none"
        )
        self.bundle = BundleFigures(self.registry, "freshet_bundle")
        self.bundle_info = self._gauge(
            "bundle_info", "1 for the bundle in use", "bundle", "state_model", "data", "ndcg10"
        )
        self.provider_info = self._gauge("provider_info", "1 for the execution provider in use", "provider", "policy")

    def _add_process(self) -> None:
        self.ready = self._gauge("ready", "1 if joined, recovered, and catalogue and bundle loaded")
        self.clock_offset = self._gauge(
            "clock_offset_seconds", "The brokers' time minus the time of this machine's clock"
        )
        self.heartbeat_age = self._gauge("heartbeat_age_seconds", "Time since the event loop last turned")
        self.standing = self._gauge("standing_seconds", "Time for which there was work and nothing moved")
        self.build_info = self._gauge("build_info", "1 for the running version", "version")

    def observe_batch(self, figures: BatchFigures) -> None:
        """Add one micro-batch to all of its metrics. It takes about 50 microseconds for 512 events."""
        self._observe_gains(figures.gains)  # first: who sees the events counted sees what they judged, too
        for (behaviour, outcome), events in figures.outcomes.items():
            self.events.labels(BEHAVIOURS[behaviour], _of(OUTCOMES, outcome)).inc(events)
        for (topic, stage, reason), records in figures.dead_letters.items():
            labels = _of(self._topics, topic), _of(FAILURES, stage), _of(REASONS, reason)
            self.dead_letters.labels(*labels).inc(records)
        for unit, records in figures.wrong_units.items():
            self.wrong_units.labels(_of(WRONG_UNITS, unit)).inc(records)
        for (strategy, replay), slates in figures.slates.items():
            self.slates.labels(_of(STRATEGIES, strategy), "true" if replay else "false").inc(slates)
        for behaviour, latencies in enumerate(figures.latencies):
            self.event_to_slate.observe(latencies, behaviour)
        for stage, seconds in figures.stages.items():
            self.stage_seconds.labels(_of(STAGES, stage)).inc(seconds)
        if events := figures.events:
            self.micro_batch_events.observe([events])
            self.micro_batch_seconds.observe([figures.seconds])
        self.late_events.inc(figures.late)
        self.unknown_items.inc(figures.unknown_items)
        self.comments_encoded.inc(figures.comments_encoded)
        self.comment_cache_hits.inc(figures.comment_cache_hits)
        self.ratings_read.inc(figures.ratings_read)
        self.states_written.inc(figures.states_written)
        self.states_deleted.inc(figures.states_deleted)
        self.state_bytes.inc(figures.state_bytes)
        self.changelog_bytes.inc(figures.changelog_bytes)
        self.refolded_states.inc(figures.refolded)
        if figures.held is not None:
            self.held_events.set(figures.held)

    def _observe_gains(self, gains: Gains) -> None:
        for (behaviour, kind), choices in gains.choices.items():
            self.prequential_choices.labels(BEHAVIOURS[behaviour], kind).inc(choices)
        for at, hits in gains.hits.items():
            labels = at.judged, BEHAVIOURS[at.behaviour], at.kind
            self.prequential_hits.labels(*labels).inc(hits)
            self.prequential_gain.labels(*labels).inc(gains.gain[at])
            self.prequential_reciprocal.labels(*labels).inc(gains.reciprocal[at])

    def observe_undecided(self, undecided: Mapping[str, int]) -> None:
        """Set source topic -> records from the first one of an open transaction on, over the assigned partitions."""
        for topic, records in undecided.items():
            self.undecided_records.labels(_of(self._topics, topic)).set(records)

    def observe_lag(self, lag: Mapping[str, tuple[int, float]]) -> None:
        """Set source topic -> (unfinished records, age in seconds of the oldest), over the assigned partitions."""
        for topic, (records, seconds) in lag.items():
            self.lag_records.labels(_of(self._topics, topic)).set(records)
            self.lag_seconds.labels(_of(self._topics, topic)).set(seconds)

    def observe_left_out(self, found: LeftOut) -> None:
        self.fenced.inc(found.fenced + found.forged)
        self.forged.inc(found.forged)

    def observe_commit(self, now: float) -> None:
        """Count an offset commit. `now` is Unix time in seconds."""
        self.commits.inc()
        self.last_commit.set(now)

    def observe_clock(self, offset: float) -> None:
        """Set the clock offset: the seconds by which the brokers are ahead of this machine's clock."""
        self.clock_offset.set(offset)

    def observe_rebalances(self, count: int, partitions: int) -> None:
        """Count rebalances.

        Args:
            count: Rebalances since the last call.
            partitions: Source partitions assigned now, over the three topics.
        """
        self.rebalances.inc(count)
        self.partitions_assigned.set(partitions)

    def observe_recovery(self, records: int, remaining: int) -> None:
        """Record the progress of the recovery.

        Args:
            records: Changelog records read back since the last call.
            remaining: Changelog records still to be read; -1: not known yet.
        """
        self.recovered_records.inc(records)
        self.recovery_remaining.set(remaining)

    def observe_catalogue(self, live: int, known: int, offset: int) -> None:
        self.catalogue_items.labels("live").set(live)
        self.catalogue_items.labels("known").set(known)
        self.catalogue_offset.set(offset)

    def reject_item(self, reason: str, records: int = 1) -> None:
        self.items_rejected.labels(_of(REASONS, reason)).inc(records)

    def observe_rules(self, rules: RuleSet) -> None:
        self.rules.labels("in_force").set(len(rules.rules))
        self.rules.labels("refused").set(len(rules.refused))
        self.rules_offset.set(rules.offset)

    def observe_tables(self, epoch: int, created: int) -> None:
        """Set the epoch in use, and when it was written, in epoch ms."""
        self.tables_epoch.set(epoch)
        self.tables_age.set_function(lambda: time.time() - created / 1000)

    def refuse_table(self, reason: str) -> None:
        self.tables_refused.labels(_of((*REASONS, *TABLE_REASONS), reason)).inc()

    def observe_reissues(self, waiting: int, seconds: float) -> None:
        """Set the number of slates that are known to wait, and the age of the oldest change that is not finished."""
        self.reissues_waiting.set(waiting)
        self.reissues_seconds.set(seconds)

    def refuse_rule(self, reason: str) -> None:
        self.rules_refused.labels(_of((*REASONS, *RULE_REASONS), reason)).inc()

    def use_bundle(
        self, bundle: str, state_model: str, data: str = "", figures: Mapping[str, float] | None = None
    ) -> None:
        """Set the bundle in use from now on. The series of an earlier bundle is removed.

        Args:
            bundle: The bundle's id.
            state_model: The stamp of its states.
            data: Name of the data set.
            figures: The bundle's metrics. Only NDCG@10 is shown: that of the test part, else of validation, else "".
        """
        measured = figures or {}
        found = [measured[name] for name in ("test NDCG@10", "validation NDCG@10") if name in measured]
        self.bundle_info.clear()
        self.bundle_info.labels(bundle, state_model, data, f"{found[0]:.4f}" if found else "").set(1)

    def use_provider(self, provider: str, policy: str) -> None:
        """Set the execution provider in use.

        Args:
            provider: onnxruntime's name without `ExecutionProvider`, in lower case (cpu, cuda).
            policy: The setting `provider`, or `default`.
        """
        self.provider_info.clear()
        self.provider_info.labels(provider, policy).set(1)

    def use_version(self, version: str) -> None:
        self.build_info.labels(version).set(1)

    def send_failed(self, output: str) -> None:
        """Count a failed send to an output, one of OUTPUTS."""
        self.send_errors.labels(_of(OUTPUTS, output)).inc()

    def _start_at_zero(self) -> None:
        """Create all series at the start: `rate` misses the first increment of a counter that appears with it."""
        for behaviour in BEHAVIOURS:
            for outcome in OUTCOMES:
                self.events.labels(behaviour, outcome)
            for kind in KINDS:
                self.prequential_choices.labels(behaviour, kind)
            for judged, kind in product(JUDGED, (KNOWN, NEW)):
                for metric in (self.prequential_hits, self.prequential_gain, self.prequential_reciprocal):
                    metric.labels(judged, behaviour, kind)
        for unit in WRONG_UNITS:
            self.wrong_units.labels(unit)
        for stage in STAGES:
            self.stage_seconds.labels(stage)
        for strategy in STRATEGIES:
            for replay in ("true", "false"):
                self.slates.labels(strategy, replay)
        for output in OUTPUTS:
            self.send_errors.labels(output)
        for reason in (*REASONS, *TABLE_REASONS):
            self.tables_refused.labels(reason)
        for topic in self._topics:
            self.lag_records.labels(topic)
            self.lag_seconds.labels(topic)
            self.undecided_records.labels(topic)
        for state in ("live", "known"):
            self.catalogue_items.labels(state)
        self.catalogue_offset.set(-1)
        for state in ("in_force", "refused"):
            self.rules.labels(state)
        self.rules_offset.set(-1)


def _of(values: Collection[str], value: str) -> str:
    return value if value in values else OTHER


def _free_space(folder: Path) -> Callable[[], float]:
    def free() -> float:
        """Return the free bytes; NaN until the folder exists."""
        with suppress(OSError):
            return float(shutil.disk_usage(folder).free)
        return float("nan")

    return free
