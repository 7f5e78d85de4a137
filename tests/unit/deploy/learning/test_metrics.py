"""What the metrics say of turns that end, fail and do not end."""

from __future__ import annotations

import time
from collections.abc import Callable

import pytest

from deploy.learning.learn import NOTHING, PUBLISHED, REFUSED, Outcome
from deploy.learning.metrics import LearnMetrics


def value(metrics: LearnMetrics, name: str) -> float | None:
    return metrics.registry.get_sample_value(f"freshet_learn_{name}")


def test_a_turn_that_does_not_end_is_overdue_and_one_that_ends_is_not(monkeypatch: pytest.MonkeyPatch) -> None:
    now = [1000.0]
    monkeypatch.setattr(time, "monotonic", lambda: now[0])
    metrics = LearnMetrics(60.0)
    now[0] += 50
    assert value(metrics, "overdue_seconds") == 0
    now[0] += 15
    assert value(metrics, "overdue_seconds") == 5, "the first one, since the start"
    ends: tuple[Callable[[], None], ...] = (lambda: metrics.ended(Outcome(NOTHING)), metrics.failed)
    for end in ends:
        end()
        assert value(metrics, "overdue_seconds") == 0
        now[0] += 70
        assert value(metrics, "overdue_seconds") == 10
    assert value(LearnMetrics(), "overdue_seconds") == 0


def test_a_failure_lasts_until_a_turn_ends_and_a_refusal_until_a_run_passes() -> None:
    metrics = LearnMetrics()
    seen = []
    refused = Outcome(REFUSED, reasons=(("prequential", "too low"),))
    for outcome in (Outcome(PUBLISHED), refused, None, Outcome(NOTHING), Outcome(PUBLISHED)):
        if outcome is None:
            metrics.failed()
        else:
            metrics.ended(outcome)
        seen.append((value(metrics, "failed"), value(metrics, "refused")))
    assert seen == [(0, 0), (0, 1), (1, 1), (0, 1), (0, 0)]
