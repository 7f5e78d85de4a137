"""Rules that are acceptable and probably wrong."""

from __future__ import annotations

import json
from typing import Any

import numpy as np
import pytest

from stream.core.filters import Columns, Facts
from stream.core.rule_warnings import of_items, of_times
from stream.core.rules import ACTIVE, EXPIRED, SCHEDULED, Active, read

FACTS: list[Facts | None] = [
    None,
    Facts(("toys",), ("home",), {"price": 5.0}),
    Facts(("books",), (), {"brand": "Ada"}),
    Facts(("books",), (), {}),
]
"""Items a, b and c. c is not available."""


def rule(name: str = "r", **fields: Any) -> Active:
    return read(name.encode(), json.dumps({"rule": name, **fields}).encode(), "utf8")


def columns() -> Columns:
    live = np.array([False, True, True, False])
    return Columns(FACTS, live, lambda item: {"a": 1, "b": 2, "c": 3}.get(item, 0))


NO_LIVE = "filter: it matches none of the 2 live items: "


@pytest.mark.parametrize(
    ("fields", "expected"),
    [
        ({"kind": "block", "filter": {"item": "a"}}, []),
        (
            {"kind": "block", "filter": {"item": ["a", "x", "y"]}},
            ["filter: the catalogue has no item 'x', 'y'"],
        ),
        (
            {"kind": "block", "filter": {"item": ["m", "n", "o", "p", "a"]}},
            ["filter: the catalogue has no item 'm', 'n', 'o' and 1 more"],
        ),
        (
            {"kind": "only", "filter": {"category": "toyz"}},
            [
                "filter: no item has the category 'toyz'",
                NO_LIVE + "each slate that it applies to is empty",
            ],
        ),
        (
            {"kind": "boost", "factor": 2, "filter": {"colour": "red"}},
            ["filter: no item has the attribute 'colour'", NO_LIVE + "the rule changes nothing now"],
        ),
        ({"kind": "boost", "factor": 2, "filter": {"price": {"ge": 5}}}, []),
        (
            {"kind": "boost", "factor": 2, "filter": {"price": {"gt": 5}}},
            [NO_LIVE + "the rule changes nothing now"],
        ),
        (
            {"kind": "boost", "factor": 2, "filter": {"any": [{"brand": "Ada"}, {"not": {"colour": {"gt": 1}}}]}},
            ["filter: no item has the attribute 'colour'"],
        ),
        ({"kind": "block", "filter": {"scene": "hme"}}, ["filter: no item names the scene 'hme'"]),
        (
            {"kind": "block", "filter": {"category": ["toys", "books"]}},
            ["filter: it leaves none of the 2 live items: each slate that it applies to is empty"],
        ),
        ({"kind": "block", "filter": {"item": "c"}}, [NO_LIVE + "the rule changes nothing now"]),
        ({"kind": "pin", "item": "a", "place": 0}, []),
        (
            {"kind": "pin", "item": "x", "place": 0},
            ["item: the catalogue has no item 'x': it is not shown until it is live"],
        ),
        (
            {"kind": "pin", "item": "c", "place": 0},
            ["item: the item 'c' is not live: it is not shown until it is live"],
        ),
        ({"kind": "cap", "most": 1}, []),
        ({"kind": "cap", "most": 1, "category": "toys"}, []),
        (
            {"kind": "cap", "most": 1, "category": "toyz"},
            ["no item has the category 'toyz': the cap changes nothing"],
        ),
    ],
)
def test_a_rule_that_names_what_no_item_has(fields: dict[str, Any], expected: list[str]) -> None:
    assert of_items(rule(**fields), (), columns()) == expected


def test_rules_that_leave_nothing_together() -> None:
    toys = rule("toys", kind="only", filter={"category": "toys"})
    books = rule("books", kind="only", filter={"category": "books"})
    expected = ["with the rule 'toys', it leaves no live item: slates to which both apply are empty"]
    assert of_items(books, (toys, books), columns()) == expected
    blocked = rule("no-ada", kind="block", filter={"brand": "Ada"})
    assert of_items(blocked, (books,), columns()) == [expected[0].replace("toys", "books")]
    assert of_items(blocked, (toys,), columns()) == []
    early = rule("books", kind="only", filter={"category": "books"}, segment={"max_seq": 4})
    late = rule("toys", kind="only", filter={"category": "toys"}, segment={"min_seq": 5})
    assert of_items(early, (late,), columns()) == []


def test_the_state_follows_the_times() -> None:
    one = rule(kind="cap", most=1, since=10**12, until=2 * 10**12)
    assert [one.state(now) for now in (10**12 - 1, 10**12, 2 * 10**12 - 1, 2 * 10**12)] == [
        SCHEDULED, ACTIVE, ACTIVE, EXPIRED,
    ]  # fmt: skip
    assert of_times(one, 10**12 - 1) == of_times(one, 10**12) == []
    assert of_times(one, 2 * 10**12) == ["until: 2033-05-18T03:33:20Z is past: the rule does not apply"]
    assert rule(kind="cap", most=1).state(0) == ACTIVE
