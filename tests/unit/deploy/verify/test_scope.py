"""Ranges: what is in one is judged, whatever lies before it."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from deploy.verify import Scope, check, scope
from stream.core import state as state_module
from stream.core.errors import DataError
from tests.unit.deploy.verify.worlds import ALICE, eventful, forgotten_event, missing_slate, states, verify, wrong_chain
from tests.unit.synthetic import NOW, PARTITIONS, World, partition_of


def later(world: World) -> World:
    """An hour later there are more events of old and new users."""
    world.now = NOW + 3_600_000
    for number in range(30):
        world.send(number % 3, f"u{number % 20}", f"i{number}")
        if number % 7 == 0:
            world.work()
    world.work()
    return world


def test_since_judges_what_came_since() -> None:
    world = later(eventful())
    report = check(world.log, world.settings, scope=Scope(since=NOW + 1))
    assert report.violations == []
    assert (report.input, report.applied, report.exit_code) == (30, 30, 0)


def test_until_judges_what_came_before() -> None:
    world = later(eventful())
    report = check(world.log, world.settings, scope=Scope(until=NOW + 1))
    assert report.violations == []
    assert (report.input, report.exit_code) == (300, 0)
    assert check(world.log, world.settings, scope=Scope(since=NOW + 1, until=NOW + 2)).input == 0


def test_states_are_adopted_where_their_events_are_out_of_sight(monkeypatch: pytest.MonkeyPatch) -> None:
    """Without a run-in nothing before the range is read."""
    monkeypatch.setattr(scope, "RUN_IN", 0)
    world = later(eventful())
    report = check(world.log, world.settings, scope=Scope(since=NOW + 1))
    assert report.violations == []
    assert (report.input, report.applied, report.adopted, report.exit_code) == (30, 30, 12, 0)


@pytest.mark.parametrize("run_in", [0, 20_000])
@pytest.mark.parametrize(
    ("mutate", "kind"), [(forgotten_event, "lost"), (missing_slate, "uncovered"), (wrong_chain, "chain")]
)
def test_a_break_within_the_range_is_seen(
    monkeypatch: pytest.MonkeyPatch, mutate: Callable[[World], None], kind: str, run_in: int
) -> None:
    monkeypatch.setattr(scope, "RUN_IN", run_in)
    world = eventful()
    world.now = NOW + 3_600_000
    for behaviour, item in ((0, "i1"), (0, "i2"), (2, "i4")):
        world.send(behaviour, ALICE, item)
        world.work()
    mutate(world)
    assert kind in check(world.log, world.settings, scope=Scope(since=NOW + 1)).kinds


def id_again(between: int) -> World:
    """An id was given before the range, `between` events come in it, then the worker takes the id in once more."""
    world = World()
    world.send(0, ALICE, "i0", id="x7")
    world.work()
    world.now = NOW + 10_000_000
    for number in range(between):
        world.send(0, ALICE, f"i{number}")
        world.work()
    state = world.states[ALICE.encode()]
    kept = state.recent
    state.recent = kept.replace(b"x7", b"y7")  # for as long as it looks
    world.send(0, ALICE, "i2", id="x7")
    world.work()
    found, mine = states(world)
    last = state_module.decode(found[mine[-1]].value or b"")
    last.recent = last.recent.replace(b"y7", b"x7")
    found[mine[-1]] = found[mine[-1]]._replace(value=state_module.encode(last))
    return world


@pytest.mark.parametrize("run_in", [0, 20_000])
@pytest.mark.parametrize(
    "ranged", [Scope(), Scope(since=NOW + 10_000_000), Scope(starts={("clicks", partition_of(ALICE)): 2})]
)
@pytest.mark.parametrize(("between", "double"), [(1, 1), (2, 1), (63, 1), (64, 0), (65, 0), (130, 0)])
def test_an_id_that_was_given_before_the_range_is_double_in_it(
    monkeypatch: pytest.MonkeyPatch, run_in: int, ranged: Scope, between: int, double: int
) -> None:
    monkeypatch.setattr(scope, "RUN_IN", run_in)
    world = id_again(between)
    report = check(world.log, world.settings, scope=ranged)
    assert (report.double, dict(report.kinds)) == (double, {"double": 1} if double else {})


def test_a_break_before_the_range_is_not_looked_for() -> None:
    world = eventful()
    found = world.log.topics["clicks"][0]
    first = next(index for index, row in enumerate(found) if row.value and b"item" in row.value)
    world.letter("clicks", found[first], "a good record")
    assert "valid-dead-letter" in verify(world).kinds
    later(world)
    report = check(world.log, world.settings, scope=Scope(since=NOW + 1))
    assert report.input == 30
    assert "lost" not in report.kinds


def test_from_an_offset_on() -> None:
    world = eventful()
    count = sum(len(rows) for rows in world.log.topics["clicks"])
    starts = {("clicks", partition): 10 for partition in range(PARTITIONS)}
    report = check(world.log, world.settings, scope=Scope(starts=starts))
    assert report.violations == []
    assert (report.input, report.exit_code) == (300 - 10 * PARTITIONS, 0)
    assert count > 10 * PARTITIONS
    with pytest.raises(DataError, match="elsewhere/0"):
        check(world.log, world.settings, scope=Scope(starts={("elsewhere", 0): 0}))
