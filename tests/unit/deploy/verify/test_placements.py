"""Placements: an event must be shown by one slate of each published placement, and by no other."""

from __future__ import annotations

import json
import random
from typing import Any

import pytest

from deploy.verify import Report, Scope, check
from stream.core.errors import DataError
from stream.settings import DEFAULT_PLACEMENT, Settings, load
from tests.unit.deploy.verify.worlds import ALICE, verify
from tests.unit.synthetic import NOW, World, partition_of

HOME = partition_of(ALICE)


def with_cart(*published: str) -> Settings:
    return load(app_id="t", placements={"cart": {"size": 4}, "home": {}}, published=published)


class Publishing(World):
    """A right worker: a slate for each published placement, `default` last."""

    def slate(self, user: bytes, partition: int, replay: bool, **other: Any) -> None:
        for name in self.settings.published_in_order:
            named = {} if name == DEFAULT_PLACEMENT else {"placement": name}
            super().slate(user, partition, replay, **{**named, **other})


def clicks(settings: Settings, count: int = 4) -> Publishing:
    world = Publishing(settings)
    for number in range(count):
        world.send(0, ALICE, f"i{number}")
        world.work()
    return world


def slates(world: World) -> list[tuple[int, dict[str, Any]]]:
    rows = world.log.topics[world.settings.recommendations_topic][HOME]
    return [(index, json.loads(row.value or b"")) for index, row in enumerate(rows)]


def remove(world: World, seq: int, placement: str) -> None:
    """Delete one slate, as if it had never been written."""
    for index, slate in slates(world):
        if (slate["seq"], slate.get("placement", DEFAULT_PLACEMENT)) == (seq, placement):
            del world.log.topics[world.settings.recommendations_topic][HOME][index]
            break
    world.log.renumber(world.settings.recommendations_topic)


def says(report: Report) -> list[str]:
    return [one.message for one in report.violations]


@pytest.mark.parametrize("published", [("default",), ("default", "cart"), ("cart",), ("home", "default", "cart")])
def test_a_right_worker_is_green(published: tuple[str, ...]) -> None:
    world = clicks(with_cart(*published))
    world.anyone()
    report = verify(world)
    assert (report.violations, report.exit_code, report.applied, report.uncovered) == ([], 0, 4, 0)
    assert report.slates == 4 * len(published) + (partition_of("*") == HOME)


@pytest.mark.parametrize("seed", range(4))
def test_replays_duplicates_and_retries_are_counted_for_each_placement(seed: int) -> None:
    world, chance = Publishing(with_cart("cart", "default")), random.Random(seed)
    for _ in range(120):
        fields: dict[str, Any] = {"id": f"e{chance.randrange(40)}"} if chance.random() < 0.4 else {}
        world.send(chance.choice((0, 0, 1)), f"u{chance.randrange(5)}", f"i{chance.randrange(20)}", **fields)
        if chance.random() < 0.3:
            world.work(again=chance.randrange(4))
    world.work()
    report = verify(world)
    assert report.violations == []
    assert report.replays % 2 == 0
    topic = world.settings.recommendations_topic
    written = [rows for rows in world.log.topics[topic] if rows]
    for rows in written:  # a client's retry writes the slates of a batch twice
        rows.extend(rows[-2:])
    world.log.renumber(topic)
    again = verify(world)
    assert (again.violations, again.repeated) == ([], 2 * len(written))


@pytest.mark.parametrize("placement", ["cart", "default"])
def test_an_event_without_a_slate_of_one_placement_is_uncovered(placement: str) -> None:
    world = clicks(with_cart("default", "cart"))
    remove(world, 3, placement)
    report = verify(world)
    assert (report.kinds, report.uncovered, report.exit_code) == ({"uncovered": 1}, 1, 1)
    of = " of the placement 'cart'" if placement == "cart" else ""
    assert says(report) == [f"it is in a state that no slate{of} shows"]
    remove(world, 3, "cart" if placement == "default" else "default")
    assert verify(world).uncovered == 2


def test_a_replay_covers_events_of_its_own_placement_only() -> None:
    world = clicks(with_cart("default", "cart"))
    remove(world, 2, "cart")
    remove(world, 2, "default")
    World.slate(world, ALICE.encode(), HOME, True, events=[])
    assert says(verify(world)) == ["it is in a state that no slate of the placement 'cart' shows"]
    World.slate(world, ALICE.encode(), HOME, True, events=[], placement="cart")
    assert verify(world).violations == []


def test_an_event_named_twice_by_one_placement_is_red() -> None:
    world = clicks(with_cart("default", "cart"))
    last = next(slate for _, slate in reversed(slates(world)) if slate.get("placement") == "cart")
    again = json.dumps(last | {"slate": "other"}).encode()
    world.log.append(world.settings.recommendations_topic, HOME, ALICE.encode(), again)
    (message,) = says(verify(world))
    assert message.endswith(" as new, but that was named before")


@pytest.mark.parametrize("name", ["home", "elsewhere", "default"])
def test_a_slate_of_a_placement_that_is_not_published_is_red(name: str) -> None:
    world = clicks(with_cart("default", "cart"))
    World.slate(world, ALICE.encode(), HOME, True, events=[], placement=name)
    report = verify(world)
    assert report.kinds == {"slate": 1}
    assert says(report) == [f"its placement is {name!r}, expected none, or one that is published (cart)"]
    world = clicks(load(app_id="t"))
    World.slate(world, ALICE.encode(), HOME, True, events=[], placement=name)
    assert says(verify(world)) == [f"its placement is {name!r}, expected none"]


def test_a_change_of_placements_is_hinted_at_once() -> None:
    """Settings of before the change, and those of after it without the end of the former value."""
    world = clicks(with_cart("default"), 2)
    world.settings = after = with_cart("default", "cart")
    for number in range(2):
        world.send(0, ALICE, f"j{number}")
        world.work()
    world.settings = with_cart("default")
    before = verify(world)
    assert before.kinds == {"slate": 2}
    world.settings = after
    report = verify(world)
    assert report.kinds == {"uncovered": 2}
    for hints, published in ((before.hints, "of default."), (report.hints, "of default, cart.")):
        (hint,) = hints
        assert published in hint
        assert "freshet --config FILE verify" in hint
        assert "--published-before TIME=default" in hint


def test_without_placements_nothing_hints_at_them() -> None:
    world = clicks(load(app_id="t"))
    remove(world, 2, "default")
    report = verify(world)
    assert (report.kinds, report.hints) == ({"uncovered": 1}, [])
    assert "hints" in report.as_dict()


def test_the_slate_for_unknown_users_has_no_placement() -> None:
    world = clicks(with_cart("default", "cart"))
    world.anyone(placement="cart")
    assert says(verify(world)) == ["it does not have the form of a slate for anyone unknown"]


def test_what_was_published_before_a_change_counts_until_then() -> None:
    """Two events, then `cart` is published, too, then two more."""
    world = clicks(with_cart("default"), 2)
    world.settings, world.now = with_cart("default", "cart"), NOW + 1000
    for number in range(2):
        world.send(0, ALICE, f"j{number}")
        world.work()
    assert verify(world).uncovered == 2
    for before in (f"clicks/{HOME}/2=default", f"{NOW + 1000}=default"):
        report = check(world.log, world.settings, scope=Scope(published_before=(before,)))
        assert (report.violations, report.exit_code) == ([], 0), before
    report = check(world.log, world.settings, scope=Scope(published_before=(f"clicks/{HOME}/1=default",)))
    assert report.uncovered == 1
    with pytest.raises(DataError, match=r"--published-before clicks/0/1=x: 'x': expected names of placements"):
        check(world.log, world.settings, scope=Scope(published_before=("clicks/0/1=x",)))


def test_a_placement_that_is_published_no_more_was_until_the_change() -> None:
    world = clicks(with_cart("default", "cart"), 2)
    world.settings = with_cart("default")
    world.send(0, ALICE, "j")
    world.work()
    assert verify(world).kinds == {"slate": 2}
    report = check(world.log, world.settings, scope=Scope(published_before=(f"clicks/{HOME}/2=cart,default",)))
    assert (report.violations, report.exit_code) == ([], 0)


def test_forgotten_users_leave_no_placement_behind() -> None:
    world = clicks(with_cart("default", "cart"), 2)
    world.forget(ALICE)
    world.work()
    world.send(0, ALICE, "again")
    world.work()
    assert verify(world).violations == []
