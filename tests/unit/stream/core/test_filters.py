"""The filter language: masks against an evaluator that reads one item at a time, and refusals that name the wrong part."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from deploy.verify.recompute.filters import holds
from stream.core.filters import MAX_DEPTH, Columns, Facts, FilterError, parse

NAMES = ("a", "b", "c")
TEXTS = (*NAMES, "2026-11-27", "2026-11-27T14:00:00Z", "2026-11-28 01:00:00+02:00", "2026-13-01", "")
NUMBERS = (-1.5, 0, 2, 1e15, 1_795_737_600_000, 1_795_788_000_000)

VALUE = st.one_of(st.sampled_from(TEXTS), st.sampled_from(NUMBERS))
BODY = st.fixed_dictionaries(
    {},
    optional={
        "categories": st.lists(st.sampled_from(NAMES), max_size=3),
        "scenes": st.lists(st.sampled_from(NAMES), max_size=2),
        "attributes": st.dictionaries(
            st.sampled_from(("price", "made", "é")), st.one_of(VALUE, st.lists(st.sampled_from(TEXTS), max_size=3))
        ),
    },
)
SOME_NAMES = st.one_of(st.sampled_from(NAMES), st.lists(st.sampled_from(NAMES), min_size=1, max_size=3))
BOUND = st.sampled_from((*NUMBERS, "2026-11-27", "2026-11-27T14:00:00Z"))
TESTS = st.one_of(
    VALUE,
    st.dictionaries(st.sampled_from(("gt", "ge", "lt", "le")), BOUND, min_size=1),
    st.fixed_dictionaries({"in": st.lists(VALUE, min_size=1, max_size=3)}),
    st.fixed_dictionaries({"eq": VALUE}),
)
CONDITION = st.fixed_dictionaries(
    {},
    optional={
        "item": st.one_of(st.sampled_from(("i1", "i2", "none")), st.lists(st.sampled_from(("i1", "i3")), min_size=1)),
        "category": SOME_NAMES, "scene": SOME_NAMES, "available": st.booleans(), "price": TESTS, "made": TESTS, "é": TESTS,
    },
).filter(bool)  # fmt: skip
FILTER: st.SearchStrategy[dict[str, Any]] = st.recursive(
    CONDITION,
    lambda inner: st.one_of(
        st.fixed_dictionaries({"all": st.lists(inner, min_size=1, max_size=3)}),
        st.fixed_dictionaries({"any": st.lists(inner, min_size=1, max_size=3)}),
        st.fixed_dictionaries({"not": inner}),
    ),
    max_leaves=5,
)


def columns(bodies: list[dict[str, Any]], live: list[bool]) -> Columns:
    """Row 0 is the unknown item; row n has the item `in`."""
    facts: list[Facts | None] = [None]
    for body in bodies:
        attributes = {
            name: tuple(value) if isinstance(value, list) else value
            for name, value in body.get("attributes", {}).items()
        }
        facts.append(Facts(tuple(body.get("categories", ())), tuple(body.get("scenes", ())), attributes))
    rows = {f"i{row}": row for row in range(1, len(facts))}
    return Columns(facts, np.array([False, *live]), lambda item: rows.get(item, 0))


@settings(deadline=None, max_examples=200)
@given(FILTER, st.lists(st.tuples(BODY, st.booleans()), min_size=1, max_size=8))
def test_a_mask_holds_for_the_items_for_which_the_filter_holds(
    document: dict[str, Any], items: list[tuple[dict[str, Any], bool]]
) -> None:
    mask = columns([body for body, _ in items], [live for _, live in items]).mask(parse(document))
    for row, (body, live) in enumerate(items, start=1):
        assert bool(mask[row]) == holds(document, f"i{row}", body, live), (document, body, live)


def deep(levels: int) -> dict[str, Any]:
    return {"item": "a"} if levels == 1 else {"not": deep(levels - 1)}


@pytest.mark.parametrize(
    ("document", "path", "part"),
    [
        ({"all": [{"category": "a"}, {"price": {"gt": "x"}}]}, "filter.all[1].price.gt", 'found "x" (a text)'),
        (
            {"all": [{"category": "a"}, {"price": {"gt": True}}]},
            "filter.all[1].price.gt",
            "found true, expected a number",
        ),
        ({"price": {"above": 1}}, "filter.price.above", "eq, in, gt, ge, lt, le"),
        ({"price": {"eq": [1]}}, "filter.price.eq", "`in` takes a list"),
        ({"price": {"in": 1}}, "filter.price.in", "expected a list"),
        ({"price": {"in": [1, None]}}, "filter.price.in[1]", "found null"),
        ({"price": {"in": []}}, "filter.price.in", "a list of 0"),
        ({"price": {}}, "filter.price", "empty object"),
        ({"price": None}, "filter.price", "found null"),
        ({"price": {"ge": 1e16}}, "filter.price.ge", "within 1e+15"),
        ({"made": {"lt": "2026-02-30"}}, "filter.made.lt", "a date in ISO 8601"),
        ({"not": {"any": []}}, "filter.not.any", "at least one filter"),
        ({"any": {"item": "a"}}, "filter.any", "found an object, expected a list"),
        ({"any": [3]}, "filter.any[0]", "found 3 (a whole number), expected an object"),
        ({"category": 3}, "filter.category", "found 3 (a whole number)"),
        ({"category": ["a", ""]}, "filter.category[1]", "1 to 256 characters"),
        ({"item": []}, "filter.item", "a list of 0"),
        ({"item": ["a"] * 257}, "filter.item", "a list of 257, expected 1 to 256"),
        ({"available": "yes"}, "filter.available", "expected true or false"),
        ({}, "filter", "empty object"),
        ([], "filter", "found a list of 0, expected an object"),
        ({"": 1}, "filter.", "a name of 0 characters"),
        ({"\x1b" + "n" * 99: 1}, "filter.\\x1b" + "n" * 63, "a name of 100 characters"),
        (deep(MAX_DEPTH + 1), "filter" + ".not" * MAX_DEPTH, "at most 8 levels"),
        ({"any": [{"item": "a"}] * 65}, "filter.any", "found 65 filters"),
        ({"any": [{"price": 1, "made": 1}] * 33}, "filter.any[32].price", "at most 64 conditions"),
    ],
)
def test_a_refusal_names_the_wrong_part(document: Any, path: str, part: str) -> None:
    with pytest.raises(FilterError) as raised:
        parse(document)
    assert raised.value.path == path
    assert part in str(raised.value)


def test_equal_filters_are_one_key() -> None:
    one, other = parse({"category": ["b", "a", "a"], "price": 2}), parse({"category": ["a", "b"], "price": 2.0})
    assert one == other
    assert hash(one) == hash(other)
    assert parse(deep(MAX_DEPTH))


def test_masks_are_kept_within_bounds_and_cannot_be_changed() -> None:
    found = columns([{}] * 3, [True] * 3)
    first = found.mask(parse({"price": 0}))
    assert found.mask(parse({"price": 0})) is first
    assert not first.flags.writeable
    for number in range(1, 600):
        found.mask(parse({"price": number}))
    assert found.mask(parse({"price": 0})) is not first
    assert len(found._masks) <= 256
