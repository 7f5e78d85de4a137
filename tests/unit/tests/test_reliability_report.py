"""docs/reliability.md: of each trial the newest outcome counts, whatever else lies in the cache; what is missing is named."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from tests.chaos import outcomes, report
from tests.chaos.outcomes import Outcome, Rival

OLD = Outcome(1, "SIGKILL", 0, events=10, lost=1, code="a", day="2026-01-01")
NEW = replace(OLD, events=20, lost=0, code="b", day="2026-01-02")


def test_an_old_outcome_in_the_cache_does_not_replace_a_newer_one() -> None:
    assert report.latest([NEW, OLD]) == report.latest([OLD, NEW]) == [NEW]


def test_of_one_day_the_one_recorded_last_counts() -> None:
    again = replace(NEW, events=30)
    assert report.latest([NEW, again]) == [again]


def test_rivals_recorded_before_they_had_a_day_count_as_older(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CHAOS_OUTCOMES", str(tmp_path))
    rival = Rival("x", "1", "none", 1, 10, 2, 1, 0, 3, 4, 5, 6, 2, 1.5, 20.0)
    outcomes.record(rival)
    path = outcomes.file("rivals")
    path.write_text(
        path.read_text("utf-8").replace(f', "day": "{rival.day}"', "").replace('"lost": 3', '"lost": 9'), "utf-8"
    )
    (before,) = outcomes.read_rivals(path)
    assert (before.lost, before.day) == (9, "")
    assert report.latest([rival, before]) == [rival]


def test_a_fault_without_five_seeds_is_named_and_totals_are_sums() -> None:
    found = [replace(NEW, seed=seed, kills=2) for seed in range(5)] + [replace(OLD, fault=2)]
    assert "fault 1 (5)" not in report.missing(found)
    assert "fault 2 (1)" in report.missing(found)
    page = report.text(found, [])
    assert "2 faults, 6 trials, 110 events, 10 processes killed" in page
    assert "**1 lost, 0 double, 0 uncovered**" in page
    assert "**Not shown in full** (fewer than 5 seeds): fault 2 (1)" in page
