"""Slates that were re-issued: one with a reason and a right is no event, no replay and no double; any other is named."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import pytest

from stream.core import state as state_module
from tests.unit.deploy.verify.test_recompute import HOME as THERE
from tests.unit.deploy.verify.test_recompute import ITEMS, Worker, five_clicks, judged
from tests.unit.deploy.verify.worlds import ALICE, missing_slate, small, verify
from tests.unit.synthetic import NOW, World, partition_of

__all__ = ["judged"]

PARTITION = partition_of(ALICE)
SHOWN = [{"item": "a", "score": 1.5}, {"item": "b", "score": 1.0}]


def reissued(world: World, epoch: int | None = 3, headers: Any = None, **fields: Any) -> None:
    """A worker re-issues Alice's slate without the item `b`."""
    topic = world.settings.recommendations_topic
    world.slate(ALICE.encode(), PARTITION, False)
    row = world.log.topics[topic][PARTITION].pop()
    body = json.loads(row.value or b"") | {
        "items": SHOWN[:1], "events": [], "latency_ms": -1, "replay": False, "withdrawn": ["b"],
    } | fields  # fmt: skip
    stamp = () if epoch is None else (("writer", str(epoch).encode()),)
    world.log.append(topic, PARTITION, ALICE.encode(), json.dumps(body).encode(), stamp, world.now)


def claimed() -> World:
    """Alice's partition is owned by epoch 3, and she has states of it."""
    world = small()
    world.claim(PARTITION, 2)
    world.claim(PARTITION, 3)
    world.send(0, ALICE, "i9")
    world.work()
    return world


def test_a_reissued_slate_is_right_and_covers_nothing() -> None:
    world = claimed()
    reissued(world)
    report = verify(world)
    assert (report.violations, report.exit_code, report.reissued, report.replays) == ([], 0, 1, 0)
    world.send(0, ALICE, "i8")
    world.work()
    reissued(world)
    assert verify(world).violations == []


def test_a_reissued_slate_does_not_make_good_for_a_missing_one() -> None:
    world = small()
    missing_slate(world)
    world.claim(PARTITION, 3)
    reissued(world)
    assert verify(world).kinds["uncovered"]


def test_the_slates_of_the_next_owner_may_be_reissued_again() -> None:
    world = claimed()
    reissued(world)
    world.claim(PARTITION, 4)
    reissued(world, 4, items=[{"item": "c", "score": 1.0}], withdrawn=["a"])
    assert verify(world).violations == []


def again_for_the_same_item(world: World) -> None:
    reissued(world)
    reissued(world, slate="more")


def by_a_fenced_writer_after_a_newer_one(world: World) -> None:
    world.claim(PARTITION, 4)
    reissued(world, 4)
    reissued(world, 3, items=[], withdrawn=["a"])


def by_a_fenced_writer_long_after(world: World) -> None:
    world.claim(PARTITION, 4)
    world.now += 60_000
    reissued(world, 3)


MUTANTS: list[tuple[Callable[[World], None], str]] = [
    (lambda world: reissued(world, withdrawn=[]), "without a reason: it names no item"),
    (lambda world: reissued(world, withdrawn=["z"]), "without a reason: the slate before it does not show 'z'"),
    (again_for_the_same_item, "the slate before it does not show 'b'"),
    (lambda world: reissued(world, items=SHOWN), "shows 'b', which it names as withdrawn"),
    (lambda world: reissued(world, replay=True), "no event may be applied"),
    (lambda world: reissued(world, latency_ms=3), "no event may be applied"),
    (lambda world: reissued(world, None), "by no writer"),
    (lambda world: reissued(world, 9), "epoch 9, which nobody claimed"),
    (lambda world: reissued(world, 2), "by a fenced writer: it names epoch 2, but 3 was in force"),
    (by_a_fenced_writer_after_a_newer_one, "by a fenced writer: it names epoch 3, but 4 was in force"),
    (by_a_fenced_writer_long_after, "by a fenced writer: it names epoch 3, but 4 was in force"),
]


@pytest.mark.parametrize(("mutate", "says"), MUTANTS, ids=range(len(MUTANTS)))
def test_a_wrong_one_is_named(mutate: Callable[[World], None], says: str) -> None:
    world = claimed()
    mutate(world)
    report = verify(world)
    assert report.kinds == {"reissue": 1}, report.violations
    assert says in report.violations[0].message
    assert (report.violations[0].user, report.violations[0].topic) == (ALICE, world.settings.recommendations_topic)


def test_one_of_a_wrong_state_is_named_as_any_slate_is() -> None:
    for fields, kind in (({"seq": 99}, "slate-state"), ({"chain": "00" * 16}, "slate-chain")):
        world = claimed()
        reissued(world, **fields)
        assert verify(world).kinds == {kind: 1}


def test_one_without_a_slate_before_it_has_no_reason() -> None:
    world = claimed()
    rows = world.log.topics[world.settings.recommendations_topic][PARTITION]
    reissued(world)
    last = rows.pop()
    rows[:] = [row for row in rows if row.key != ALICE.encode()]
    rows.append(last)
    world.log.renumber(world.settings.recommendations_topic)
    assert verify(world).kinds["reissue"] == 1
    rows[-1] = rows[-1]._replace(offset=rows[-1].offset + 5)  # compacted away
    report = verify(world)
    assert "reissue" not in report.kinds
    assert report.unverifiable


def test_one_for_a_user_who_was_forgotten_has_no_reason() -> None:
    world = claimed()
    world.forget(ALICE)
    world.work()
    assert verify(world).violations == []
    reissued(world)
    report = verify(world)
    assert "there is no slate before it" in str(report.violations), report.violations


def with_items(world: Worker, gone: int) -> None:
    """The items of the made-up bundle; one of them is removed at the end."""
    topic = world.settings.items_topic
    world.log.topics.setdefault(topic, [[] for _ in range(2)])
    assert len(world.log.topics[topic][0]) == ITEMS
    world.log.append(topic, 0, f"item-{gone}".encode(), None)


def state_of(world: Worker) -> state_module.Interest:
    return world.states[b"alice"]


def best(world: Worker, without: int) -> list[dict[str, Any]]:
    state = state_of(world)
    seen = {int(one) for one in state.seen_hashes()}
    left = [row for row in range(ITEMS, 0, -1) if row != without and state_module.item_hash(f"item-{row}") not in seen]
    return [{"item": f"item-{row}", "score": row * 1.0 + float(state.h[0])} for row in left[:10]]


def test_contents_and_reason_are_judged_by_the_items_that_it_names(judged: Any) -> None:
    for catalogue, items, withdrawn, kinds in (
        (ITEMS, 30, "item-30", {}),
        (ITEMS, 0, "item-30", {"reissue": 1, "ranking": 1}),  # it shows what it withdraws, and that is not live
        (ITEMS - 1, 30, "item-30", {"reissue": 1, "ranking": 1}),  # at that offset the item was still there
        (ITEMS, 29, "item-29", {"reissue": 1, "ranking": 1}),  # this one was not withdrawn
    ):
        world = five_clicks()
        with_items(world, 30)
        world.claim(THERE, 1)
        world.slate(
            b"alice", THERE, False, items=best(world, items), catalogue=catalogue, bundle="A", events=[], latency_ms=-1,
            withdrawn=[withdrawn], time=NOW,
        )  # fmt: skip
        rows = world.log.topics[world.settings.recommendations_topic][THERE]
        rows[-1] = rows[-1]._replace(headers=(("writer", b"1"),))
        report = judged(world, "A")
        assert report.kinds == kinds, (report.violations, catalogue, withdrawn)
