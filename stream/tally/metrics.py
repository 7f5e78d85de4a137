"""All metrics of the tally. docs/metrics.md explains each. Labels come from fixed sets only."""

from __future__ import annotations

from collections.abc import Sequence

from prometheus_client import CollectorRegistry, Counter, Gauge, ProcessCollector, disable_created_metrics

from stream.core.errors import REASONS
from stream.core.tables import EpochClosed
from stream.observability.metrics import OTHER
from stream.tally.counting import Changed


class TallyMetrics:
    """The metrics of one tally.

    Args:
        topics: The source topics.
    """

    def __init__(self, topics: Sequence[str]) -> None:
        self.registry = registry = CollectorRegistry()
        ProcessCollector(registry=registry)
        disable_created_metrics()  # type: ignore[no-untyped-call]

        def counter(name: str, documentation: str, *labels: str) -> Counter:
            return Counter(f"freshet_tally_{name}", documentation, labels, registry=registry)

        def gauge(name: str, documentation: str, *labels: str) -> Gauge:
            return Gauge(f"freshet_tally_{name}", documentation, labels, registry=registry)

        self.events = counter("events", "Source records that were counted, by what they are", "outcome")
        self.refused = counter("refused_records", "Source records that are not acceptable, by reason", "reason")
        self.lag = gauge("lag_records", "Source records that are known and not read yet", "topic")
        self.items = gauge("items", "Items that somebody has chosen")
        self.epoch = gauge("epoch", "Number of the newest epoch that was published")
        self.published = gauge("published_timestamp_seconds", "When the newest epoch was published")
        self.rows = counter("rows", "Rows that were written to the topic tables")
        self.epoch_seconds = gauge("epoch_seconds", "Time that the newest epoch took, from its sums to its commit")
        self.overdue = gauge("overdue_seconds", "Time since the next epoch was due; 0 while none is")
        self.accepted_loss = counter("accepted_losses", "Losses that --accept-loss has accepted")
        self.ready = gauge("ready", "1 if the tally counts")
        self.heartbeat_age = gauge("heartbeat_age_seconds", "Time since the event loop last turned")
        self.build_info = gauge("build_info", "1 for the running version", "version")
        for outcome in ("choice", "other", "duplicate"):
            self.events.labels(outcome)
        for topic in topics:
            self.lag.labels(topic)

    def counted(self, changed: Changed) -> None:
        """Count the events of a micro-batch."""
        self.events.labels("choice").inc(changed.choices)
        self.events.labels("other").inc(changed.events - changed.choices)
        self.events.labels("duplicate").inc(changed.repeated)

    def refuse(self, reason: str) -> None:
        """Count one record that is not acceptable."""
        self.refused.labels(reason if reason in REASONS else OTHER).inc()

    def closed(self, closed: EpochClosed) -> None:
        """Set what is known of the newest epoch."""
        self.epoch.set(closed.epoch)
        self.published.set(closed.created / 1000)
