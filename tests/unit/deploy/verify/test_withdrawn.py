"""A standing slate that shows an item which its partition's owner has long known to be withdrawn is named, and no other."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import pytest

from deploy.verify import Report, Scope
from tests.unit.deploy.verify.worlds import ALICE, small, verify
from tests.unit.synthetic import World, partition_of

PARTITION = partition_of(ALICE)
DAVE = next(name for number in range(100) if partition_of(name := f"dave{number}") == PARTITION)
LIMIT = 300
LATER = (LIMIT + 1) * 1000
BLOCK = {"kind": "block", "filter": {"item": "b"}}


class Shop(World):
    """Alice's slate shows `a` and `b`, Dave's shows `a`."""

    def item(self, item: str, **fields: Any) -> int:
        value = json.dumps({"item": item, "title": item, **fields}).encode() if fields else None
        return self.log.append(self.settings.items_topic, 0, item.encode(), value, timestamp=self.now)

    def rule(self, rule: str, **fields: Any) -> int:
        value = json.dumps({"rule": rule, **fields}).encode() if fields else None
        return self.log.append(self.settings.rules_topic, 0, rule.encode(), value, timestamp=self.now)

    def alive(self, user: str = DAVE, **fields: Any) -> None:
        """An event of a user, whose slate is made under all items and rules that there are."""
        catalogue, rules = (
            self.log.topics[topic][0][-1].offset if self.log.topics[topic][0] else -1
            for topic in (self.settings.items_topic, self.settings.rules_topic)
        )
        known = {"catalogue": catalogue, "items": [{"item": "a", "score": 1.0}]} | (
            {"rules": rules} if rules >= 0 else {}
        )
        self.send(0, user, "i5")
        self.work()
        found = self.log.topics[self.settings.recommendations_topic][PARTITION]
        body = json.loads(found[-1].value or b"") | known | fields
        found[-1] = found[-1]._replace(value=json.dumps(body).encode())


def shop() -> Shop:
    made = small()
    made.__class__ = Shop
    assert isinstance(made, Shop)
    for topic in (made.settings.items_topic, made.settings.rules_topic):
        made.log.topics[topic] = [[]]
    made.item("a", available=True)
    made.item("b", available=True)
    made.alive()
    made.alive(ALICE, items=[{"item": "a", "score": 1.5}, {"item": "b", "score": 1.0}])
    return made


def judged(made: Shop, limit: float = LIMIT) -> Report:
    return verify(made, scope=Scope(reissue_limit=limit))


def removed(made: Shop) -> None:
    made.item("b")


def unavailable(made: Shop) -> None:
    made.item("b", available=False)


def blocked(made: Shop) -> None:
    made.rule("r", **BLOCK)


def left_out(made: Shop) -> None:
    made.rule("r", kind="only", filter={"item": "a"})


def blocked_for_alice(made: Shop) -> None:
    made.rule("r", **BLOCK, segment={"users": [ALICE]})


@pytest.mark.parametrize(
    ("withdraw", "why"),
    [
        (removed, "it is not live"),
        (unavailable, "it is not live"),
        (blocked, "the rule 'r' leaves it out"),
        (left_out, "the rule 'r' leaves it out"),
        (blocked_for_alice, "the rule 'r' leaves it out"),
    ],
)
def test_it_is_named_once_the_limit_is_over(withdraw: Callable[[Shop], None], why: str) -> None:
    made = shop()
    assert judged(made).violations == []
    withdraw(made)
    made.alive()
    made.now += LATER - 2000
    made.alive()
    assert judged(made).violations == []
    made.now += 2000
    made.alive()
    report = judged(made)
    assert report.kinds == {"slate-withdrawn": 1}, report.violations
    (found,) = report.violations
    assert (found.user, found.topic) == (ALICE, made.settings.recommendations_topic)
    assert found.message == f"it still shows 'b' 300 s after that was withdrawn: {why}"
    assert judged(made, 2 * LIMIT).violations == []
    made.alive(ALICE)  # a slate without it
    assert judged(made).violations == []


def not_known(made: Shop) -> None:
    """No slate shows that the owner has read the record, however old the record says that it is."""
    made.now -= LATER
    made.item("b")
    made.now += LATER


def changed_back(made: Shop) -> None:
    made.item("b")
    made.alive()
    made.now += LATER
    made.item("b", available=True)


def changed_just_now(made: Shop) -> None:
    """It was blocked, then removed: both hold long enough together, but the check follows only what stays as it is."""
    made.rule("r", **BLOCK)
    made.alive()
    made.now += LATER
    made.rule("r")


def for_others(made: Shop) -> None:
    made.rule("r", **BLOCK, segment={"users": ["bob"]})
    made.alive()
    made.now += LATER


def in_a_scene(made: Shop) -> None:
    made.rule("r", **BLOCK, scene="home")
    made.alive()
    made.now += LATER


def not_yet(made: Shop) -> None:
    made.rule("r", **BLOCK, since=made.now + LATER - 1000)
    made.alive()
    made.now += LATER


def over(made: Shop) -> None:
    made.rule("r", **BLOCK, until=made.now + LATER)
    made.alive()
    made.now += LATER


def refused(made: Shop) -> None:
    made.rule("first", kind="only", filter={"item": "b"})
    made.rule("r", **BLOCK)
    made.item("a", available=True)
    made.alive()
    made.now += LATER
    made.rule("first")
    made.alive(ALICE)


def of_a_new_owner(made: Shop) -> None:
    made.item("b")
    made.alive()
    made.now += LATER
    made.claim(PARTITION, 1)


def forgotten(made: Shop) -> None:
    made.item("b")
    made.alive()
    made.forget(ALICE)
    made.work()
    made.now += LATER


@pytest.mark.parametrize(
    "happen",
    [
        not_known,
        changed_back,
        changed_just_now,
        for_others,
        in_a_scene,
        not_yet,
        over,
        refused,
        of_a_new_owner,
        forgotten,
    ],
)
def test_what_is_not_certain_or_not_due_is_no_violation(happen: Callable[[Shop], None]) -> None:
    made = shop()
    happen(made)
    made.alive()
    report = judged(made)
    assert report.violations == [], report.violations


def test_nothing_is_due_while_slates_are_hidden() -> None:
    made = shop()
    made.item("b")
    made.alive()
    made.now += LATER
    made.alive()
    topic = made.settings.recommendations_topic
    assert judged(made).kinds == {"slate-withdrawn": 1}
    end = made.log.topics[topic][PARTITION][-1].offset
    made.log.open[topic, PARTITION] = end  # the last one lies behind an open transaction
    assert "slate-withdrawn" not in judged(made).kinds
