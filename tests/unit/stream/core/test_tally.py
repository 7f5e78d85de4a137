"""The sums of a tally: right by hand, the same in any order of users and partitions, exact to the unit when subtracted."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from stream.core.tally import (
    BITS,
    MOST_AHEAD,
    STEPS,
    Changes,
    ForwardDecay,
    PairShape,
    Tally,
    UserChoices,
    tally_of,
    whole_weight,
)

DAY = 86_400_000
ONE = 1 << BITS
PLAIN = ForwardDecay()
YEARLY = ForwardDecay(1_500_000_000_000, 365 * DAY)
Choice = tuple[str, int, float]

choices = st.lists(
    st.tuples(
        st.sampled_from("abcde"),
        st.integers(YEARLY.landmark - 3000 * DAY, YEARLY.landmark + 3000 * DAY),
        st.sampled_from([0.5, 1.0, 3.0]),
    ),
    max_size=14,
)


def changes_of(history: list[Choice], shape: PairShape = PairShape(), decay: ForwardDecay = YEARLY) -> list[Changes]:  # noqa: B008
    user = UserChoices(shape, decay)
    return [user.choose(*choice) for choice in history]


def test_pairs_and_counts_are_right_by_hand() -> None:
    tally = tally_of([[(item, 0, 1.0) for item in "abc"], [("a", 5, 1.0), ("b", 9, 1.0)]], PairShape(2, 0.5), PLAIN)
    assert tally.count == {"a": 2 * ONE, "b": 2 * ONE, "c": ONE}
    assert tally.ahead == {"a": {"b": 2 * ONE, "c": ONE // 2}, "b": {"c": ONE}}
    assert tally.behind == {"b": {"a": 2 * ONE}, "c": {"a": ONE // 2, "b": ONE}}
    near = tally.near("b", back=0.25, shrink=1.0, fresh=ONE)
    assert near == pytest.approx({"c": 1 / (2**0.5 + 1), "a": 0.25 * 2 / (2 + 1)})


def test_a_choice_counts_by_the_weight_of_its_action() -> None:
    tally = tally_of([[("a", 0, 2.0), ("b", 0, 3.0)]], PairShape(), PLAIN)
    assert tally.count == {"a": 2 * ONE, "b": 3 * ONE}
    assert tally.ahead["a"]["b"] / ONE == pytest.approx(6**0.5, rel=1e-3)
    assert whole_weight(1e-9) == 1


def test_a_half_life_halves() -> None:
    at = YEARLY.landmark
    assert YEARLY.weight(at) == ONE
    assert YEARLY.weight(at + 3 * 365 * DAY) == 8 * ONE
    assert YEARLY.weight(at - 365 * DAY) == ONE // 2
    assert YEARLY.weight(at - 30 * 365 * DAY) == 0  # more than BITS half-lives earlier
    assert YEARLY.weight(at + 100 * 365 * DAY) == ONE << 100  # Python's integers do not overflow


@given(st.integers(-20 * 365 * DAY, 20 * 365 * DAY))
def test_weights_are_close_to_the_power_of_two_and_never_fall(past: int) -> None:
    time = YEARLY.landmark + past
    exact = ONE * 2 ** (past / YEARLY.half_life)
    lowest = exact * (1 - math.log(2) / STEPS - 2 / ONE)  # the last step, and that the powers are rounded down
    assert lowest - 2 <= YEARLY.weight(time) <= exact + 1e-6 * exact
    assert YEARLY.weight(time) <= YEARLY.weight(time + DAY)
    assert YEARLY.weights(np.array([time]))[0] == YEARLY.weight(time)


def test_arrays_say_where_int64_ends() -> None:
    last = YEARLY.landmark + MOST_AHEAD * YEARLY.half_life - 1
    assert YEARLY.weights(np.array([last]))[0] == YEARLY.weight(last)
    with pytest.raises(OverflowError, match="half-lives after the landmark"):
        YEARLY.weights(np.array([last + 1]))


@settings(max_examples=60)
@given(st.lists(choices, min_size=1, max_size=4), st.randoms(use_true_random=False))
def test_no_order_of_users_or_partitions_changes_a_sum(users: list[list[Choice]], chance: object) -> None:
    whole = tally_of(users, PairShape(4), YEARLY)
    mixed = [change for history in users for change in changes_of(history, PairShape(4))]
    chance.shuffle(mixed)  # type: ignore[attr-defined]
    parts = [Tally(), Tally(), Tally()]
    for number, change in enumerate(mixed):
        parts[number % 3].add(change)
    merged = Tally()
    for part in parts[::-1]:
        merged.merge(part)
    assert merged == whole


@settings(max_examples=60)
@given(st.lists(choices, min_size=1, max_size=4))
def test_a_user_is_subtracted_to_the_unit(users: list[list[Choice]]) -> None:
    tally = tally_of(users, PairShape(4), YEARLY)
    for change in changes_of(users[0], PairShape(4)):
        tally.add(change, -1)
    assert tally == tally_of(users[1:], PairShape(4), YEARLY)


def test_a_late_choice_weighs_what_it_would_have_weighed_and_moves_no_other() -> None:
    at = YEARLY.landmark
    early, late = ("a", at - 365 * DAY, 1.0), ("z", at + 365 * DAY, 1.0)
    in_time = tally_of([[early], [late]], PairShape(), YEARLY)
    too_late = tally_of([[late], [early]], PairShape(), YEARLY)
    assert in_time == too_late
    assert in_time.count == {"a": ONE // 2, "z": 2 * ONE}
    user = changes_of([late, early])  # the late choice of the same user makes a pair of its own small weight
    assert user[1].pairs[0].amount == ONE // 2


def test_one_user_counts_in_a_pair_at_most_cap_times() -> None:
    alternating = [(item, 0, 1.0) for item in "ab" * 50]
    tally = tally_of([alternating, [("a", 0, 1.0), ("b", 0, 1.0)]], PairShape(cap=3), PLAIN)
    assert tally.ahead["a"]["b"] == 4 * ONE
    assert tally.count["a"] == 51 * ONE
    newer = tally_of([[("a", 0, 1.0), ("b", 0, 1.0), ("b", DAY, 1.0)]], PairShape(2, 1.0, cap=1), ForwardDecay(0, DAY))
    assert newer.ahead["a"]["b"] == 2 * ONE  # the greatest, which is the newest


def test_a_moved_landmark_divides_every_sum() -> None:
    tally = tally_of([[("a", YEARLY.landmark, 1.0), ("b", YEARLY.landmark, 1.0)]], PairShape(), YEARLY)
    moved = tally.moved(3)
    assert moved.count == {"a": ONE // 8, "b": ONE // 8}
    later = ForwardDecay(YEARLY.landmark + 3 * YEARLY.half_life, YEARLY.half_life)
    assert moved == tally_of([[("a", YEARLY.landmark, 1.0), ("b", YEARLY.landmark, 1.0)]], PairShape(), later)
    assert tally.moved(40) == Tally()  # what has become 0 is absent
