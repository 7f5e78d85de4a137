"""All metrics of `freshet learn`. docs/metrics.md explains each. Labels come from fixed sets only."""

from __future__ import annotations

import math
import time
from typing import Final

from prometheus_client import (
    CollectorRegistry,
    Counter,
    Gauge,
    ProcessCollector,
    disable_created_metrics,
    start_http_server,
)

from deploy.learning.learn import GOLDEN, OUTCOMES, PARITY, Outcome

REASONS: Final = ("not-finite", "rows", "prequential", "forgetting", "labels", PARITY, GOLDEN)
FAILED: Final = "failed"


class LearnMetrics:
    """The metrics of one learning process.

    Args:
        due: Seconds after the end of a turn by which the next one should have ended.
    """

    def __init__(self, due: float = math.inf) -> None:
        self._due = due
        self._since = time.monotonic()  # the end of the newest turn; before the first, the start
        self.registry = registry = CollectorRegistry()
        ProcessCollector(registry=registry)
        disable_created_metrics()  # type: ignore[no-untyped-call]

        def gauge(name: str, documentation: str) -> Gauge:
            return Gauge(f"freshet_learn_{name}", documentation, registry=registry)

        self.turns = Counter(
            "freshet_learn_turns", "Turns that ended, by what came of them", ["outcome"], registry=registry
        )
        self.refused = Counter(
            "freshet_learn_refusals", "Reasons why bundles were refused", ["reason"], registry=registry
        )
        self.refused_now = gauge("refused", "1 if the newest run that was judged was refused")
        self.failed_now = gauge("failed", "1 if the newest turn ended with an error")
        self.overdue = gauge("overdue_seconds", "Time since the next turn should have ended; 0 while it need not have")
        self.overdue.set_function(self._overdue)
        self.published = gauge("published_timestamp_seconds", "When the newest bundle was published")
        self.turn = gauge("turn_timestamp_seconds", "When the newest turn ended")
        self.seconds = gauge("turn_seconds", "Time that the newest turn took")
        self.served = gauge(
            "served_ndcg10", "NDCG@10 of the served bundle on the newest days, when a run was last judged"
        )
        self.new = gauge("new_ndcg10", "NDCG@10 of the new run on the newest days, when a run was last judged")
        self.ratio = gauge("ratio_low", "Lower end of the 95 % interval of their ratio")
        self.fall = gauge("older_fall", "Relative fall of NDCG@10 on older choices, when a run was last judged")
        for outcome in (*OUTCOMES, FAILED):
            self.turns.labels(outcome)
        for reason in REASONS:
            self.refused.labels(reason)

    def serve(self, host: str, port: int) -> None:
        """Answer /metrics there, in a thread of its own, for as long as the process lives."""
        start_http_server(port, host, self.registry)

    def ended(self, outcome: Outcome) -> None:
        """Count a turn."""
        self._end(outcome.outcome)
        self.seconds.set(outcome.seconds)
        for name, _ in outcome.reasons:
            self.refused.labels(name).inc()
        if outcome.outcome == OUTCOMES[-1]:
            return
        self.refused_now.set(float(bool(outcome.reasons)))
        if not outcome.reasons:
            self.published.set(time.time())
        figures = outcome.figures
        if figures.get("choices"):
            self.served.set(figures["served"])
            self.new.set(figures["new"])
            self.ratio.set(figures["interval"][0])
            self.fall.set(figures["older_fall"])

    def failed(self) -> None:
        """Count a turn that ended with an error."""
        self._end(FAILED)

    def _end(self, outcome: str) -> None:
        self.turns.labels(outcome).inc()
        self.failed_now.set(float(outcome == FAILED))
        self.turn.set(time.time())
        self._since = time.monotonic()

    def _overdue(self) -> float:
        return max(0.0, time.monotonic() - self._since - self._due)
