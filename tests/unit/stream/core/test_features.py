"""An event's numbers as the recurrent model takes them."""

from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from stream.core.features import NUMBERS, InputSpec

SPEC = InputSpec((0.5, 5.0), ("home", "search"), 384)
DAY = 86_400_000


def test_scenes_start_at_one() -> None:
    assert [SPEC.scene(name) for name in ("home", "search", "elsewhere", "")] == [1, 2, 0, 0]


def test_actions_start_at_one_and_unknown_ones_are_none() -> None:
    spec = InputSpec((0.5, 5.0), (), 384, actions=("purchase", "skip"))
    assert [spec.action(name) for name in ("purchase", "skip", "share", "")] == [1, 2, 0, 0]
    assert SPEC.actions == ()
    assert SPEC.action("purchase") == 0


@pytest.mark.parametrize(("value", "scaled"), [(0.5, -1.0), (2.75, 0.0), (5.0, 1.0)])
def test_a_value_is_scaled_to_minus_one_to_one(value: float, scaled: float) -> None:
    assert SPEC.numbers(value, 0)[:2] == (scaled, 1.0)


def test_no_value_is_not_a_low_value() -> None:
    assert SPEC.numbers(math.nan, 0)[:2] == (0.0, 0.0)


def test_the_first_event_is_no_gap_of_zero() -> None:
    assert SPEC.numbers(math.nan, -1)[2:] == (0.0, 1.0)
    assert SPEC.numbers(math.nan, 0)[2:] == (0.0, 0.0)


def test_a_gap_of_a_year_is_one() -> None:
    assert SPEC.numbers(math.nan, 365 * DAY)[2] == pytest.approx(1.0)


def test_gaps_keep_their_order() -> None:
    gaps = [SPEC.numbers(math.nan, gap)[2] for gap in (0, 1, 1000, DAY, 30 * DAY, 3650 * DAY)]
    assert gaps == sorted(set(gaps))


@given(st.one_of(st.just(math.nan), st.floats(0.5, 5.0)), st.integers(-1, 253_402_300_799_999))
def test_numbers_are_finite_and_small(value: float, gap_ms: int) -> None:
    numbers = SPEC.numbers(value, gap_ms)
    assert len(numbers) == NUMBERS
    assert all(-1.0 <= number <= 2.0 for number in numbers)
