"""Folds without one event are, bit for bit, what a worker would have without that event."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from stream.catalogue.catalogue import Snapshot
from stream.core import state as interest
from stream.core.fold import UserBatch, advance, apply_events
from stream.core.leave_one_out import Folds, effects, past_of, remembered
from stream.core.messages import NAN, SourceEvent
from stream.gateway.items import ItemCatalogue
from stream.inference.bundle import Bundle, current, load
from stream.inference.models import Models, open_models

TOPICS = ("clicks", "ratings", "comments")


@pytest.fixture(scope="module")
def bundle(bundles: Path) -> Bundle:
    return load(current(bundles))


@pytest.fixture(scope="module")
def models(bundle: Bundle) -> Models:
    return open_models(bundle, "cpu")


@pytest.fixture(scope="module")
def snapshot(bundle: Bundle) -> Snapshot:
    return ItemCatalogue(bundle, lambda texts: np.zeros((len(texts), bundle.item_dim), np.float32)).snapshot


def event(number: int, behaviour: int, item: int, time: int) -> SourceEvent:
    value = NAN if behaviour == 0 else 0.5 + item % 10 / 2
    scene = "home" if item % 3 else ""
    return SourceEvent(behaviour, 0, number, 0, b"ann", f"item-{item}", 1000 * time, value, scene, "", "", b"{}")


EVENTS = st.lists(
    st.tuples(st.integers(0, 1), st.integers(1, 52), st.integers(0, 9)), min_size=0, max_size=9
).map(lambda drawn: [event(number, *one) for number, one in enumerate(drawn)])  # fmt: skip


def folded(events: list[SourceEvent], bundle: Bundle, models: Models, snapshot: Snapshot) -> UserBatch:
    user = apply_events(b"ann", 0, None, events, TOPICS, bundle.state_model, bundle.hidden)
    advance([user], models, snapshot, bundle.spec)
    return user


@given(events=EVENTS)
@settings(max_examples=40, deadline=None)
def test_each_fold_is_that_of_the_other_events(
    bundle: Bundle, models: Models, snapshot: Snapshot, events: list[SourceEvent]
) -> None:
    user = folded(events, bundle, models, snapshot)
    record = interest.encode(user.state)
    past = remembered(interest.decode(record))
    folds = Folds(past, models, snapshot, bundle.spec, bundle.hidden)
    before = models.ended
    while folds.step(4):
        pass
    assert models.ended - before == len(events)  # one call for each event, whatever is left out
    assert np.array_equal(folds.states[0], user.state.h)
    for left_out in range(len(events)):
        others = [one for index, one in enumerate(events) if index != left_out]
        assert np.array_equal(folds.states[1 + left_out], folded(others, bundle, models, snapshot).state.h), left_out


def test_a_session_keeps_its_comments_texts(bundle: Bundle, models: Models, snapshot: Snapshot) -> None:
    vector = np.full(bundle.text_dim, 0.05, np.float32)
    events = [event(0, 0, 3, 1), event(1, 2, 4, 2), event(2, 1, 5, 3)]
    events[1].vector = vector
    user = folded(events, bundle, models, snapshot)
    past = past_of(user)
    assert [one.item for one in past] == ["item-3", "item-4", "item-5"]
    assert past[1].vector is vector
    folds = Folds(past, models, snapshot, bundle.spec, bundle.hidden)
    while folds.step(8):
        pass
    assert np.array_equal(folds.states[0], user.state.h)
    without = Folds(remembered(user.state), models, snapshot, bundle.spec, bundle.hidden)
    while without.step(8):
        pass
    assert not np.array_equal(without.states[0], user.state.h)


def test_only_the_last_64_events_are_folded_again(bundle: Bundle, models: Models, snapshot: Snapshot) -> None:
    events = [event(number, 0, 1 + number % 50, number) for number in range(70)]
    user = apply_events(b"ann", 0, None, (), TOPICS, bundle.state_model, bundle.hidden)
    for first in range(0, len(events), 10):
        record = interest.encode(user.state) if first else None
        some = events[first : first + 10]
        user = apply_events(b"ann", 0, record, some, TOPICS, bundle.state_model, bundle.hidden)
        advance([user], models, snapshot, bundle.spec)
    assert [one.item for one in past_of(user)] == [one.item for one in events[6:]]
    again = apply_events(b"ann", 0, interest.encode(user.state), (), TOPICS, bundle.state_model, bundle.hidden)
    assert [one.item for one in past_of(again)] == [one.item for one in events[6:]]


def test_effects_are_what_a_fold_lacks_without_the_event() -> None:
    folds = np.array([[3.0, 1.0], [1.0, 2.0], [3.0, 0.0]], np.float32)
    assert effects(folds).tolist() == [[2.0, -1.0], [0.0, 1.0]]
