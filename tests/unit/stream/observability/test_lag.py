"""The age of what waits: by partition, the oldest counts, and an idle topic is not behind."""

from __future__ import annotations

from faust.types import TP

from stream.observability.lag import Lag

A, B, OTHER = TP("clicks", 0), TP("clicks", 1), TP("ratings", 0)


def test_the_partition_that_stands_still_counts() -> None:
    lag = Lag(["clicks", "ratings"])
    newest = {A: 999_000, B: 900_000, OTHER: 999_500}
    assert lag.look(1000.0, {A: 3, B: 40, OTHER: 1}, newest) == {"clicks": (43, 100.0), "ratings": (1, 0.5)}


def test_nothing_waits() -> None:
    lag = Lag(["clicks", "ratings"])
    assert lag.look(1000.0, {A: 0}, {A: 1000}) == {"clicks": (0, 0.0), "ratings": (0, 0.0)}


def test_the_first_record_after_a_quiet_hour_has_not_waited_for_an_hour() -> None:
    lag = Lag(["clicks"])
    assert lag.look(4600.0, {A: 0}, {A: 1_000_000}) == {"clicks": (0, 0.0)}
    assert lag.look(4600.5, {A: 1}, {A: 1_000_000}) == {"clicks": (1, 0.5)}
    assert lag.look(4700.0, {A: 9}, {A: 1_000_000}) == {"clicks": (9, 100.0)}


def test_what_waited_before_the_start_is_as_old_as_what_was_finished_last() -> None:
    lag = Lag(["clicks"])
    assert lag.look(5000.0, {A: 100}, {}) == {"clicks": (100, 0.0)}
    assert lag.look(5001.0, {A: 50}, {A: 1_000_000}) == {"clicks": (50, 4001.0)}


def test_a_partition_that_comes_back_does_not_remember() -> None:
    lag = Lag(["clicks"])
    lag.look(1000.0, {A: 0}, {})
    lag.look(1001.0, {}, {})
    assert lag.look(2000.0, {A: 1}, {}) == {"clicks": (1, 0.0)}
