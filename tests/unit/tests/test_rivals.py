"""The verdict on rivals: losses and doubles are counted event by event, so that they do not cancel each other."""

from __future__ import annotations

import pytest

from tests.chaos import outcomes
from tests.chaos.outcomes import Rival
from tests.rivals import quix, stock
from tests.rivals.setup import Setup, number, parse, take
from tests.rivals.verdict import Verdict, verdict_of


def all_shown(sent: dict[str, int]) -> set[tuple[str, int]]:
    return {(user, n) for user, count in sent.items() for n in range(count)}


@pytest.mark.parametrize(
    ("applied", "expected"),
    [
        ({"a": [1, 1, 1], "b": [1, 1]}, Verdict()),
        ({"a": [1, 2, 1], "b": [1, 1]}, Verdict(double=1, users_wrong=1)),
        ({"a": [1, 0, 1], "b": [1, 1]}, Verdict(lost=1, users_wrong=1)),
        ({"a": [1, 1, 1], "b": [1]}, Verdict(lost=1, users_wrong=1)),  # the last one, never applied
        ({"a": [1, 0, 2], "b": [1, 1]}, Verdict(lost=1, double=1, users_wrong=1)),  # the sum is right, the state is not
        ({"a": [0, 1, 1], "b": [3, 1]}, Verdict(lost=1, double=2, users_wrong=2)),
        ({"a": [1, 1, 1]}, Verdict(lost=2, users_wrong=1)),
        ({"a": [1, 1, 1, 1], "b": [1, 1]}, Verdict(double=1, users_wrong=1)),  # what nobody sent
        ({"a": [1, 1, 1], "b": [1, 1], "c": [1]}, Verdict(double=1, users_wrong=1)),
    ],
)
def test_lost_and_double(applied: dict[str, list[int]], expected: Verdict) -> None:
    sent = {"a": 3, "b": 2}
    assert verdict_of(sent, applied, all_shown(sent)) == expected


def test_an_event_that_no_output_names_is_unshown() -> None:
    sent = {"a": 3}
    assert verdict_of(sent, {"a": [1, 1, 1]}, {("a", 0), ("a", 2), ("z", 1)}) == Verdict(unshown=1)


def test_the_state_counts_every_event_number_apart() -> None:
    counts: list[int] = []
    for event in (0, 1, 3, 1):
        counts = take(counts, event)
    assert counts == [1, 2, 0, 1]
    assert number("user-7-12") == 12


def test_keys_of_changelogs_name_their_user() -> None:
    assert stock.user_of(b'"user7"') == "user7"
    assert quix.user_of(b'user7|"applied"') == quix.user_of(b'"user7"|"applied"') == "user7"


def test_a_setup_survives_the_command_line() -> None:
    setup = Setup("127.0.0.1:1", "g", "s", "o", "folder", 2, "at-least-once", 3.0, 0.5, 5.0)
    assert parse(setup.text()) == setup


def test_rivals_are_recorded_beside_the_outcomes(tmp_path: object, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CHAOS_OUTCOMES", str(tmp_path))
    rival = Rival("x", "1", "none", 1, 10, 2, 1, 0, 3, 4, 5, 6, 2, 1.5, 20.0)
    outcomes.record(rival)
    assert list(outcomes.read(outcomes.file("reliability"))) == []
    assert list(outcomes.read_rivals(outcomes.file("rivals"))) == [rival]
