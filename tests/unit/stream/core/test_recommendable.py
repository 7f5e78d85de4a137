"""What a slate may show at one moment, and what is noticed when something must no longer be shown."""

from __future__ import annotations

import json
from typing import Any

import pytest

from stream.catalogue.catalogue import Catalogue
from stream.core.recommendable import Recommendable
from stream.core.rules import RuleBook, RuleSet
from tests.unit.stream.catalogue.test_catalogue import Tower, bundle, message, records

ITEMS = ("t1", "t2", "t3", "new")


def rules_of(*fields: dict[str, Any]) -> RuleSet:
    book = RuleBook("utf8")
    book.apply(
        [(at, f"r{at}".encode(), json.dumps({"rule": f"r{at}", **one}).encode()) for at, one in enumerate(fields)]
    )
    assert not book.current.refused
    return book.current


@pytest.fixture
def catalogue() -> Catalogue:
    found = Catalogue(bundle(), Tower())
    found.apply(records(*(message(item, categories=["toys"] if item == "t2" else []) for item in ITEMS)))
    return found


def may(catalogue: Catalogue, rules: RuleSet | None = None, now: int = 0) -> Recommendable:
    return Recommendable(catalogue.snapshot, rules or RuleSet(), now)


def block(*items: str, **more: Any) -> dict[str, Any]:
    return {"kind": "block", "filter": {"item": list(items)}, **more}


def test_items_that_are_not_live_and_items_that_rules_leave_out_are_withdrawn(catalogue: Catalogue) -> None:
    shown = ["new", "t2", "t1", "nobody", "plumless"]
    assert may(catalogue).withdrawn(b"ann", 1, shown) == ["nobody", "plumless"]
    catalogue.apply([(9, b"t1", None), (10, *message("new", available=False))])
    assert may(catalogue).withdrawn(b"ann", 1, shown) == ["new", "t1", "nobody", "plumless"]
    only = rules_of({"kind": "only", "filter": {"category": "toys"}})
    assert may(catalogue, only).withdrawn(b"ann", 1, ["t2", "t3"]) == ["t3"]


def test_a_rule_of_a_segment_concerns_its_users_alone(catalogue: Catalogue) -> None:
    rules = rules_of(block("t1", segment={"users": ["ann"]}), block("t2", segment={"min_seq": 5}))
    found = may(catalogue, rules)
    assert found.withdrawn(b"ann", 4, ["t1", "t2"]) == ["t1"]
    assert found.withdrawn(b"bob", 5, ["t1", "t2"]) == ["t2"]
    assert found.withdrawn(b"bob", 4, ["t1", "t2"]) == []


def test_rules_of_a_scene_other_kinds_and_other_times_withdraw_nothing(catalogue: Catalogue) -> None:
    rules = rules_of(
        block("t1", scene="home"), block("t2", since=10, until=20), {"kind": "pin", "item": "t3", "place": 0},
        {"kind": "cap", "most": 0}, {"kind": "boost", "filter": {"item": "t3"}, "factor": 0.001},
    )  # fmt: skip
    assert may(catalogue, rules, 9).withdrawn(b"ann", 1, ITEMS) == []
    assert may(catalogue, rules, 10).withdrawn(b"ann", 1, ITEMS) == ["t2"]
    assert may(catalogue, rules, 20).withdrawn(b"ann", 1, ITEMS) == []


def test_it_stays_the_same_until_something_changes(catalogue: Catalogue) -> None:
    rules = rules_of(block("t2", since=10))
    before = may(catalogue, rules, 5)
    assert before.is_now(catalogue.snapshot, rules, 9)
    assert not before.is_now(catalogue.snapshot, rules, 10)
    assert not before.is_now(catalogue.snapshot, rules_of(), 9)
    catalogue.apply(records(message("t1", "another title"), start=9))
    assert not before.is_now(catalogue.snapshot, rules, 9)


@pytest.mark.parametrize(
    ("change", "lost"),
    [
        ([(9, b"t1", None)], True),
        ([(9, *message("new", available=False))], True),
        ([(9, b"new", None)], True),
        ([(9, b"plumless", None)], False),  # it was not live
        ([(9, *message("new", "another title"))], False),  # the text has a new row, the item is live as before
        ([(9, *message("plumless"))], False),
        ([(9, b"nobody", None)], False),
    ],
)
def test_a_loss_in_the_catalogue_is_noticed(catalogue: Catalogue, change: list[Any], lost: bool) -> None:
    catalogue.apply(records(message("other"), start=5))  # the matrix grows now, and has room from here on
    before = may(catalogue)
    catalogue.apply(change)
    assert may(catalogue).lost_since(before) == lost


def test_a_loss_by_rules_is_noticed(catalogue: Catalogue) -> None:
    plain, blocked = may(catalogue), may(catalogue, rules_of(block("t1")))
    assert blocked.lost_since(plain)
    assert not plain.lost_since(blocked)
    segment = rules_of(block("t1", segment={"users": ["ann"]}))
    assert may(catalogue, segment).lost_since(plain)
    assert not may(catalogue, segment).lost_since(may(catalogue, segment))
    assert not may(catalogue, rules_of(block("t1"), block("t1", "t1"))).lost_since(blocked)
    later = rules_of(block("t3", since=10))
    assert may(catalogue, later, 10).lost_since(may(catalogue, later, 9))


def test_an_item_that_comes_under_a_rule_by_its_new_category_is_lost(catalogue: Catalogue) -> None:
    catalogue.apply(records(message("other"), start=5))
    everybody, some = (
        {"kind": "block", "filter": {"category": "toys"}} | more for more in ({}, {"segment": {"min_seq": 2}})
    )
    for rule in (everybody, some):
        rules = rules_of(rule)
        before = may(catalogue, rules)
        catalogue.apply(records(message("t1", categories=["toys"]), start=9))
        assert may(catalogue, rules).lost_since(before)
        catalogue.apply(records(message("t1", categories=[]), start=10))


def test_a_matrix_that_is_copied_counts_as_a_loss(catalogue: Catalogue) -> None:
    before = may(catalogue)
    catalogue.apply(records(*(message(f"n{number}") for number in range(200)), start=20))
    assert may(catalogue).lost_since(before)
