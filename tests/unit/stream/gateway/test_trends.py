"""Items whose interactions grow."""

from __future__ import annotations

import random
from collections import Counter

import numpy as np
import pytest

from stream.core import state as interest
from stream.core.messages import NAN, SourceEvent
from stream.gateway import trends
from stream.gateway.trends import PARTS, Trends

MODEL = bytes(16)


class Clock:
    def __init__(self) -> None:
        self.time = 100.0

    def __call__(self) -> float:
        return self.time


class User:
    """A user's state, and its records as a worker writes them."""

    def __init__(self) -> None:
        self.state = interest.new(MODEL, 4)
        self.state.h = np.zeros(4, np.float16)

    def does(self, *items: str) -> bytes:
        """Fold one event for each item -> the record."""
        self.state.folded.clear()
        for item in items:
            offset = self.state.applied[0] + 1
            event = SourceEvent(0, 0, offset, 0, b"u", item, 1000 + offset, NAN, "", "", "", b"")
            interest.fold(self.state, event, "clicks")
        return interest.encode(self.state)


def test_new_events_count_once_and_old_ones_not_again() -> None:
    clock, ann, bob = Clock(), User(), User()
    found = Trends(60, clock)
    found.add([ann.does("a", "b"), bob.does("b")])
    found.add([ann.does("b", "b")])
    found.add([ann.does(), None, b"damaged"])  # a repeated slate's state, a removed one, one that cannot be read
    assert found.growth() == [("b", 4), ("a", 1)]


def test_the_window_before_is_taken_off() -> None:
    clock, user = Clock(), User()
    found = Trends(60, clock)
    found.add([user.does(*["old"] * 5, "same")])
    clock.time += 61
    found.add([user.does("same", "new", "new", "old")])
    assert found.growth() == [("new", 2)]
    complete = [found.complete]
    clock.time += 61
    assert [*complete, found.complete] == [False, True]
    assert found.growth() == []
    clock.time += 600
    assert found.growth() == []
    found.add([user.does("old")])
    clock.time += trends.KEPT
    assert found.growth() == [("old", 1)]


def test_counts_are_those_of_a_plain_recount() -> None:
    draw, clock, user = random.Random(5), Clock(), User()
    found = Trends(60, clock)
    events: list[tuple[int, str]] = []
    for _ in range(300):
        clock.time += draw.random() * 3
        items = draw.choices("abcdef", k=draw.randrange(4))
        found.add([user.does(*items)])
        part = int((clock.time - 100) * PARTS / 60)
        events += [(part, item) for item in items]
        clock.time += trends.KEPT
        now = int((clock.time - 100) * PARTS / 60)
        late = Counter(item for at, item in events if now - PARTS < at)
        early = Counter(item for at, item in events if now - 2 * PARTS < at <= now - PARTS)
        expected = {item: late[item] - early[item] for item in late if late[item] > early[item]}
        assert dict(found.growth()) == expected
        grown = [count for _, count in found.growth()]
        assert grown == sorted(grown, reverse=True)


def test_memory_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(trends, "MOST_ITEMS", 3)
    clock, user = Clock(), User()
    found = Trends(60, clock)
    found.add([user.does(*(f"item {number}" for number in range(10))), user.does("item 9")])
    assert len(found.growth()) == 3
