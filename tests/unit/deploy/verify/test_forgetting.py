"""Users who were forgotten: the check accepts exactly what a control record allows, and names everything else."""

from __future__ import annotations

import json
from collections.abc import Callable

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from stream.core import state as state_module
from stream.core.state import decode, encode
from tests.unit.deploy.verify.worlds import verify
from tests.unit.synthetic import World, partition_of

ANN = "ann"
HOME = partition_of(ANN)
CLICKS, RATINGS = 0, 1


def lived(world: World, events: int = 3) -> None:
    for number in range(events):
        world.send(number % 3, ANN, f"i{number}")
        world.work()


def forgotten(sweep: bool = True) -> World:
    world = World()
    world.claim(HOME, 1)
    lived(world)
    world.forget(ANN)
    world.work()
    if sweep:
        assert world.sweep() == 1
    return world


def changelog(world: World) -> list[int]:
    """Indices of ann's rows in the changelog."""
    rows = world.log.topics[world.settings.changelog_topic][HOME]
    return [index for index, row in enumerate(rows) if row.key == ANN.encode()]


def test_a_user_is_forgotten() -> None:
    world = forgotten()
    report = verify(world)
    assert (report.exit_code, report.conserved, report.violations) == (0, True, [])
    assert (report.input, report.applied, report.forgotten, report.deleted, report.users) == (6, 0, 6, 1, 0)


@pytest.mark.parametrize("sweep", [False, True])
def test_later_events_start_a_new_user(sweep: bool) -> None:
    world = forgotten(sweep)
    lived(world, 4)
    report = verify(world)
    assert (report.exit_code, report.conserved, report.violations) == (0, True, [])
    assert (report.applied, report.forgotten, report.users) == (4, 6, 1)
    assert world.states[ANN.encode()].seq == 4


def test_events_around_a_control_record_in_one_micro_batch() -> None:
    world = World()
    lived(world, 2)
    world.send(CLICKS, ANN, "before")
    world.forget(ANN)
    world.send(CLICKS, ANN, "after")
    world.work()
    report = verify(world)
    assert (report.exit_code, report.violations) == (0, [])
    assert (report.applied, report.forgotten) == (0, 7), "the last control record is applied after the click"


def test_a_duplicate_of_a_forgotten_event_counts_again() -> None:
    world = World()
    world.send(CLICKS, ANN, id="x")
    world.work()
    world.forget(ANN)
    world.work()
    world.send(CLICKS, ANN, id="x")
    world.work()
    report = verify(world)
    assert (report.exit_code, report.applied, report.duplicates) == (0, 1, 0)


def tombstone_of_a_live_user(world: World) -> None:
    world.write(ANN.encode(), HOME, None)


def tombstone_without_a_writer(world: World) -> None:
    world.write(ANN.encode(), HOME, None, epoch=0)


def emptied_for_no_reason(world: World) -> None:
    state = state_module.new(world.states[ANN.encode()].model, 16)
    state.applied = list(world.states[ANN.encode()].applied)
    world.write(ANN.encode(), HOME, encode(state))


def slate_tombstone_of_a_live_user(world: World) -> None:
    world.log.append(world.settings.recommendations_topic, HOME, ANN.encode(), None)


@pytest.mark.parametrize(
    ("change", "kind"),
    [
        (tombstone_of_a_live_user, "state"),
        (tombstone_without_a_writer, "state"),
        (emptied_for_no_reason, "stale"),
        (slate_tombstone_of_a_live_user, "slate"),
    ],
)
def test_nobody_is_forgotten_unasked(change: Callable[[World], None], kind: str) -> None:
    world = World()
    world.claim(HOME, 1)
    lived(world)
    assert verify(world).exit_code == 0
    change(world)
    assert set(verify(world).kinds) == {kind}


def keeps_recent(world: World) -> None:
    _alter(world, recent=decode(_record(world, changelog(world)[-2])).recent, recent_count=3)


def keeps_seen(world: World) -> None:
    _alter(world, seen=decode(_record(world, changelog(world)[-2])).seen)


def keeps_chain(world: World) -> None:
    _alter(world, chain=b"x" * 16)


def keeps_time(world: World) -> None:
    _alter(world, last_time=5)


def _record(world: World, index: int) -> bytes:
    return world.log.topics[world.settings.changelog_topic][HOME][index].value or b""


def _alter(world: World, **fields: object) -> None:
    rows = world.log.topics[world.settings.changelog_topic][HOME]
    at = changelog(world)[-1]
    state = decode(_record(world, at))
    for name, value in fields.items():
        setattr(state, name, value)
    rows[at] = rows[at]._replace(value=encode(state))


@pytest.mark.parametrize("change", [keeps_recent, keeps_seen, keeps_chain, keeps_time])
def test_an_emptied_state_keeps_nothing(change: Callable[[World], None]) -> None:
    world = forgotten(sweep=False)
    change(world)
    assert verify(world).exit_code == 1


def test_a_control_record_that_nobody_applied_is_lost() -> None:
    world = World()
    lived(world)
    world.forget(ANN)
    for topic, rows in ((topic, world.log.topics[topic][HOME]) for topic in world.settings.sources):
        world.log.offsets[topic, HOME] = len(rows)
    assert verify(world).kinds == {"lost": 3}


def test_an_event_after_the_control_records_may_not_be_lost() -> None:
    world = forgotten()
    lived(world)
    world.send(CLICKS, ANN)
    for topic in world.settings.sources:
        world.log.offsets[topic, HOME] = len(world.log.topics[topic][HOME])
    assert verify(world).kinds == {"lost": 1}


def test_no_slate_shows_what_was_forgotten() -> None:
    world = forgotten()
    rows = world.log.topics[world.settings.recommendations_topic][HOME]
    old = next(row for row in reversed(rows) if row.value)
    body = json.loads(old.value or b"") | {"slate": "again", "events": [], "replay": True}
    world.log.append(world.settings.recommendations_topic, HOME, ANN.encode(), json.dumps(body).encode())
    assert verify(world).kinds == {"slate-state": 1}


def test_after_compaction_it_cannot_be_judged_and_nothing_is_lost() -> None:
    world = forgotten()
    world.send(CLICKS, "bob")
    world.work()
    for topic in (world.settings.changelog_topic, world.settings.recommendations_topic):
        rows = world.log.topics[topic][HOME]
        rows[:] = [row for row in rows if row.key != ANN.encode()]
        last = rows[-1]
        world.log.topics[topic][HOME].append(last._replace(offset=last.offset + 9))  # a hole also at the end
    report = verify(world)
    assert (report.violations, report.lost, report.exit_code, report.unseen) == ([], 0, 3, 6)
    world.send(CLICKS, "bob")
    world.log.offsets["clicks", partition_of("bob")] = len(world.log.topics["clicks"][partition_of("bob")])
    assert verify(world).kinds == {"lost": 1}


def test_a_new_user_whose_control_records_are_read_again_gets_a_slate_flagged_as_a_replay() -> None:
    world = World()
    lived(world, 1)
    world.forget(ANN)
    world.work()
    world.send(CLICKS, ANN)
    world.work(again=1)
    assert verify(world).violations == []


STEPS = st.lists(
    st.one_of(
        st.tuples(st.just("send"), st.integers(0, 2), st.sampled_from([ANN, "bob", "eve"])),
        st.tuples(st.just("forget"), st.just(0), st.sampled_from([ANN, "bob"])),
        st.tuples(st.just("work"), st.integers(1, 4), st.just("")),
        st.tuples(st.just("again"), st.integers(1, 3), st.just("")),
        st.tuples(st.just("sweep"), st.just(0), st.just("")),
    ),
    max_size=40,
)


@given(STEPS)
@settings(max_examples=500, deadline=None)
def test_whatever_happens_around_it(steps: list[tuple[str, int, str]]) -> None:
    """Sends, control records, micro-batches of any size, records that are read again before a sweep, sweeps."""
    world = World()
    for partition in range(2):
        world.claim(partition, 1)
    for step, number, user in steps:
        if step == "send":
            world.send(number, user, f"i{number}", id=f"{user}{number}" if number == CLICKS else "")
        elif step == "forget":
            world.forget(user)
        elif step == "sweep":
            world.sweep()
        elif step == "again" and all(state.seq for state in world.states.values()) and not _deleted(world):
            world.work(again=number)
        else:
            world.work(limit=number)
    world.work()
    world.sweep()
    report = verify(world)
    assert (report.exit_code, report.violations, report.conserved) == (0, [], True)


def _deleted(world: World) -> bool:
    """Whether a state was deleted: what it covered is committed, and is not read again."""
    return any(row.value is None for row in world.log.all(world.settings.changelog_topic))
