"""Explanations of answers, over a real exported bundle: the parts of each score sum to it."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from msgspec import UNSET

from stream.core import state as interest
from stream.core.diversity import Diversity, Items, gains, reranked
from stream.core.errors import StateError
from stream.core.explanations import MOST_EVENTS, Explanation
from stream.core.fold import PLAIN, UserBatch, advance, apply_events, rank
from stream.core.messages import NAN, Scored, SourceEvent
from stream.core.rules import NO_RULES, RuleBook, RuleSet
from stream.core.ruling import Ruling, Selections
from stream.gateway.items import ItemCatalogue
from stream.inference.bundle import Bundle, current, load
from stream.inference.explainer import Answered, Explainer, explain_popular
from stream.inference.models import Models, open_models

TOPICS = ("clicks", "ratings", "comments")


class World(NamedTuple):
    bundle: Bundle
    models: Models
    catalogue: ItemCatalogue
    explainer: Explainer

    def user(self, events: Sequence[SourceEvent]) -> UserBatch:
        user = apply_events(b"ann", 0, None, events, TOPICS, self.bundle.state_model, self.bundle.hidden)
        advance([user], self.models, self.catalogue.snapshot, self.bundle.spec)
        if not user.state.seq:
            return user
        record = interest.encode(user.state)
        return apply_events(b"ann", 0, record, (), TOPICS, self.bundle.state_model, self.bundle.hidden)

    def title(self, item: str) -> str:
        message = self.catalogue.message(item)
        return message.title if message else ""

    def answered(
        self,
        user: UserBatch,
        k: int = 10,
        rules: RuleSet = NO_RULES,
        diversity: Diversity = PLAIN,
        filter_seen: bool = True,
    ) -> Answered:
        ruling = Ruling(rules, None, 5000, Selections()) if rules.rules else None
        snapshot = self.catalogue.snapshot
        items = rank(
            [user], self.models, snapshot, k, filter_seen=filter_seen, ruling=ruling, diversity=diversity
        )[0]  # fmt: skip
        return Answered(user, items, snapshot, k, filter_seen, ruling, diversity, self.title)

    def explain(self, answered: Answered) -> list[Explanation]:
        job = self.explainer.begin(answered)
        while job.step():
            pass
        return job.explanations


@pytest.fixture(scope="module", params=["", "texts"])
def world(request: pytest.FixtureRequest, bundles: Path, text_bundle: Path) -> World:
    """A bundle without a text term, and one with it."""
    bundle = load(text_bundle if request.param else current(bundles))
    models = open_models(bundle, "cpu")
    generator = np.random.default_rng(9)

    def vectors(texts: list[str]) -> Any:
        return generator.normal(scale=bundle.items.std(), size=(len(texts), bundle.score_items.shape[1])).astype(
            np.float32
        )

    catalogue = ItemCatalogue(bundle, vectors)
    catalogue.apply([(n, *item(n)) for n in range(1, 56)])  # the last five came after training
    return World(bundle, models, catalogue, Explainer(bundle, models))


def item(number: int) -> tuple[bytes, bytes]:
    name = f"item-{number}"
    value = {"item": name, "title": f"Title {number}" if number % 4 else "", "categories": [f"c{number % 5}"]}
    return name.encode(), json.dumps(value).encode()


def event(number: int, behaviour: int, item: int, action: str = "") -> SourceEvent:
    value = 0.5 + item % 10 / 2 if behaviour == 1 or (behaviour == 2 and item % 2) else NAN
    return SourceEvent(
        behaviour, 0, number, 0, b"ann", f"item-{item}", 1000 * number, value, "home" if item % 3 else "", "", "", b"{}",
        action="" if behaviour else action,
    )  # fmt: skip


def rules(*some: dict[str, Any]) -> RuleSet:
    book = RuleBook("utf8")
    refused = book.apply([(n, one["rule"].encode(), json.dumps(one).encode()) for n, one in enumerate(some)])
    assert not refused
    return book.current


TOYS = {"rule": "toys", "kind": "boost", "filter": {"category": "c3"}, "factor": 3.0}
LESS = {"rule": "less", "kind": "boost", "filter": {"category": ["c3", "c1"]}, "factor": 0.5}
STAR = {"rule": "star", "kind": "pin", "item": "item-41", "place": 1}
GONE = {"rule": "gone", "kind": "block", "filter": {"item": "item-2"}}
MIXED = {"rule": "mixed", "kind": "cap", "most": 2}


def sums_up(scored: Scored, explanation: Explanation) -> None:
    parts = explanation.parts
    whole = parts.interest + parts.neighbours + parts.text + parts.popularity + parts.rules
    assert whole == pytest.approx(scored.score, abs=1e-4)
    assert sum(one.part for one in explanation.neighbours) == pytest.approx(parts.neighbours, abs=1e-4)
    assert sum(one.part for one in explanation.texts) == pytest.approx(parts.text, abs=1e-4)
    pinned = 0.0 if explanation.pin is UNSET else explanation.pin.part
    assert sum(one.part for one in explanation.boosts) + pinned == pytest.approx(parts.rules, abs=1e-4)


@given(
    drawn=st.lists(
        st.tuples(st.integers(0, 2), st.integers(1, 58), st.sampled_from(["", "purchase", "skip", "share"])),
        min_size=1,
        max_size=70,
    ),
    some=st.lists(st.sampled_from([TOYS, LESS, STAR, GONE, MIXED]), unique_by=id),
    strength=st.sampled_from([0.0, 0.5, 1.0]),
    k=st.sampled_from([1, 10, 55]),
)
@settings(max_examples=40, deadline=None)
def test_parts_sum_to_the_score(
    world: World, drawn: list[tuple[int, int, str]], some: list[dict[str, Any]], strength: float, k: int
) -> None:
    user = world.user([event(number, *one) for number, one in enumerate(drawn)])
    diversity = Diversity(strength, 20)
    answered = world.answered(user, k, rules(*some), diversity)
    found = world.explain(answered)
    assert len(found) == len(answered.items)
    for at, (scored, explanation) in enumerate(zip(answered.items, found, strict=True)):
        sums_up(scored, explanation)
        assert explanation.text
        assert len(explanation.events) <= MOST_EVENTS
        assert explanation.trained == (int(scored.item.removeprefix("item-")) <= 50)
        pinned = explanation.pin is not UNSET
        assert strength == 0 or pinned or some or explanation.diversity is not UNSET
        assert strength > 0 or explanation.diversity is UNSET
        if explanation.diversity is not UNSET:
            assert explanation.diversity.after == at


def test_the_events_that_moved_an_item_most_come_first(world: World) -> None:
    user = world.user([event(n, n % 2, 1 + n) for n in range(20)])
    found = world.explain(world.answered(user))[0]
    assert len(found.events) == MOST_EVENTS
    sizes = [abs(one.moved) for one in found.events]
    assert sizes == sorted(sizes, reverse=True)
    newest = max(found.events, key=lambda one: one.time)
    assert (newest.type, newest.item, newest.value) == ("rating", "item-20", 0.5)
    assert found.earlier == pytest.approx(0.0, abs=1e-6)
    titled = next(one for one in found.events if one.item != "item-4" and one.item[-1] in "1357")
    assert titled.title == f"Title {titled.item.removeprefix('item-')}"
    shown = world.catalogue.snapshot
    near = [(one.item, one.age) for one in found.neighbours]
    assert all(shown.row(name) for name, _ in near)
    assert all(age < world.bundle.blend.last for _, age in near)


def test_what_more_than_64_events_give_is_earlier(world: World) -> None:
    user = apply_events(b"ann", 0, None, (), TOPICS, world.bundle.state_model, world.bundle.hidden)
    for first in range(0, 80, 20):
        record = interest.encode(user.state) if first else None
        some = [event(n, 0, 1 + n % 3) for n in range(first, first + 20)]
        user = apply_events(b"ann", 0, record, some, TOPICS, world.bundle.state_model, world.bundle.hidden)
        advance([user], world.models, world.catalogue.snapshot, world.bundle.spec)
    user.state.h = user.state.h + np.float16(0.25)  # as a long history would
    answered = world.answered(user)
    for scored, explanation in zip(answered.items, world.explain(answered), strict=True):
        sums_up(scored, explanation)
        assert abs(explanation.earlier) > 1e-3


def test_rules_are_named(world: World) -> None:
    user = world.user([event(n, 0, 1 + n) for n in range(5)])
    answered = world.answered(user, 10, rules(TOYS, STAR))
    found = dict(zip((one.item for one in answered.items), world.explain(answered), strict=True))
    star = found["item-41"]
    assert star.pin is not UNSET
    assert (star.pin.rule, star.pin.place) == ("star", 1)
    assert "rule star puts it at place 2" in star.text
    toy = next(one for name, one in found.items() if int(name[5:]) % 5 == 3 and name != "item-41")
    assert [(one.rule, one.factor, one.part) for one in toy.boosts] == [("toys", 3.0, 1.098612)]
    assert "rule toys multiplies its odds by 3" in toy.text


def test_places_before_and_after_the_re_ranking(world: World) -> None:
    user = world.user([event(n, 0, 1 + n) for n in range(5)])
    diversity = Diversity(0.8, 30)
    by_score = [one.item for one in world.answered(user, 30).items]
    answered = world.answered(user, 10, diversity=diversity)
    places = []
    for at, (scored, explanation) in enumerate(zip(answered.items, world.explain(answered), strict=True)):
        moved = explanation.diversity
        assert moved is not UNSET
        assert (moved.strength, moved.before, moved.after) == (0.8, by_score.index(scored.item), at)
        places.append((moved.before, at))
    assert places != [(at, at) for at in range(10)]


def test_the_item_that_is_taken_has_the_largest_quality_and_gain() -> None:
    generator = np.random.default_rng(4)
    scores = -np.sort(-generator.normal(size=(1, 12))).astype(np.float32)
    items = Items(
        generator.normal(size=(1, 12, 8)).astype(np.float32), generator.integers(0, 4, (1, 12, 1)).astype(np.int32),
        generator.integers(1, 4, (6, 1)).astype(np.int32), np.zeros(6, np.int64),
    )  # fmt: skip
    taken = reranked(scores, items, 0.6, 5)[0]
    for place in range(5):
        worth = {}
        for one in set(range(12)) - set(taken[:place].tolist()):
            found = gains(scores, items, 0.6, np.array([*taken[:place], one]))
            worth[one] = found.quality[-1] + found.gain[-1]
        assert max(worth, key=lambda one: worth[one]) == taken[place]


def test_items_by_popularity(world: World) -> None:
    nobody = world.user(())
    popular = [Scored("item-1", 1000.0), Scored("item-53", 0.0)]
    plain = Answered(nobody, popular, world.catalogue.snapshot, 10, False, None, PLAIN, world.title)
    found = explain_popular(plain, world.bundle.popularity)
    assert [one.text for one in found] == [
        "because it is popular: 1,000 interactions in training", "because it is popular: 0 interactions in training",
    ]  # fmt: skip
    assert [one.trained for one in found] == [True, False]
    ruling = Ruling(rules(TOYS, LESS, STAR), None, 5000, Selections())
    ruled = Answered(
        nobody, [Scored("item-3", 500.0), Scored("item-41", 500.0)], world.catalogue.snapshot, 10, False, ruling, PLAIN,
        world.title,
    )  # fmt: skip
    third, star = explain_popular(ruled, world.bundle.popularity)
    sums_up(Scored("item-3", 500.0), third)
    assert [one.part for one in third.boosts] == pytest.approx([666.666667, -500.0], abs=1e-3)
    assert star.pin is not UNSET
    sums_up(Scored("item-41", 500.0), star)


def test_a_fold_that_is_not_finite_is_refused(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    answered = world.answered(world.user([event(0, 0, 1), event(1, 0, 2)]))

    def broken(rows: Any, h: Any, c: Any) -> tuple[Any, Any]:
        return h * np.float16(np.nan), c

    monkeypatch.setattr(world.models, "step", broken)
    with pytest.raises(StateError, match="not finite"):
        world.explain(answered)
