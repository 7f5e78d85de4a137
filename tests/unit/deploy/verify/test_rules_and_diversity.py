"""Rules and diversity together: worker, gateway and `freshet verify` show the same slates, whatever is in force.

Verify computes them without code of the worker. So each kind of mistake that a worker could make must be named by it.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import msgspec
import numpy as np
import pytest

from deploy.verify import Report
from deploy.verify.recompute.context import Context
from deploy.verify.recompute.items import Items, LiveItems
from deploy.verify.recompute.rules import RulesThen
from deploy.verify.recompute.sample import SampledUser
from deploy.verify.recompute.slates import Slates
from stream.catalogue.catalogue import Catalogue
from stream.core import state as interest
from stream.core.diversity import Diversity
from stream.core.fold import UserBatch, advance, apply_events
from stream.core.messages import NAN, Scored, SourceEvent
from stream.core.rules import KINDS, RuleBook, RuleSet
from stream.gateway.items import ItemCatalogue
from stream.gateway.scorer import Scorer, Scores
from stream.inference.bundle import Bundle, current, load
from stream.inference.models import Models, open_models
from stream.inference.serving import placements_of, published_of
from stream.pipeline.parts import PipelineParts
from stream.pipeline.pipeline import Pipeline
from stream.settings import DEFAULT_PLACEMENT, Settings
from stream.settings import load as load_settings
from tests.unit.synthetic import NOW, Row

ITEMS = 50
NAMES = tuple(f"item-{n}" for n in range(1, ITEMS + 1))
CATEGORIES = tuple("abcdef")
TOPICS = ("clicks", "ratings", "comments")


@pytest.fixture(scope="module")
def bundle(bundles: Path) -> Bundle:
    return load(current(bundles))


@pytest.fixture(scope="module")
def models(bundle: Bundle) -> Models:
    return open_models(bundle, "cpu")


@dataclass
class Case:
    """A few users, a catalogue, rules, and how slates are re-ranked."""

    settings: Settings
    bundle: Bundle
    models: Models
    records: list[tuple[int, bytes, bytes]]
    rules: RuleSet
    users: list[UserBatch]

    def worker(
        self, rules: RuleSet | None = None, placement: str = DEFAULT_PLACEMENT, **changed: Any
    ) -> list[dict[str, Any]]:
        """The worker's slates of one placement; made under other rules or settings, they still name those of the case."""
        settings = self.settings.model_copy(update=changed)
        catalogue = Catalogue(self.bundle, self._vectors)
        catalogue.apply(self.records)
        applied, named = self._pipeline(settings), self._pipeline(self.settings)
        rules = self.rules if rules is None else rules
        items = applied._rank(self.users, catalogue.snapshot, rules, NOW)
        at = self.settings.published_in_order.index(placement)
        slates = [
            named._slate(user, one[at], catalogue.snapshot, self.rules, NOW, False, named._serving.published[at])
            for user, one in zip(self.users, items, strict=True)
        ]  # fmt: skip
        return [json.loads(msgspec.json.encode(slate)) for slate in slates]

    def gateway(self, placement: str = DEFAULT_PLACEMENT) -> list[list[Scored]]:
        """The items that the gateway answers."""
        catalogue = ItemCatalogue(self.bundle, self._vectors)
        catalogue.apply(self.records)
        bundle, asked = self.bundle, placements_of(self.settings, self.bundle)[placement]
        view = catalogue.view(None, asked.filtered)
        with ThreadPoolExecutor(1) as executor:
            scorer = Scorer(
                self.models, bundle.spec, bundle.state_model, bundle.hidden, TOPICS, executor, rules=lambda: self.rules
            )
            asks = [
                SimpleNamespace(
                    user=user.user, partition=0, record=interest.encode(user.state), view=view, k=asked.size,
                    filter_seen=asked.filter_seen, scene=None, kinds=KINDS, events=(),
                    diversity=asked.diversity,
                )
                for user in self.users
            ]  # fmt: skip
            found: Any = scorer.compute(asks)  # type: ignore[arg-type]
        assert all(isinstance(one, Scores) for one in found), found
        return [one.items for one in found]

    def verify(self, slates: list[dict[str, Any]]) -> list[str]:
        """What `freshet verify` finds wrong."""
        report = Report()
        encoder: Any = SimpleNamespace(reads=False)
        items = Items(self.bundle, encoder)
        items.keep_bodies = True
        for offset, key, value in self.records:
            items.take(Row(0, offset, NOW, key, value))
        live: dict[int, LiveItems] = {len(self.records) - 1: items.freeze(True)}
        context = Context(self.bundle, self.models, encoder, items, self.settings, report)
        context.rules = {self.rules.offset: RulesThen(self.rules.rules)}
        check = Slates(context)
        for user, slate in zip(self.users, slates, strict=True):
            state = interest.decode(interest.encode(user.state))
            check.check(SampledUser(user.user, 0), [(0, state)], [(0, slate)], live)
        assert report.ranked == len(slates)
        assert not report.numbers_unverifiable
        assert {one.kind for one in report.violations} <= {"ranking"}
        return [one.message for one in report.violations]

    def _vectors(self, texts: list[str]) -> Any:
        return np.zeros((len(texts), self.bundle.item_dim), np.float32)

    def _pipeline(self, settings: Settings) -> Pipeline:
        names = ("consumer", "batches", "fence", "store", "decoder", "comments", "dead_letters", "misplaced",
                 "sent_before", "rules", "standing", "announce", "executor", "metrics", "clock")  # fmt: skip
        serving: Any = SimpleNamespace(
            bundle=self.bundle.id, models=self.models, published=published_of(settings, self.bundle)
        )
        parts: dict[str, Any] = dict.fromkeys(names)
        return Pipeline(PipelineParts(settings=settings, serving=serving, **parts))


def book(*rules: dict[str, Any]) -> RuleSet:
    found = RuleBook("utf8")
    found.apply(
        [(n, b"r%d" % n, json.dumps({"rule": f"r{n}", **rule}).encode()) for n, rule in enumerate(rules)]
    )  # one that contradicts another is not in force, for all three
    return found.current


def catalogue_records(draw: np.random.Generator) -> list[tuple[int, bytes, bytes]]:
    records = []
    for n, name in enumerate(NAMES):
        some = draw.choice(CATEGORIES, int(draw.integers(0, 4)), replace=False).tolist()
        body = {
            "item": name, "title": name, "categories": some, "attributes": {"price": n},
            "available": bool(draw.random() < 0.9),
        }  # fmt: skip
        records.append((n, name.encode(), json.dumps(body).encode()))
    return records


def user_batches(
    draw: np.random.Generator, bundle: Bundle, models: Models, records: Any, count: int
) -> list[UserBatch]:
    catalogue = Catalogue(bundle, lambda texts: np.zeros((len(texts), bundle.item_dim), np.float32))
    catalogue.apply(records)
    found = []
    for number in range(count):
        user = b"user-%d" % number
        events = [
            SourceEvent(0, 0, at, NOW, user, NAMES[int(draw.integers(ITEMS))], NOW + 1000 * at, NAN, "", "", "", b"{}")
            for at in range(int(draw.integers(1, 12)))
        ]
        found.append(apply_events(user, 0, None, events, TOPICS, bundle.state_model, bundle.hidden))
    advance(found, models, catalogue.snapshot, bundle.spec)
    return found


def random_filter(draw: np.random.Generator) -> dict[str, Any]:
    number = int(draw.integers(ITEMS))
    choices: list[dict[str, Any]] = [
        {"category": str(draw.choice(CATEGORIES))},
        {"price": {"ge": number}},
        {"item": [NAMES[number], NAMES[number // 2]]},
        {"not": {"category": str(draw.choice(CATEGORIES))}},
    ]
    return choices[int(draw.integers(len(choices)))]


def random_rule(draw: np.random.Generator) -> dict[str, Any]:
    segments: list[dict[str, Any]] = [
        {}, {}, {"segment": {"share": [0, 50]}}, {"segment": {"min_seq": 4}}, {"segment": {"users": ["user-1"]}},
        {"scene": "home"},
    ]  # fmt: skip
    kinds: list[dict[str, Any]] = [
        {"kind": "block", "filter": random_filter(draw)},
        {"kind": "only", "filter": {"not": random_filter(draw)}},
        {"kind": "boost", "filter": random_filter(draw), "factor": float(draw.choice((0.2, 3.0, 40.0)))},
        {"kind": "pin", "item": NAMES[int(draw.integers(ITEMS))], "place": int(draw.integers(12))},
        {"kind": "cap", "most": int(draw.integers(0, 4)), "category": str(draw.choice(CATEGORIES))},
        {"kind": "cap", "most": int(draw.integers(1, 4))},
    ]
    return kinds[int(draw.integers(len(kinds)))] | segments[int(draw.integers(len(segments)))]


def random_case(seed: int, bundle: Bundle, models: Models) -> Case:
    draw = np.random.default_rng(seed)
    records = catalogue_records(draw)
    cart: dict[str, Any] = {}
    if draw.random() < 0.7:
        cart["size"] = int(draw.integers(1, 13))
    if draw.random() < 0.7:
        cart["filter"] = random_filter(draw)
    if draw.random() < 0.7:
        cart["diversity"] = float(draw.choice((0.0, 0.5)))
    if draw.random() < 0.7:
        cart["filter_seen"] = bool(draw.random() < 0.5)
    settings = load_settings(
        placements={"cart": cart}, published=("default", "cart"),
        slate_size=int(draw.integers(1, 13)), diversity=float(draw.choice((0.0, 0.2, 0.6, 0.9, 1.0))),
        diversity_candidates=int(draw.choice((1, 8, 20, 100))), filter_seen=bool(draw.random() < 0.8),
    )  # fmt: skip
    rules = book(*(random_rule(draw) for _ in range(int(draw.integers(0, 7)))))
    return Case(settings, bundle, models, records, rules, user_batches(draw, bundle, models, records, 5))


@pytest.mark.parametrize("seed", range(80))
def test_worker_gateway_and_verify_agree(seed: int, bundle: Bundle, models: Models) -> None:
    case = random_case(seed, bundle, models)
    for placement in case.settings.published:
        slates = case.worker(placement=placement)
        asked = placements_of(case.settings, bundle)[placement]
        for slate, items in zip(slates, case.gateway(placement), strict=True):
            assert [one["item"] for one in slate["items"]] == [one.item for one in items]
            assert [one["score"] for one in slate["items"]] == pytest.approx([one.score for one in items], abs=1e-4)
            assert ("diversity" in slate) == bool(asked.diversity.strength)
            assert slate.get("placement", DEFAULT_PLACEMENT) == placement
        assert case.verify(slates) == []


CAP: dict[str, Any] = {"kind": "cap", "most": 2}
BOOST: dict[str, Any] = {"kind": "boost", "filter": {"price": {"ge": 25}}, "factor": 20}
PIN: dict[str, Any] = {"kind": "pin", "item": "item-7", "place": 3}
BLOCK: dict[str, Any] = {"kind": "block", "filter": {"category": "a"}}
ALL = (CAP, BOOST, PIN, BLOCK)


@pytest.fixture
def case(bundle: Bundle, models: Models) -> Case:
    """All kinds of rules in force at once, at a strength that changes every slate."""
    draw = np.random.default_rng(5)
    records = catalogue_records(draw)
    number, key, value = records[6]
    records[6] = number, key, json.dumps(json.loads(value) | {"categories": ["b"], "available": True}).encode()
    users = [one for one in user_batches(draw, bundle, models, records, 9) if b"item-7" not in one.state.recent]
    return Case(load_settings(diversity=0.6), bundle, models, records, book(*ALL), users[:5])


def test_all_kinds_of_rules_and_diversity_hold_at_once(case: Case) -> None:
    slates = case.worker()
    assert case.verify(slates) == []
    categories = {json.loads(value)["item"]: json.loads(value)["categories"] for _, _, value in case.records}
    by_score = case.worker(diversity=0.0)
    for slate, other in zip(slates, by_score, strict=True):
        names = [one["item"] for one in slate["items"]]
        assert (slate["diversity"], slate["rules"], names[3]) == (0.6, 3, "item-7")
        shown = [category for name in names for category in categories[name]]
        assert "a" not in shown
        assert max(shown.count(category) for category in CATEGORIES) <= 2
        assert names != [one["item"] for one in other["items"]]


@pytest.mark.parametrize(
    ("mutate", "says"),
    [
        (lambda case: case.worker(rules=book(BOOST, PIN, BLOCK)), "is beyond a cap"),
        (lambda case: case.worker(rules=book(CAP, PIN, BLOCK)), "another item is better there"),
        (lambda case: case.worker(rules=book(CAP, BOOST, PIN | {"place": 2}, BLOCK)), "pinned item is not at its place"),
        (lambda case: case.worker(rules=book(CAP, BOOST, BLOCK)), "pinned item is not at its place"),
        (lambda case: case.worker(rules=book(CAP, BOOST, PIN)), "is not live, the user has seen it, or a rule leaves it out"),
        (lambda case: case.worker(diversity=0.0), "with diversity 0.6 another item is better there"),
        (lambda case: case.worker(diversity_candidates=10), "another item is better there"),
    ],
    ids=["a cap broken", "unboosted", "a wrong pin", "no pin", "not blocked", "no diversity", "other candidates"],
)  # fmt: skip
def test_a_wrong_slate_is_named(case: Case, mutate: Callable[[Case], list[dict[str, Any]]], says: str) -> None:
    messages = case.verify(mutate(case))
    assert len(messages) == len(case.users)
    assert any(says in message for message in messages), messages


def test_one_item_without_its_boost_is_named(case: Case) -> None:
    slates = case.worker()
    for slate in slates:
        one = next(one for one in slate["items"] if int(one["item"].removeprefix("item-")) > 25)
        one["score"] = round(one["score"] - float(np.log(20)), 5)
    assert all("under the rules; expected" in one for one in case.verify(slates))


def test_caps_that_leave_too_few_candidates_take_the_next_best_by_score(case: Case) -> None:
    """Ten candidates cannot fill a slate of ten within the caps: verify knows which items follow."""
    few = replace(case, settings=case.settings.model_copy(update={"diversity_candidates": 10, "slate_size": 10}))
    slates = few.worker()
    assert few.verify(slates) == []
    longer = [slate for slate in slates if len(slate["items"]) > 4]
    assert longer
    for slate in longer:
        slate["items"][-2:] = slate["items"][:-3:-1]
    assert few.verify(slates)


# placements

CART: dict[str, Any] = {"size": 4, "filter": {"not": {"category": "b"}}, "diversity": 0.3, "filter_seen": False}


@pytest.fixture
def cart(case: Case) -> Case:
    settings = load_settings(diversity=0.6, placements={"cart": CART}, published=("default", "cart"))
    return replace(case, settings=settings)


def test_a_placement_has_its_own_size_filter_and_strength(cart: Case) -> None:
    slates = cart.worker(placement="cart")
    assert cart.verify(slates) == []
    assert cart.verify(cart.worker()) == []
    categories = {json.loads(value)["item"]: json.loads(value)["categories"] for _, _, value in cart.records}
    for slate in slates:
        assert (slate["placement"], slate["diversity"], len(slate["items"])) == ("cart", 0.3, 4)
        assert all("b" not in categories[one["item"]] for one in slate["items"])


@pytest.mark.parametrize(
    ("changed", "says"),
    [
        ({"size": 3}, "there are more that fit"),
        ({"size": 5}, "it has 5 items, expected at most 4"),
        ({"filter": {"available": True}}, "is not live, the user has seen it, or a rule leaves it out"),
        ({"diversity": 0.9}, "another item is better there"),
        ({"filter_seen": True}, "another item is better there"),
    ],
    ids=["short", "long", "unfiltered", "another strength", "without the seen"],
)
def test_a_wrong_slate_of_a_placement_is_named(cart: Case, changed: dict[str, Any], says: str) -> None:
    other = load_settings(placements={"cart": CART | changed})
    messages = cart.verify(cart.worker(placement="cart", placements=other.placements))
    assert any(says in message for message in messages), messages


# bit-equal to what was before


def bits(slates: list[dict[str, Any]]) -> list[list[tuple[str, str]]]:
    return [[(one["item"], float(one["score"]).hex()) for one in slate["items"]] for slate in slates]


@pytest.mark.parametrize("seed", range(10))
def test_strength_0_without_rules_is_the_order_of_the_scores_bit_by_bit(
    seed: int, bundle: Bundle, models: Models
) -> None:
    """The scores come from the graph by one call for the slate's size, as if there were neither rules nor diversity."""
    found = random_case(seed, bundle, models)
    plain = {"diversity": 0.0, "placements": {}, "published": (DEFAULT_PLACEMENT,)}
    found = replace(found, rules=RuleSet(), settings=found.settings.model_copy(update=plain))
    asked: list[int] = []

    class Spy:
        def __getattr__(self, name: str) -> Any:
            return getattr(models, name)

        def score(self, *inputs: Any) -> Any:
            asked.append(inputs[6])
            scores, rows = models.score(*inputs)
            self.expected = [
                [
                    (NAMES[row - 1], round(score, 5).hex())
                    for score, row in zip(*pair, strict=True)
                    if np.isfinite(score)
                ]
                for pair in zip(scores.tolist(), rows.tolist(), strict=True)
            ]
            return scores, rows

    spy: Any = Spy()
    slates = replace(found, models=spy).worker()
    assert asked == [found.settings.slate_size]
    assert bits(slates) == spy.expected
    for slate in slates:
        assert list(slate) == [
            "user", "slate", "seq", "chain", "items", "time", "latency_ms", "events", "applied", "catalogue", "bundle",
            "strategy", "replay",
        ]  # fmt: skip
    gateway = [[(one.item, one.score.hex()) for one in items] for items in found.gateway()]
    assert gateway == bits(slates)


def test_rules_that_apply_to_nobody_change_nothing_but_the_offset(case: Case) -> None:
    nobody = book(*(rule | {"scene": "elsewhere"} for rule in ALL))
    for strength in (0.0, 0.6):
        with_rules = replace(case, rules=nobody, settings=case.settings.model_copy(update={"diversity": strength}))
        without = replace(with_rules, rules=RuleSet())
        assert bits(with_rules.worker()) == bits(without.worker())
        assert [{**slate, "rules": 3} for slate in without.worker()] == with_rules.worker()


def test_with_strength_0_rules_do_what_they_do_without_diversity(case: Case, models: Models) -> None:
    """The number of candidates must not matter: nothing is re-ranked."""
    plain = case.worker(diversity=0.0)
    assert bits(plain) == bits(case.worker(diversity=0.0, diversity_candidates=1))
    assert bits(plain) == bits(replace(case, bundle=replace(case.bundle, diversity=0.0)).worker(diversity=None))


def test_diversity_without_rules_is_the_same_as_under_rules_that_change_nothing(case: Case) -> None:
    """A block of no item takes the way of rules, with the same candidates."""
    without = replace(case, rules=RuleSet())
    nothing = replace(case, rules=book({"kind": "block", "filter": {"item": "nowhere"}}))
    assert bits(without.worker()) == bits(nothing.worker())
    assert placements_of(case.settings, case.bundle)[DEFAULT_PLACEMENT].diversity == Diversity(0.6, 100)
