"""Slates are judged by the choices that follow them, and by those alone."""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from prometheus_client import generate_latest

from stream.core.fold import UserBatch, apply_events
from stream.core.forgetting import control
from stream.core.messages import CLICK, COMMENT, NAN, RATING, SOURCE_TOPICS, SourceEvent
from stream.core.prequential import AGAIN, FRESHET, KNOWN, NEW, POPULARITY, Gains, Place
from stream.core.state import encode
from stream.kafka.standing_slates import Shown, Slot, StandingSlates
from stream.observability.metrics import BatchFigures, Metrics
from stream.pipeline.prequential import MOST, Prequential
from tests.stores import plain_store

ANN = b"ann"
MODEL, HIDDEN = bytes(16), 4
NAMES = ("", "a", "b", "c", "d", "e", "late")  # `late` came after training
COUNTS = np.array([0, 50, 40, 30, 20, 10], np.float32)
SIZE = 2


def catalogue(live: str = "abcde") -> Any:
    bias = [0.0 if name in (*live, "late") else -math.inf for name in NAMES]
    return SimpleNamespace(
        bias=np.array(bias, np.float32),
        row=lambda item: NAMES.index(item) if item in NAMES else 0,
        item=NAMES.__getitem__,
    )


@pytest.fixture
def standing(tmp_path: Path) -> StandingSlates:
    store = plain_store(tmp_path / "store", "changelog")
    store.prepare(0)
    found = StandingSlates(store)
    found.begin([0])
    found.aim(0, 0)
    assert found.caught_up(0)
    return found


@pytest.fixture
def judge(standing: StandingSlates) -> Prequential:
    return Prequential(standing, "", SIZE, COUNTS, frozenset((CLICK, RATING, COMMENT)), frozenset(("skip",)))


def event(item: str, offset: int, user: bytes = ANN, behaviour: int = CLICK, **more: Any) -> SourceEvent:
    fields: dict[str, Any] = {"value": NAN, "scene": "", "text": "", "id": "", "payload": b"{}"} | more
    return SourceEvent(behaviour, 0, offset, 1000 + offset, user, item, 1000 + offset, **fields)


def folded(events: Sequence[SourceEvent], before: Sequence[SourceEvent] = ()) -> UserBatch:
    """One user's batch; the events `before` were folded earlier."""
    user = events[0].user
    record = encode(apply_events(user, 0, None, before, SOURCE_TOPICS, MODEL, HIDDEN).state) if before else None
    return apply_events(user, 0, record, events, SOURCE_TOPICS, MODEL, HIDDEN)


def given(standing: StandingSlates, user: bytes, *items: str, placement: str = "") -> None:
    """Let a slate stand."""
    standing.sent(0, [(Slot(user, placement), Shown(1, list(items)))], -1)
    standing.aim(0, 0)
    assert standing.caught_up(0)


def test_a_choice_that_the_slate_showed_is_a_hit_at_its_place(standing: StandingSlates, judge: Prequential) -> None:
    given(standing, ANN, "d", "e")
    gains = judge.judge([folded([event("e", 1)])], catalogue())
    at = Place(FRESHET, CLICK, KNOWN)
    assert gains.choices == {(CLICK, KNOWN): 1}
    assert gains.hits == {at: 1}
    assert gains.gain[at] == pytest.approx(1 / math.log2(3))
    assert gains.reciprocal[at] == 0.5


def test_popularity_is_judged_by_the_same_choices_without_what_was_seen(
    standing: StandingSlates, judge: Prequential
) -> None:
    given(standing, ANN, "d", "e")
    seen = [event("a", 1)]
    gains = judge.judge([folded([event("c", 2)], seen)], catalogue())  # popular without a: b, c
    assert gains.hits == {Place(POPULARITY, CLICK, KNOWN): 1}
    gains = judge.judge([folded([event("c", 2)], seen)], catalogue("acde"))  # b is not live: c, d
    assert gains.reciprocal == {Place(POPULARITY, CLICK, KNOWN): 1.0}


def test_who_has_no_slate_was_shown_the_popular_one(standing: StandingSlates, judge: Prequential) -> None:
    gains = judge.judge([folded([event("a", 1)])], catalogue())
    assert gains.hits == {Place(FRESHET, CLICK, KNOWN): 1, Place(POPULARITY, CLICK, KNOWN): 1}


def test_items_are_told_apart(standing: StandingSlates, judge: Prequential) -> None:
    given(standing, ANN, "late", "d")
    batch = folded([event("late", 2), event("a", 3), event("nobody knows it", 4), event("late", 5)], [event("a", 1)])
    gains = judge.judge([batch], catalogue())
    assert gains.choices == {(CLICK, NEW): 1, (CLICK, AGAIN): 2}
    assert gains.hits == {Place(FRESHET, CLICK, NEW): 1}


def test_what_is_no_choice_does_not_judge(standing: StandingSlates, judge: Prequential) -> None:
    given(standing, ANN, "a", "b")
    events = [event("a", 1, action="skip"), event("b", 2, behaviour=COMMENT, text="?")]
    assert judge.judge([folded(events)], catalogue()) == Gains()
    gains = judge.judge([folded([event("b", 3, behaviour=COMMENT, text="!", value=4.0)])], catalogue())
    assert gains.hits[Place(FRESHET, COMMENT, KNOWN)] == 1


def test_what_was_folded_before_does_not_judge_again(standing: StandingSlates, judge: Prequential) -> None:
    given(standing, ANN, "a", "b")
    once = event("a", 1)
    batch = folded([once, event("b", 2)], [once])
    assert batch.redelivered
    assert judge.judge([batch], catalogue()) == Gains()


def test_who_is_forgotten_does_not_judge_with_the_slate_of_before(standing: StandingSlates, judge: Prequential) -> None:
    given(standing, ANN, "a", "b")
    asked = event("", 2, headers=control(), forget=True)
    assert judge.judge([folded([event("a", 1), asked, event("b", 3)])], catalogue()) == Gains()


def test_a_partition_whose_slates_are_not_read_yet_is_left_out(standing: StandingSlates, judge: Prequential) -> None:
    given(standing, ANN, "a", "b")
    standing.begin([0])
    assert judge.judge([folded([event("a", 1)])], catalogue()) == Gains()


def test_another_placement_is_another_slate(standing: StandingSlates) -> None:
    given(standing, ANN, "d", "e", placement="cart")
    judge = Prequential(standing, "cart", SIZE, COUNTS, frozenset((CLICK,)), frozenset())
    assert judge.judge([folded([event("d", 1)])], catalogue()).hits == {Place(FRESHET, CLICK, KNOWN): 1}


def test_of_a_large_micro_batch_a_part_is_judged(standing: StandingSlates, judge: Prequential) -> None:
    batches = [folded([event("a", number, f"u{number}".encode())]) for number in range(3 * MOST)]
    assert judge.judge(batches, catalogue()).choices == {(CLICK, KNOWN): MOST}


def test_the_metrics_add_up_and_begin_at_zero() -> None:
    metrics = Metrics(SOURCE_TOPICS)
    zero = generate_latest(metrics.registry).decode()
    assert 'freshet_prequential_choices_total{behaviour="click",item="again"} 0.0' in zero
    assert 'freshet_prequential_hits_total{behaviour="rating",item="new",judged="popularity"} 0.0' in zero
    for _ in range(2):
        figures = BatchFigures()
        figures.gains.add(RATING, NEW, ((FRESHET, 0), (POPULARITY, None)))
        metrics.observe_batch(figures)
    found = generate_latest(metrics.registry).decode()
    labels = '{behaviour="rating",item="new",judged="freshet"} 2.0'
    for name in ("hits", "gain", "reciprocal_rank"):
        assert f"freshet_prequential_{name}_total{labels}" in found
    assert 'freshet_prequential_choices_total{behaviour="rating",item="new"} 2.0' in found
