"""What the tally counts: the same sums in any order of arrival, exact subtraction, and the sums of stream.core.tally."""

from __future__ import annotations

import random
from collections.abc import Sequence
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from stream.core.errors import StateError
from stream.core.messages import CLICK, COMMENT, NAN, RATING, SourceEvent
from stream.core.tables import HISTORY
from stream.core.tally import ForwardDecay, PairShape, tally_of
from stream.tally.counting import Choice, Sums, TableShape, amounts, change, count, decode
from stream.tally.epoch import TableSettings, close

DAY = 86_400_000
SHAPE = TableShape(
    ForwardDecay(0, 30 * DAY), ForwardDecay(0, 7 * DAY), PairShape(3, 0.8, 2), frozenset((0, 1, 2)),
    {"view": 0.5, "skip": -1.0, "like": 2.0},
)  # fmt: skip


def event(user: str, item: str, time: int, behaviour: int = CLICK, offset: int = 0, **more: Any) -> SourceEvent:
    values: dict[str, Any] = {
        "value": 3.0 if behaviour else NAN,
        "scene": "",
        "text": "",
        "id": "",
        "payload": b"",
    } | more
    return SourceEvent(behaviour, 0, offset, time, user.encode(), item, time, **values)


def forget(user: str, behaviour: int, offset: int) -> SourceEvent:
    return event(user, "", 0, behaviour, offset, forget=True)


class Counter:
    """Sums with users' records in a dict."""

    def __init__(self, shape: TableShape = SHAPE) -> None:
        self.sums, self.users, self.shape = Sums(), dict[bytes, bytes](), shape

    def take(self, events: Sequence[SourceEvent]) -> Counter:
        changed = count(self.sums, self.shape, events, lambda users: [self.users.get(user) for user in users])
        for user, record in changed.users.items():
            if record is None:
                self.users.pop(user, None)
            else:
                self.users[user] = record
        return self

    def hash(self) -> str:
        return close(self.sums, TableSettings(self.shape, 0.5, 5.0, 100, "b"), {}, 1, 0).closed.hash


def interleaved(queues: dict[Any, list[SourceEvent]], draw: random.Random) -> list[SourceEvent]:
    """The events of all queues, each queue in its order."""
    left, out = {name: list(queue) for name, queue in queues.items()}, []
    while left:
        name = draw.choice(sorted(left))
        out.append(left[name].pop(0))
        if not left[name]:
            del left[name]
    return out


def in_parts(events: list[SourceEvent], draw: random.Random) -> Counter:
    counter = Counter()
    while events:
        size = draw.randrange(1, 40)
        counter.take(events[:size])
        events = events[size:]
    return counter


@settings(max_examples=60, deadline=None)
@given(seed=st.integers(0, 10**9), events=st.integers(1, 400), forgets=st.booleans())
def test_the_order_of_arrival_does_not_matter(seed: int, events: int, forgets: bool) -> None:
    draw = random.Random(seed)
    queues: dict[Any, list[SourceEvent]] = {}
    for number in range(events):
        user, topic = draw.choice("uvw"), draw.choice((CLICK, CLICK, CLICK, RATING, COMMENT))
        if forgets and draw.random() < 0.02:
            made = forget(user, topic, number)
        else:
            action = draw.choice(("", "view", "skip", "like", "other")) if topic == CLICK else ""
            identity = draw.choice(("", "", "a", "b", str(number)))
            made = event(
                user, draw.choice("abcdef"), draw.randrange(90 * DAY), topic, number, action=action, id=identity
            )
        queues.setdefault(topic, []).append(made)
    first, second = (in_parts(interleaved(queues, draw), draw) for _ in range(2))
    assert first.hash() == second.hash()
    assert first.sums == second.sums
    assert first.users == second.users


@settings(max_examples=60, deadline=None)
@given(seed=st.integers(0, 10**9), choices=st.integers(0, 150))
def test_what_is_subtracted_was_never_added(seed: int, choices: int) -> None:
    draw = random.Random(seed)
    rest = [event("v", draw.choice("abcd"), draw.randrange(90 * DAY), CLICK, at) for at in range(40)]
    mine = [
        event("u", draw.choice("abcd"), draw.randrange(90 * DAY), CLICK, 100 + at)
        for at in range(min(choices, HISTORY))
    ]
    found = Counter().take(rest).take(mine).take([forget("u", CLICK, 999)])
    assert found.sums.items == Counter().take(rest).sums.items
    assert found.sums.ahead == Counter().take(rest).sums.ahead
    assert b"u" not in found.users


def test_counts_are_those_of_the_tally() -> None:
    draw = random.Random(5)
    users = {
        user: [(draw.choice("abcdefgh"), at * DAY // 3, draw.choice((0.5, 1.0, 2.0))) for at in range(HISTORY)]
        for user in "uvwx"
    }
    names = {0.5: "view", 1.0: "", 2.0: "like"}
    events = [
        event(user, item, time, CLICK, at, action=names[weight])
        for user, choices in users.items() for at, (item, time, weight) in enumerate(choices)
    ]  # fmt: skip
    draw.shuffle(events)
    counter = in_parts(sorted(events, key=lambda one: one.offset), draw)
    expected = tally_of(users.values(), SHAPE.pairs, SHAPE.near)
    assert {item: sums.amount for item, sums in counter.sums.items.items()} == expected.count
    assert counter.sums.ahead == expected.ahead
    assert sum(sums.touched for sums in counter.sums.items.values()) == 4 * HISTORY
    assert counter.sums.now == (HISTORY - 1) * DAY // 3


@settings(max_examples=100, deadline=None)
@given(seed=st.integers(0, 10**9))
def test_a_change_is_the_difference_of_all_pairs(seed: int) -> None:
    draw = random.Random(seed)
    made = sorted(
        Choice(draw.randrange(9 * DAY), 0, at, draw.choice("abcd"), draw.choice((0.5, 1.0)))
        for at in range(draw.randrange(30))
    )
    cut, end = draw.randrange(31), draw.randrange(31)
    before, after = made[: max(cut, end)], made[min(cut, end) :]
    if draw.random() < 0.3 and after:
        after = sorted([*after, Choice(draw.randrange(9 * DAY), 1, 0, "e", 1.0)])
    every = {(first, second): None for first in "abcde" for second in "abcde" if first != second}
    old, new = (amounts(some, every, SHAPE.pairs, SHAPE.near) for some in (before, after))
    expected = {pair: new[pair] - old[pair] for pair in every if new[pair] != old[pair]}
    assert change(before, after, SHAPE.pairs, SHAPE.near) == expected


def test_pairs_are_of_the_newest_choices_and_counts_of_all() -> None:
    old = [event("u", "old", at, CLICK, at) for at in range(10)]
    new = [event("u", f"i{at % 7}", 100 + at, CLICK, 100 + at) for at in range(HISTORY)]
    found = Counter().take(old).take(new)
    assert found.sums.items["old"].touched == 10
    assert "old" not in found.sums.ahead
    assert found.sums == Counter().take(new).take([event("u", "old", at, CLICK, 900 + at) for at in range(10)]).sums


@pytest.mark.parametrize(
    ("made", "choices"),
    [
        (event("u", "a", 5, CLICK, action="skip"), 0),
        (event("u", "a", 5, COMMENT, value=NAN), 0),
        (event("u", "a", 5, COMMENT), 1),
        (event("u", "a", 5, RATING), 1),
        (event("u", "a", 5, CLICK, action="unheard"), 1),
    ],
)
def test_what_is_a_choice(made: SourceEvent, choices: int) -> None:
    counter = Counter().take([made])
    assert sum(sums.touched for sums in counter.sums.items.values()) == choices
    assert counter.sums.now == 5


def test_an_id_that_repeats_counts_once() -> None:
    counter = Counter()
    first = count(
        counter.sums, SHAPE, [event("u", "a", 5, id="x"), event("u", "b", 6, id="x", offset=1)], lambda users: [None]
    )
    assert (first.events, first.choices, first.repeated) == (1, 1, 1)
    assert set(counter.sums.items) == {"a"}


def test_a_record_that_is_damaged_names_its_user() -> None:
    with pytest.raises(StateError, match="'ann'"):
        decode(b"ann", b"\xc1")
