"""All metrics of one gateway. docs/metrics.md explains each. Labels come from fixed sets only."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from typing import Final

from prometheus_client import CollectorRegistry, Counter, Gauge, ProcessCollector, disable_created_metrics

from stream.core.errors import REASONS, RULE_REASONS, TABLE_REASONS
from stream.core.rules import RuleSet
from stream.observability.bundle_figures import BundleFigures
from stream.observability.metrics import OTHER, SECONDS, Buckets

SIZES: Final = (1, 2, 4, 8, 16, 32, 64)
WAITS: Final = ("applied", "finished", "late")
STATUSES: Final = (
    "200", "204", "207", "400", "401", "403", "404", "405", "408", "413", "414", "415", "421", "422", "429", "431", "500", "503",
)  # fmt: skip


class GatewayMetrics:
    """The metrics of one gateway.

    Args:
        routes: Path templates, the values of the label `route`.
    """

    def __init__(self, routes: Sequence[str]) -> None:
        self.registry = registry = CollectorRegistry()
        ProcessCollector(registry=registry)
        disable_created_metrics()  # type: ignore[no-untyped-call]
        self._routes = dict.fromkeys((*routes, OTHER))

        def counter(name: str, documentation: str, *labels: str) -> Counter:
            return Counter(f"freshet_api_{name}", documentation, labels, registry=registry)

        def gauge(name: str, documentation: str, *labels: str) -> Gauge:
            return Gauge(f"freshet_api_{name}", documentation, labels, registry=registry)

        self.requests = counter("requests", "Answered requests", "route", "status")
        self.seconds = Buckets(
            registry, "freshet_api_request_seconds", "Time from a request's head to its answer", SECONDS, "route",
            tuple(self._routes),
        )  # fmt: skip
        self._rows = {route: row for row, route in enumerate(self._routes)}
        self.in_flight = gauge("in_flight_requests", "Requests that are being answered")
        self.waits = counter("waits", "Requests that asked for min_offset, by how that was met", "outcome")
        self.wait_seconds = Buckets(
            registry, "freshet_api_wait_seconds", "Time that requests waited for min_offset", SECONDS
        )
        self.batch = Buckets(registry, "freshet_api_batch_requests", "Requests that were scored together", SIZES)
        self.score_seconds = Buckets(
            registry, "freshet_api_score_seconds", "Time to score one batch of requests", SECONDS
        )
        self.events = counter("events", "Events that were written to Kafka, and those that were refused", "outcome")
        self.refused = counter("refused_events", "Events that were refused, by the reason of a dead letter", "reason")
        self.listeners = gauge("listeners", "Clients that follow a user's slates")
        self.connections = gauge("connections", "Open connections")
        self.lag = gauge("replica_lag_records", "Changelog records that are known and not read yet", "partition")
        self.age = gauge(
            "replica_age_seconds", "Time since a partition was last known to be read to its end", "partition"
        )
        self.records = counter("replica_records", "Changelog records read")
        self.left_out = counter(
            "replica_left_out_records", "Changelog records that are part of no state: fenced, or of no worker"
        )
        self.catalogue_items = gauge("catalogue_items", "Items: live ones can be recommended", "state")
        self.catalogue_offset = gauge("catalogue_offset", "Offset of the items topic that the catalogue has reached")
        self.rules = gauge("rules", "Rules: those in force, and those that are refused", "state")
        self.rules_offset = gauge("rules_offset", "Offset of the rules topic up to which rules are applied")
        self.rules_refused = counter(
            "rules_refused", "Records of the rules topic that were malformed or contradicted another rule", "reason"
        )
        self.tables_epoch = gauge(
            "tables_epoch", "Epoch of the tables that answers are scored with; 0 for the bundle's own"
        )
        self.tables_age = gauge(
            "tables_age_seconds", "Seconds since that epoch was written; NaN for the bundle's own tables"
        )
        self.tables_age.set(float("nan"))
        self.tables_refused = counter(
            "tables_refused", "Records of the tables topic that were malformed, and epochs that are not used", "reason"
        )
        self.ready = gauge("ready", "1 if requests are answered")
        self.bundle = BundleFigures(registry, "freshet_api_bundle")
        self.bundle_info = gauge("bundle_info", "1 for the bundle in use", "bundle", "state_model")
        self.build_info = gauge("build_info", "1 for the running version", "version")
        for outcome in WAITS:
            self.waits.labels(outcome)
        for reason in (*REASONS, *TABLE_REASONS):  # `increase` misses the first one of a counter that appears with it
            self.tables_refused.labels(reason)
        for outcome in ("written", "refused"):
            self.events.labels(outcome)

    def answered(self, route: str, status: int, seconds: float) -> None:
        """Count one answer."""
        known = route if route in self._routes else OTHER
        code = str(status)
        self.requests.labels(known, code if code in STATUSES else OTHER).inc()
        self.seconds.observe([seconds], self._rows[known])

    def waited(self, outcome: str, seconds: float) -> None:
        """Count one request with min_offset. outcome: one of WAITS."""
        self.waits.labels(outcome if outcome in WAITS else OTHER).inc()
        self.wait_seconds.observe([seconds])

    def scored(self, requests: int, seconds: float) -> None:
        """Count one batch."""
        self.batch.observe([requests])
        self.score_seconds.observe([seconds])

    def sent(self, written: int, refused: Sequence[str]) -> None:
        """Count events: those written, and the reasons of the others."""
        self.events.labels("written").inc(written)
        self.events.labels("refused").inc(len(refused))
        for reason in refused:
            self.refused.labels(reason if reason in REASONS else OTHER).inc()

    def observe_rules(self, rules: RuleSet) -> None:
        """Set the number of rules, and how far they are read."""
        self.rules.labels("in_force").set(len(rules.rules))
        self.rules.labels("refused").set(len(rules.refused))
        self.rules_offset.set(rules.offset)

    def refuse_rule(self, reason: str) -> None:
        """Count one record of the rules topic that is not in force."""
        self.rules_refused.labels(reason if reason in (*REASONS, *RULE_REASONS) else OTHER).inc()

    def observe_tables(self, epoch: int, created: int) -> None:
        """Set the epoch in use, and when it was written, in epoch ms."""
        self.tables_epoch.set(epoch)
        self.tables_age.set_function(lambda: time.time() - created / 1000)

    def refuse_table(self, reason: str) -> None:
        """Count one record of the tables topic, or an epoch, that is not used."""
        self.tables_refused.labels(reason if reason in (*REASONS, *TABLE_REASONS) else OTHER).inc()

    def replica(self, lag: Mapping[int, int], age: Mapping[int, float]) -> None:
        """Set partition -> records, and partition -> seconds."""
        for partition, records in lag.items():
            self.lag.labels(str(partition)).set(records)
        for partition, seconds in age.items():
            self.age.labels(str(partition)).set(seconds)
