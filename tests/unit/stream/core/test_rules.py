"""Rules: which are in force, whom they apply to, what contradicts what, and what they do to a ranking."""

from __future__ import annotations

import json
import math
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from deploy.verify.recompute.rules import effect, misplaced
from stream.core import rules as rules_module
from stream.core.filters import Columns, Facts
from stream.core.rules import MOST_RULES, Active, RuleBook, RuleSet, contradiction, share
from stream.core.ruling import NEVER, Ruling, Selections, select

RECORD = tuple[int, bytes | None, bytes | None]


def record(offset: int, rule: str, **fields: Any) -> RECORD:
    return offset, rule.encode(), json.dumps({"rule": rule, **fields}).encode()


def book(*records: RECORD) -> RuleBook:
    found = RuleBook("utf8")
    found.apply(records)
    return found


def rules_of(*fields: dict[str, Any]) -> RuleSet:
    found = book(*(record(number, f"r{number}", **one) for number, one in enumerate(fields))).current
    assert not found.refused
    return found


@pytest.mark.parametrize(
    ("fields", "reason", "field", "part"),
    [
        ({"kind": "block"}, "missing_field", "filter", "a rule of kind block needs it"),
        ({"kind": "block", "filter": {}}, "out_of_range", "filter", "empty object"),
        ({"kind": "boost", "filter": {"p": {"gt": "x"}}, "factor": 2}, "out_of_range", "filter.p.gt", "a date"),
        ({"kind": "boost", "filter": {"p": 1}, "factor": 0}, "out_of_range", "factor", "found 0"),
        ({"kind": "boost", "filter": {"p": 1}}, "missing_field", "factor", "needs it"),
        ({"kind": "pin", "item": "a", "place": -1}, "out_of_range", "place", "0 to 99"),
        ({"kind": "pin", "item": "a", "place": 1.5}, "wrong_type", "place", "found 1.5"),
        (
            {"kind": "pin", "item": "a", "place": 0, "most": 3},
            "unexpected_field",
            "most",
            "does not have it; expected item, place",
        ),
        ({"kind": "cap", "most": 1, "since": 5, "until": 5}, "out_of_range", "until", "after since (5)"),
        ({"kind": "cap", "most": 1, "segment": {"share": [50, 50]}}, "out_of_range", "segment.share", "50 to 50"),
        (
            {"kind": "cap", "most": 1, "segment": {"min_seq": 3, "max_seq": 2}},
            "out_of_range",
            "segment.max_seq",
            "got 2",
        ),
        (
            {"kind": "cap", "most": 1, "segment": {"age": 3}},
            "unexpected_field",
            "segment.age",
            "no field 'age'; expected one of users, min_seq, max_seq, share, salt",
        ),
        (
            {"kind": "cap", "most": 1, "untill": 3},
            "unexpected_field",
            "untill",
            "no field 'untill'; expected one of rule, kind, filter, factor, item, place, ",
        ),
        (
            {"kind": "cap", "most": 1.0, "untill": 3},
            "unexpected_field",
            "untill",
            "no field 'untill'; expected one of rule, kind, filter, factor, item, place, ",
        ),
        (
            {"kind": "cap", "most": 1, "since": 1_700_000_000},
            "out_of_range",
            "since",
            "1700000000 looks like seconds; times are milliseconds: multiply by 1000",
        ),
        ({"kind": "cap", "most": 1, "until": 1_700_000_000}, "out_of_range", "until", "multiply by 1000"),
        ({"kind": "cap", "most": 1, "until": 1.7e9}, "out_of_range", "until", "multiply by 1000"),
        (
            {"kind": "cap", "most": 1, "until": 1_700_000_000_000_000},
            "out_of_range",
            "until",
            "looks like microseconds; times are milliseconds: divide by 1000",
        ),
        (
            {"kind": "cap", "most": 1, "until": "2026-12-01"},
            "wrong_type",
            "until",
            'found "2026-12-01" (a text), expected a whole number, 0 to 253402300799999 or null, epoch milliseconds; '
            "convert it to epoch milliseconds, UTC: 1796083200000",
        ),
        ({"kind": "cap", "most": 1, "since": "soon"}, "wrong_type", "since", "convert it to epoch milliseconds, UTC"),
        ({"kind": "zap"}, "out_of_range", "kind", 'found "zap" (a text), expected'),
        ({"kind": "zap"}, "out_of_range", "kind", "one of block, boost, cap, only, pin"),
    ],
)
def test_a_malformed_rule_is_refused_by_its_field(fields: dict[str, Any], reason: str, field: str, part: str) -> None:
    (refused,) = (found := book(record(3, "r", **fields))).current.refused
    assert (refused.rule, refused.offset, refused.reason, refused.field) == ("r", 3, reason, field)
    assert part in refused.message
    assert (found.current.rules, found.current.offset) == ((), 3)


def test_keys_and_bodies_that_are_no_rule() -> None:
    found = RuleBook("utf8")
    refused = found.apply(
        [(0, None, b"{}"), (1, b"\xff", b"{}"), (2, b"a", b"{"), (3, b"b", b'{"rule":"c","kind":"cap","most":1}')]
    )
    assert [one.reason for one in refused] == ["null_key", "bad_key", "malformed_json", "key_mismatch"]


ITEM: dict[str, Any] = {"kind": "block", "filter": {"item": ["x", "y"]}}
PIN: dict[str, Any] = {"kind": "pin", "item": "x", "place": 2}


@pytest.mark.parametrize(
    ("one", "other", "part"),
    [
        (PIN, PIN | {"item": "y"}, "both pin an item at place 2"),
        (PIN, PIN | {"place": 3}, "both pin the item 'x'"),
        (PIN, ITEM, "which the other blocks"),
        (ITEM, ITEM | {"kind": "only"}, "blocks exactly the items"),
        (PIN | {"scene": "home"}, PIN | {"item": "y"}, "at place 2"),
        (PIN | {"scene": "home"}, PIN | {"item": "y", "scene": "cart"}, ""),
        (PIN | {"until": 5}, PIN | {"item": "y", "since": 5}, ""),
        (PIN | {"until": 6}, PIN | {"item": "y", "since": 5}, "at place 2"),
        (PIN | {"segment": {"max_seq": 4}}, PIN | {"item": "y", "segment": {"min_seq": 5}}, ""),
        (PIN | {"segment": {"share": [0, 50]}}, PIN | {"item": "y", "segment": {"share": [50, 100]}}, ""),
        (
            PIN | {"segment": {"share": [0, 50]}},
            PIN | {"item": "y", "segment": {"share": [50, 100], "salt": "s"}},
            "place 2",
        ),
        (PIN | {"segment": {"users": ["a"]}}, PIN | {"item": "y", "segment": {"users": ["b"]}}, ""),
        ({"kind": "boost", "filter": {"p": 1}, "factor": 2}, {"kind": "boost", "filter": {"p": 1}, "factor": 3}, ""),
        ({"kind": "cap", "most": 2}, {"kind": "cap", "most": 1}, ""),
    ],
)
def test_contradictions(one: dict[str, Any], other: dict[str, Any], part: str) -> None:
    for first, second in ((one, other), (other, one)):
        found = book(record(0, "a", **first), record(1, "b", **second)).current
        assert [rule.rule for rule in found.rules] == (["a"] if part else ["a", "b"])
        if part:
            (refused,) = found.refused
            assert (refused.rule, refused.reason) == ("b", "contradiction")
            assert part in refused.message
            assert "the rule 'a'" in refused.message


@settings(deadline=None)
@given(st.lists(st.tuples(st.sampled_from("abc"), st.integers(0, 3), st.booleans()), max_size=12), st.integers(0, 12))
def test_what_is_in_force_is_the_same_after_compaction_and_in_any_batches(
    puts: list[tuple[str, int, bool]], cut: int
) -> None:
    records = [
        (offset, rule.encode(), None) if gone else record(offset, rule, kind="pin", item=rule, place=place)
        for offset, (rule, place, gone) in enumerate(puts)
    ]
    whole, parts, compacted = RuleBook("utf8"), RuleBook("utf8"), RuleBook("utf8")
    whole.apply(records)
    parts.apply(records[:cut])
    parts.apply(records[cut:])
    compacted.apply([one for one in records if all(other[1] != one[1] for other in records[one[0] + 1 :])])
    assert whole.current.rules == parts.current.rules == compacted.current.rules
    assert whole.current.refused == parts.current.refused == compacted.current.refused


@settings(deadline=None)
@given(st.lists(st.tuples(st.sampled_from("abcde"), st.integers(0, 2), st.sampled_from("pppxo-")), max_size=25))
def test_records_that_come_one_by_one_give_what_all_of_them_give(puts: list[tuple[str, int, str]]) -> None:
    forms: dict[str, Any] = {"x": {"kind": "block"}, "o": {"kind": "only"}}
    records = []
    for offset, (rule, number, form) in enumerate(puts):
        wanted = {"filter": {"item": [f"i{number}"]}, **forms[form]} if form in forms else {}
        if form == "p":
            wanted = {"kind": "pin", "item": f"i{offset % 3}", "place": number}
        records.append(record(offset, rule, **wanted) if wanted else (offset, rule.encode(), None))
    step = RuleBook("utf8")
    for end, one in enumerate(records, start=1):
        step.apply([one])
        whole = book(*records[:end]).current
        assert (step.current.rules, step.current.refused) == (whole.rules, whole.refused)


def test_a_change_of_one_rule_compares_it_with_the_others_only(monkeypatch: pytest.MonkeyPatch) -> None:
    found = book(*(record(number, f"r{number}", kind="cap", most=1) for number in range(100)))
    compared: list[set[str]] = []

    def counted(one: Active, other: Active) -> str:
        compared.append({one.rule, other.rule})
        return contradiction(one, other)

    monkeypatch.setattr(rules_module, "contradiction", counted)
    for records in ([record(100, "r7", **PIN)], [(101, b"r8", None)], [record(102, "new", **PIN | {"item": "y"})]):
        found.apply(records)
    assert len(compared) < 300
    assert all(names & {"r7", "new"} for names in compared)
    assert [one.rule for one in found.current.refused] == ["new"]
    found.apply([(103, b"r7", None)])
    assert "new" in [one.rule for one in found.current.rules]


def test_a_refused_record_is_reported_once() -> None:
    found = book(record(0, "a", **PIN))
    (first,) = found.apply([record(1, "b", **PIN | {"item": "y"})])
    assert first.rule == "b"
    assert found.apply([record(2, "c", kind="cap", most=1)]) == []
    assert found.apply([(3, b"a", None)]) == []
    assert [rule.rule for rule in found.current.rules] == ["b", "c"]


def test_there_are_not_too_many() -> None:
    found = book(*(record(number, f"r{number}", kind="cap", most=1) for number in range(MOST_RULES + 1))).current
    assert [one.reason for one in found.refused] == ["too_many"]
    assert len(found.rules) == MOST_RULES


def test_whom_a_rule_applies_to() -> None:
    found = rules_of(
        {"kind": "cap", "most": 1, "segment": {"users": ["ann"], "min_seq": 1, "max_seq": 2}},
        {"kind": "cap", "most": 1, "scene": "home", "since": 10, "until": 20},
        {"kind": "cap", "most": 1, "segment": {"share": [0, 50], "salt": "s"}},
    )
    half = {user for n in range(1000) if share(user := f"u{n}".encode(), "s") < 50}
    assert 400 < len(half) < 600
    assert 2 not in found.applying(b"", 0, None, 0)
    assert all((2 in found.applying(f"u{n}".encode(), 0, None, 0)) == (f"u{n}".encode() in half) for n in range(100))
    assert [0 in found.applying(b"ann", seq, None, 0) for seq in range(4)] == [False, True, True, False]
    assert 0 not in found.applying(b"bob", 1, None, 0)
    times = [(None, 15), ("cart", 15), ("home", 9), ("home", 10), ("home", 19), ("home", 20)]
    assert [1 in found.applying(b"", 0, scene, now) for scene, now in times] == [False, False, False, True, True, False]


NAMES = ("", *(f"i{row}" for row in range(1, 13)))
CATEGORIES: dict[int, tuple[str, ...]] = {row: (("a",), ("b",), ("a", "b"), ())[row % 4] for row in range(1, 13)}


class Items:
    """Row 12 is not live."""

    def __init__(self) -> None:
        self.bias = np.array([-np.inf, *[0.0] * 11, -np.inf], np.float32)
        facts = [None, *(Facts(CATEGORIES[row], (), {"price": float(row)}) for row in range(1, 13))]
        self.columns = Columns(facts, self.bias == 0, self.row)

    def row(self, item: str) -> int:
        return NAMES.index(item) if item in NAMES else 0


FILTERS = st.sampled_from(
    ({"category": "a"}, {"price": {"gt": 4}}, {"item": ["i1", "i2", "i12"]}, {"not": {"category": "b"}})
)
RULES = st.lists(
    st.one_of(
        st.fixed_dictionaries({"kind": st.sampled_from(("block", "only")), "filter": FILTERS}),
        st.fixed_dictionaries({"kind": st.just("boost"), "filter": FILTERS, "factor": st.sampled_from((0.1, 3, 20))}),
        st.fixed_dictionaries({"kind": st.just("pin"), "item": st.sampled_from(NAMES[1:]), "place": st.integers(0, 6)}),
        st.fixed_dictionaries({"kind": st.just("cap"), "most": st.integers(0, 3)}, optional={"category": st.just("a")}),
    ),
    max_size=6,
)


@settings(deadline=None, max_examples=300)
@given(
    RULES,
    st.lists(st.floats(-9, 9, width=16), min_size=13, max_size=13),
    st.integers(1, 12),
    st.sets(st.integers(1, 12)),
)
def test_a_slate_under_rules_is_one_that_verify_accepts(
    fields: list[dict[str, Any]], scores: list[float], k: int, seen: set[int]
) -> None:
    rules = book(*(record(number, f"r{number}", **one) for number, one in enumerate(fields))).current.rules
    items = Items()
    selection = select(items, rules)
    total = [score + float(bias) for score, bias in zip(scores, selection.bias, strict=True)]
    ranked = [(row, total[row]) for row in np.argsort([-one for one in total], kind="stable").tolist()]
    ranked = [(row, score) for row, score in ranked if score > NEVER and row not in seen]
    slate = selection.arrange(ranked, k, seen)
    shown = [score for _, score in slate]
    assert shown == sorted(shown, reverse=True)
    assert len({row for row, _ in slate}) == len(slate) <= k
    bodies = {row: {"categories": list(CATEGORIES[row]), "attributes": {"price": row}} for row in CATEGORIES}
    found = effect(rules, NAMES, bodies, items.bias.tolist())
    for row, added in enumerate(found.added):
        assert (added is None) == bool(selection.bias[row] == NEVER)
        assert added is None or math.isclose(added, float(selection.bias[row]), abs_tol=1e-6)
    pins = {
        place: item for place, item in found.pins.items()
        if place < k and (row := items.row(item)) not in seen and found.added[row] is not None
    }  # fmt: skip
    message = misplaced(
        [{"item": NAMES[row], "score": score} for row, score in slate], k,
        {NAMES[row]: score for row, score in ranked}, pins, found.caps, {NAMES[row]: CATEGORIES[row] for row in CATEGORIES},
    )  # fmt: skip
    assert not message
    if len(slate) > 1 and slate[0][1] - slate[-1][1] > 0.1:
        turned = [{"item": NAMES[row], "score": score} for row, score in (*slate[-1:], *slate[:-1])]
        assert misplaced(
            turned, k, {NAMES[row]: score for row, score in ranked}, pins, found.caps,
            {NAMES[row]: CATEGORIES[row] for row in CATEGORIES},
        )  # fmt: skip


def test_selections_are_kept_and_users_of_no_rule_have_none() -> None:
    rules = rules_of(
        {"kind": "block", "filter": {"item": "i1"}, "segment": {"users": ["ann"]}},
        {"kind": "boost", "filter": {"item": "i2"}, "factor": 2, "scene": "home"},
    )
    items, kept = Items(), Selections()
    ruling = Ruling(rules, None, 0, kept)
    assert ruling.of(b"bob", 3, items) is None
    first = ruling.of(b"ann", 3, items)
    assert first is not None
    assert first is Ruling(rules, None, 5, kept).of(b"ann", 4, items)
    assert first.bias[1] == NEVER
    home = Ruling(rules, "home", 0, kept).of(b"bob", 3, items)
    assert home is not None
    assert math.isclose(float(home.bias[2]), math.log(2), rel_tol=1e-6)
    assert Ruling(rules, None, 0, kept).of(b"ann", 3, Items()) is not first
