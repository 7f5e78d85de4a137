"""The slates: each shows a durable state, each event is shown, and what is no slate of a worker is named."""

from __future__ import annotations

import json
import random
from collections.abc import Callable

import pytest

from stream.core import state as state_module
from tests.unit.deploy.verify.worlds import (
    ALICE,
    HOME,
    change_slate,
    eventful,
    missing_slate,
    named,
    red,
    slates,
    small,
    verify,
)
from tests.unit.synthetic import World, partition_of


def silent_slate(world: World) -> None:
    change_slate(world, 1, events=[])


def short_slate(world: World) -> None:
    change_slate(world, 1, events=json.loads(slates(world)[0][slates(world)[1][1]].value or b"")["events"][:1])


def slate_names_twice(world: World) -> None:
    found, mine = slates(world)
    again = json.loads(found[mine[2]].value or b"") | {"slate": "other"}
    world.log.append(
        world.settings.recommendations_topic, partition_of(ALICE), ALICE.encode(), json.dumps(again).encode()
    )


def slate_of_no_state(world: World) -> None:
    world.slate(ALICE.encode(), partition_of(ALICE), True, seq=99, events=[])


def slate_of_nobody(world: World) -> None:
    world.states[b"nobody"] = state_module.new(bytes(16), 16)
    world.slate(b"nobody", partition_of("nobody"), True)


def slate_of_another_chain(world: World) -> None:
    change_slate(world, 2, chain="00" * 16)


def slate_with_other_applied(world: World) -> None:
    change_slate(world, 2, applied={f"clicks/{partition_of(ALICE)}": 0})


def slate_with_an_item_twice(world: World) -> None:
    change_slate(world, 2, items=[{"item": "a", "score": 1.0}, {"item": "a", "score": 1.0}])


def slate_against_the_schema(world: World) -> None:
    change_slate(world, 2, seq="4")


def test_a_skipped_slate_is_made_good_by_a_replay() -> None:
    world = small()
    missing_slate(world)
    world.work(again=1)  # what the next worker does: everything uncommitted once more
    report = verify(world)
    assert report.violations == []
    assert report.replays > 0


def test_a_replay_before_the_event_does_not_cover_it() -> None:
    world = World()
    world.send(0, ALICE)
    world.work()
    world.work(again=1)
    world.send(0, ALICE)
    world.work()
    found, mine = slates(world)
    del found[mine[-1]]
    assert verify(world).kinds == {"uncovered": 1}


def test_compacted_slates_cannot_be_judged() -> None:
    world = small()
    found, mine = slates(world)
    del found[mine[0]]
    report = verify(world)
    assert report.violations == []
    assert (report.uncovered, report.unverifiable, report.exit_code) == (0, 1, 3)


def test_the_popularity_slate_shows_no_state() -> None:
    world = small()
    world.anyone()
    world.anyone(world.claim(HOME, 1))
    assert verify(world).violations == []


def erased_slate(world: World) -> None:
    world.log.append(world.settings.recommendations_topic, partition_of(ALICE), ALICE.encode(), None)


def slate_without_a_key(world: World) -> None:
    value = slates(world)[0][slates(world)[1][0]].value
    world.log.append(world.settings.recommendations_topic, partition_of(ALICE), None, value)


def slate_on_another_partition(world: World) -> None:
    value = slates(world)[0][slates(world)[1][0]].value
    world.log.append(world.settings.recommendations_topic, 1 - partition_of(ALICE), ALICE.encode(), value)


def slate_of_another_strategy(world: World) -> None:
    change_slate(world, 2, strategy="popularity")


def anyone_with_a_state(world: World) -> None:
    world.anyone(seq=4)


def anyone_with_interest(world: World) -> None:
    world.anyone(strategy="interest")


def anyone_by_another_name(world: World) -> None:
    world.anyone(slate="best")


def anyone_elsewhere(world: World) -> None:
    world.anyone(partition=1 - HOME)


def anyone_without_a_writer(world: World) -> None:
    world.anyone(world.claim(HOME, 1))
    world.anyone()


def anyone_of_an_epoch_that_nobody_claimed(world: World) -> None:
    world.anyone(world.claim(HOME, 1) + 1)


MUTANTS: list[tuple[Callable[[World], None], set[str]]] = [
    (missing_slate, {"uncovered"}),
    (silent_slate, {"slate-events", "uncovered"}),
    (short_slate, {"slate-events", "uncovered"}),
    (slate_names_twice, {"slate-events"}),
    (slate_of_no_state, {"slate-state"}),
    (slate_of_nobody, {"slate-state"}),
    (slate_of_another_chain, {"slate-chain", "uncovered"}),
    (slate_with_other_applied, {"slate-applied"}),
    (slate_with_an_item_twice, {"slate"}),
    (slate_against_the_schema, {"slate", "uncovered"}),
]


@pytest.mark.parametrize(("mutate", "kinds"), MUTANTS, ids=lambda value: getattr(value, "__name__", ""))
def test_a_mutant_is_red_for_the_right_reason(mutate: Callable[[World], None], kinds: set[str]) -> None:
    red(mutate, kinds)


FORGERIES: list[tuple[Callable[[World], None], str, str]] = [
    (erased_slate, "slate", "a tombstone"),
    (slate_without_a_key, "slate", "the key is not that of its user"),
    (slate_on_another_partition, "slate", "on a partition"),
    (slate_of_another_strategy, "slate", "'popularity'"),
    (anyone_with_a_state, "slate", "not have the form"),
    (anyone_with_interest, "slate", "not have the form"),
    (anyone_by_another_name, "slate", "not have the form"),
    (anyone_elsewhere, "slate", "not that of `*`"),
    (anyone_without_a_writer, "slate", "names no writer"),
    (anyone_of_an_epoch_that_nobody_claimed, "slate", "nobody claimed"),
]


@pytest.mark.parametrize(("forge", "kind", "says"), FORGERIES, ids=lambda value: getattr(value, "__name__", ""))
def test_a_forged_record_is_named_and_breaks_nothing_else(forge: Callable[[World], None], kind: str, says: str) -> None:
    named(forge, kind, says)


@pytest.mark.parametrize("seed", range(5))
def test_states_are_found_whatever_order_slates_come_in(seed: int) -> None:
    """Slates of one user may be read in any order: each finds its own state."""
    world = eventful(seed)
    for rows in world.log.topics[world.settings.recommendations_topic]:
        random.Random(seed).shuffle(rows)
    world.log.renumber(world.settings.recommendations_topic)
    assert verify(world).violations == []
