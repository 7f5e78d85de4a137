"""The sizing guide: its table is what the script prints, and its formulas agree with what was measured and simulated."""

from __future__ import annotations

from dataclasses import replace

import pytest

from scripts.sizing import Load, Measured, cpu_ms, main, micro_batch, most_events, simulate, size
from tests.conftest import ROOT

MEASURED = Measured()


def test_the_guide_shows_what_the_script_prints(capsys: pytest.CaptureFixture[str]) -> None:
    main([])
    rows = capsys.readouterr().out.splitlines()
    assert len(rows) > 10
    assert "\n".join(rows) in (ROOT / "docs" / "sizing.md").read_text("utf-8")


@pytest.mark.parametrize(("rate", "measured"), [(200, 2.6), (1000, 0.84), (11_499, 0.084)])
def test_the_formula_of_cost_is_near_what_was_measured(rate: float, measured: float) -> None:
    """docs/benchmarks.md."""
    assert cpu_ms(rate, MEASURED) == pytest.approx(measured, rel=0.12)


@pytest.mark.parametrize("rate", [50.0, 1000.0, 6000.0, 10_000.0])
def test_the_simulation_has_the_formulas_micro_batches(rate: float) -> None:
    load = Load(users=1e5, events=rate * 86_400, peak=1.0, comments=0.0)
    seen = simulate(load, MEASURED, workers=1, partitions=8)
    assert seen.rate == pytest.approx(rate)
    assert seen.batch == pytest.approx(micro_batch(rate, MEASURED), rel=0.2)
    assert MEASURED.cycle_ms < seen.p50 < seen.p99 < 3 * (MEASURED.cycle_ms + seen.batch * MEASURED.event_ms)


def test_the_busiest_worker_stays_below_what_is_planned_for() -> None:
    """Users' activity differs, so that one worker has more than the mean; with these partitions little more."""
    for load in (Load(), Load(users=1e6, events=3e9), Load(events=2e9, comments=0.0)):
        found = size(load, MEASURED)
        seen = simulate(load, MEASURED, found.workers - 1, found.partitions)
        assert 1 <= seen.share < 1.35, load
        assert seen.rate < 0.7 * most_events(MEASURED), load


def test_more_needs_more() -> None:
    small, large = size(Load(), MEASURED), size(Load(users=1e9, events=1e10), MEASURED)
    assert large.workers > small.workers > size(Load(events=1e6), MEASURED).workers == 2
    assert large.partitions > small.partitions >= 4 * small.workers
    assert large.folder_gb_each > 0 < small.read_back_s
    slower = replace(MEASURED, event_ms=4 * MEASURED.event_ms)
    assert size(Load(), slower).workers > 3 * (small.workers - 1)


@pytest.mark.parametrize(
    ("option", "found"),
    [("--users", "0"), ("--peak", "-1"), ("--comments", "1"), ("--event-ms", "nan"), ("--events-per-day", "inf")],
)
def test_an_impossible_load_is_refused_by_name(option: str, found: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        main([f"{option}={found}"])
    assert f"{option}: found {found}, expected" in capsys.readouterr().err
