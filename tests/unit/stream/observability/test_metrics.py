"""The worker's metrics, read the way Prometheus reads them."""

from __future__ import annotations

import random
import time
from collections.abc import Iterable
from pathlib import Path

import pytest
from prometheus_client import generate_latest
from prometheus_client.parser import text_string_to_metric_families

from stream.core.errors import REASONS
from stream.core.messages import CLICK, COMMENT, RATING
from stream.observability.metrics import SECONDS, BatchFigures, Metrics

TOPICS = ("clicks", "ratings", "comments")


@pytest.fixture
def metrics(tmp_path: Path) -> Metrics:
    return Metrics(TOPICS, data_dir=tmp_path)


def scrape(metrics: Metrics) -> dict[tuple[str, frozenset[tuple[str, str]]], float]:
    text = generate_latest(metrics.registry).decode()
    return {
        (sample.name, frozenset(sample.labels.items())): sample.value
        for family in text_string_to_metric_families(text)
        for sample in family.samples
    }


def value(metrics: Metrics, name: str, **labels: str) -> float:
    return scrape(metrics)[f"freshet_{name}", frozenset(labels.items())]


def test_a_batch_is_added_to_every_metric_it_touches(metrics: Metrics) -> None:
    figures = BatchFigures(
        seconds=0.02, late=1, unknown_items=2, comments_encoded=3, comment_cache_hits=4, states_written=5,
        state_bytes=6000, changelog_bytes=7000, refolded=8, held=9,
    )  # fmt: skip
    figures.outcome(CLICK, "applied", 4)
    figures.outcome(RATING, "duplicate")
    figures.dead_letter(COMMENT, "comments", "decode", "not_utf8")
    figures.slate("interest", replay=False, slates=3)
    figures.latencies[CLICK].extend([0.004, 0.9, 30.0])
    with figures.stage("step"):
        pass
    assert figures.events == 6
    for _ in range(2):
        metrics.observe_batch(figures)
    assert value(metrics, "events_total", behaviour="click", outcome="applied") == 8
    assert value(metrics, "events_total", behaviour="rating", outcome="duplicate") == 2
    assert value(metrics, "events_total", behaviour="comment", outcome="dead_letter") == 2
    assert value(metrics, "dead_letters_total", topic="comments", stage="decode", reason="not_utf8") == 2
    assert value(metrics, "slates_total", strategy="interest", replay="false") == 6
    assert value(metrics, "event_to_slate_seconds_bucket", behaviour="click", le="0.003") == 0
    assert value(metrics, "event_to_slate_seconds_bucket", behaviour="click", le="0.005") == 2
    assert value(metrics, "event_to_slate_seconds_bucket", behaviour="click", le="1.0") == 4
    assert value(metrics, "event_to_slate_seconds_bucket", behaviour="click", le="10.0") == 4
    assert value(metrics, "event_to_slate_seconds_bucket", behaviour="click", le="+Inf") == 6
    assert value(metrics, "event_to_slate_seconds_count", behaviour="click") == 6
    assert value(metrics, "event_to_slate_seconds_sum", behaviour="click") == pytest.approx(2 * 30.904)
    assert value(metrics, "event_to_slate_seconds_count", behaviour="rating") == 0
    assert value(metrics, "micro_batch_events_sum") == 12
    assert value(metrics, "micro_batch_seconds_count") == 2
    assert value(metrics, "stage_seconds_total", stage="step") > 0
    for name, expected in {
        "late_events_total": 2, "unknown_items_total": 4, "comments_encoded_total": 6, "comment_cache_hits_total": 8,
        "state_writes_total": 10, "state_bytes_total": 12_000, "changelog_bytes_total": 14_000,
        "refolded_states_total": 16, "held_events": 9,
    }.items():  # fmt: skip
        assert value(metrics, name) == expected, name


def test_a_batch_without_events_is_no_micro_batch(metrics: Metrics) -> None:
    metrics.observe_batch(BatchFigures(seconds=1.0))
    assert value(metrics, "micro_batch_seconds_count") == 0


def test_a_value_on_a_bound_counts_below_it_as_prometheus_defines(metrics: Metrics) -> None:
    figures = BatchFigures()
    figures.latencies[CLICK].append(1.0)
    metrics.observe_batch(figures)
    assert value(metrics, "event_to_slate_seconds_bucket", behaviour="click", le="1.0") == 1
    assert value(metrics, "event_to_slate_seconds_bucket", behaviour="click", le="0.75") == 0


def test_the_objective_is_a_bucket_bound() -> None:
    assert 1.0 in SECONDS  # the burn-rate rules read le="1.0"
    assert (SECONDS[0], SECONDS[-1]) == (0.001, 10.0)


def test_group_recovery_catalogue_and_models(metrics: Metrics) -> None:
    before = time.time()
    metrics.observe_commit(1_800_000_000.0)
    metrics.observe_rebalances(1, 12)
    metrics.observe_rebalances(1, 6)
    metrics.observe_recovery(100, 50)
    metrics.observe_recovery(50, 0)
    metrics.observe_catalogue(live=10, known=12, offset=99)
    metrics.observe_lag({"clicks": (3, 0.5), "ratings": (0, 0.0)})
    metrics.observe_undecided({"clicks": 7, "ratings": 0})
    metrics.reject_item("missing_field")
    metrics.use_bundle("a", "m")
    metrics.use_bundle("b", "m", "some data", {"validation NDCG@10": 0.25, "test NDCG@10": 0.12345})
    metrics.use_provider("cpu", "auto")
    metrics.send_failed("changelog")
    assert value(metrics, "last_commit_timestamp_seconds") >= before
    assert value(metrics, "commits_total") == 1
    assert value(metrics, "rebalances_total") == 2
    assert value(metrics, "partitions_assigned") == 6
    assert value(metrics, "recovered_records_total") == 150
    assert value(metrics, "recovery_remaining_records") == 0
    assert value(metrics, "catalogue_items", state="live") == 10
    assert value(metrics, "catalogue_items", state="known") == 12
    assert value(metrics, "catalogue_offset") == 99
    assert value(metrics, "lag_records", topic="clicks") == 3
    assert value(metrics, "lag_seconds", topic="clicks") == 0.5
    assert value(metrics, "undecided_records", topic="clicks") == 7
    assert value(metrics, "items_rejected_total", reason="missing_field") == 1
    assert value(metrics, "send_errors_total", output="changelog") == 1
    assert value(metrics, "provider_info", provider="cpu", policy="auto") == 1
    bundles = [labels for name, labels in scrape(metrics) if name == "freshet_bundle_info"]
    assert [dict(labels) for labels in bundles] == [
        {"bundle": "b", "state_model": "m", "data": "some data", "ndcg10": "0.1235"}
    ]
    assert value(metrics, "data_disk_free_bytes") > 0


def test_alerted_counters_are_there_before_anything_happens(metrics: Metrics) -> None:
    assert value(metrics, "events_total", behaviour="click", outcome="dead_letter") == 0
    assert value(metrics, "event_to_slate_seconds_count", behaviour="comment") == 0
    assert value(metrics, "send_errors_total", output="dead-letters") == 0
    assert not [name for name, _ in scrape(metrics) if name.endswith("_created")]


def test_hostile_values_do_not_add_series(metrics: Metrics) -> None:
    def hostile(numbers: Iterable[int]) -> None:
        for number in numbers:
            figures = BatchFigures()
            figures.outcome(CLICK, f"outcome{number}")
            figures.dead_letter(CLICK, f"topic{number}", f"stage{number}", f"reason{number}")
            figures.slate(f"strategy{number}", replay=False)
            figures.stages[f"stage{number}"] = 0.1
            metrics.observe_batch(figures)
            metrics.observe_lag({f"topic{number}": (1, 1.0)})
            metrics.reject_item(f"reason{number}")
            metrics.send_failed(f"output{number}")

    hostile(range(1))
    series = len(scrape(metrics))
    hostile(range(1, 1000))
    assert len(scrape(metrics)) == series
    assert value(metrics, "dead_letters_total", topic="other", stage="other", reason="other") == 1000


def test_every_reason_is_a_label_of_its_own(metrics: Metrics) -> None:
    for reason in REASONS:
        figures = BatchFigures()
        figures.dead_letter(CLICK, "clicks", "validate", reason)
        metrics.observe_batch(figures)
    assert {value(metrics, "dead_letters_total", topic="clicks", stage="validate", reason=r) for r in REASONS} == {1.0}


def test_bulk_histogram_equals_one_at_a_time(metrics: Metrics) -> None:
    """Against prometheus_client's own Histogram, the reference."""
    from prometheus_client import CollectorRegistry, Histogram

    registry = CollectorRegistry()
    reference = Histogram("reference", "x", buckets=SECONDS, registry=registry)
    draw = random.Random(7)
    latencies = [draw.lognormvariate(-4, 2) for _ in range(2000)] + list(SECONDS)
    for latency in latencies:
        reference.observe(latency)
    figures = BatchFigures()
    figures.latencies[CLICK].extend(latencies)
    metrics.observe_batch(figures)
    expected = {
        sample.labels["le"]: sample.value
        for family in registry.collect()
        for sample in family.samples
        if sample.name == "reference_bucket"
    }
    found = {
        dict(labels)["le"]: number
        for (name, labels), number in scrape(metrics).items()
        if name == "freshet_event_to_slate_seconds_bucket" and dict(labels)["behaviour"] == "click"
    }
    assert found == expected
