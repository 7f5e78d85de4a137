"""`freshet verify` on logs in memory: a right worker is green, and every way of breaking its output is red by its name."""

from __future__ import annotations

import json
import random
import re
from collections.abc import Callable
from dataclasses import fields
from hashlib import sha256
from pathlib import Path

import pytest
import rocksdict
import typer

from deploy.cli.commands import verify as command
from deploy.verify import Report, Scope, check, scope
from deploy.verify.fencing import CLAIM
from deploy.verify.local_store import OFFSET_KEY
from deploy.verify.recent_events import split
from deploy.verify.source_index import SourceIndex
from deploy.verify.validator import Accepted, Validator
from stream.core import state as interest
from stream.core.errors import DataError, TopologyError
from stream.kafka.fenced_users import NOTES
from tests.conftest import ROOT
from tests.unit.synthetic import NOW, PARTITIONS, Row, World, event, partition_of

ALICE, BOB = "alice", "bob"
HOME = partition_of("*")


def verify(world: World, **arguments: float) -> Report:
    return check(world.log, world.settings, **arguments)


def eventful(seed: int = 1) -> World:
    """Many users, all behaviours, duplicates, bad records, replays, several micro-batches."""
    world = World()
    chance = random.Random(seed)
    for _ in range(300):
        user = f"u{chance.randrange(12)}"
        behaviour = chance.choice((0, 0, 0, 1, 2))
        fields = {"id": f"e{chance.randrange(60)}"} if chance.random() < 0.3 else {}
        if chance.random() < 0.05:
            world.send_raw(behaviour, user.encode(), b'{"user": 1}', partition_of(user))
        else:
            world.send(behaviour, user, f"i{chance.randrange(40)}", time=NOW - chance.randrange(10**9), **fields)
        if chance.random() < 0.1:
            world.work(again=chance.randrange(4))
    world.work()
    return world


@pytest.mark.parametrize("seed", range(5))
def test_a_right_worker_is_green(seed: int) -> None:
    world = eventful(seed)
    report = verify(world)
    assert report.violations == []
    assert report.exit_code == 0
    assert report.conserved
    assert report.input == 300
    assert report.input == report.applied + report.dead_letters + report.duplicates
    assert report.duplicates > 0
    assert report.dead_letters > 0
    assert report.replays > 0
    assert report.lost == report.double == report.uncovered == report.pending == report.unverifiable == 0


def test_more_than_64_events_and_a_late_duplicate() -> None:
    world = World()
    world.send(0, ALICE, id="first")
    for number in range(64):
        world.send(0, ALICE, id=f"n{number}")
    world.send(1, ALICE, id="n0")  # a duplicate in the same micro-batch, of the oldest that the ring still has
    world.work()
    world.send(0, ALICE, id="first")  # no longer in the ring: an event like any other
    world.send(0, ALICE, id="n63")
    world.work()
    report = verify(world)
    assert report.violations == []
    assert (report.applied, report.duplicates) == (66, 2)


def test_a_worker_that_lags_is_not_judged_yet() -> None:
    world = World()
    world.send(0, ALICE)
    world.work()
    world.send(0, ALICE)
    report = verify(world)
    assert report.exit_code == 3
    assert (report.pending, report.lost) == (1, 0)


def test_waiting_in_vain_is_a_loss() -> None:
    world = World()
    world.send(0, ALICE)
    report = check(world.log, world.settings, wait=0.01, sleep=lambda seconds: None)
    assert report.exit_code == 1
    assert report.kinds == {"lost": 1}


def test_waiting_until_all_is_committed() -> None:
    world = World()
    world.send(0, ALICE)
    world.send_raw(1, None, b"")
    report = check(world.log, world.settings, wait=60, sleep=lambda seconds: world.work())
    assert report.exit_code == 0
    assert (report.applied, report.dead_letters) == (1, 1)


def test_what_came_after_the_start_of_the_check_is_not_judged() -> None:
    world = World()
    world.send(0, ALICE)

    def work_and_go_on(seconds: float) -> None:
        world.work()
        world.send(0, ALICE)
        world.send_raw(0, None, b"")

    report = check(world.log, world.settings, wait=60, sleep=work_and_go_on)
    assert report.exit_code == 0
    assert (report.input, report.applied) == (1, 1)


# Every mutant breaks one thing in the output of a right worker.


def small() -> World:
    """Alice has three states (seq 1, 3, 4), Bob one; one bad record."""
    world = World()
    world.send(0, ALICE, "i1")
    world.work()
    world.send(0, ALICE, "i2")
    world.send(1, ALICE, "i3")
    world.send(0, BOB, "i1")
    world.send_raw(2, b"carol", b"{", partition_of("carol"))
    world.work()
    world.send(2, ALICE, "i4", id="x4")
    world.work()
    return world


def rows(world: World, topic: str, user: str) -> tuple[list[Row], list[int]]:
    """All records of the user's partition, and the places of the user's own among them."""
    found = world.log.topics[topic][partition_of(user)]
    return found, [place for place, row in enumerate(found) if row.key == user.encode()]


def states(world: World) -> tuple[list[Row], list[int]]:
    return rows(world, world.settings.changelog_topic, ALICE)


def slates(world: World) -> tuple[list[Row], list[int]]:
    return rows(world, world.settings.recommendations_topic, ALICE)


def change_state(world: World, place: int, change: Callable[[interest.Interest], None]) -> None:
    found, mine = states(world)
    row = found[mine[place]]
    state = interest.decode(row.value or b"")
    change(state)
    found[mine[place]] = row._replace(value=interest.encode(state))


def change_slate(world: World, place: int, **fields: object) -> None:
    found, mine = slates(world)
    row = found[mine[place]]
    found[mine[place]] = row._replace(value=json.dumps(json.loads(row.value or b"") | fields).encode())


def lost_state(world: World) -> None:
    found, mine = states(world)
    del found[mine[1]]
    world.log.renumber(world.settings.changelog_topic)


def lost_last_state(world: World) -> None:
    found, mine = states(world)
    del found[mine[2]]
    world.log.renumber(world.settings.changelog_topic)
    found, mine = slates(world)
    del found[mine[2]]
    world.log.renumber(world.settings.recommendations_topic)


def forgotten_event(world: World) -> None:
    """The worker skipped an event, and moved its fence over it."""
    world.send(0, ALICE)
    skipped = world.send(0, ALICE)
    world.send(0, ALICE)
    rows = world.log.topics["clicks"][skipped[1]]
    hidden = rows.pop(next(place for place, row in enumerate(rows) if row.offset == skipped[2]))
    world.work()
    rows.insert(skipped[2], hidden)


def swapped_states(world: World) -> None:
    found, mine = states(world)
    a, b = found[mine[1]], found[mine[2]]
    found[mine[1]], found[mine[2]] = a._replace(value=b.value), b._replace(value=a.value)


def swapped_events(world: World) -> None:
    change_state(world, 1, lambda state: state.folded.reverse())


def swapped_offsets(world: World) -> None:
    """Two clicks folded in the wrong order, one micro-batch each."""
    world.send(0, ALICE, "i8")
    world.send(0, ALICE, "i9")
    found = world.log.topics["clicks"][partition_of(ALICE)]
    for row in (found[-1], found[-2]):
        world.states[ALICE.encode()].applied[0] = row.offset - 1
        judged = Validator(PARTITIONS, world.settings.rating_scale).validate(0, row.partition, NOW, row.key, row.value)
        assert isinstance(judged, Accepted)
        world._fold(ALICE.encode(), [event(0, row, judged)])
    world.log.offsets["clicks", partition_of(ALICE)] = found[-1].offset + 1


def double(world: World) -> None:
    """An event is folded once more: the fence was forgotten."""
    state = world.states[ALICE.encode()]
    state.applied[0] = -1
    world.work(again=100)
    del world.log.topics["dead-letters"][partition_of("carol")][1:]


def double_by_id(world: World) -> None:
    """The same `id` twice: the worker forgot to look."""
    state = world.states[ALICE.encode()]
    world.send(1, ALICE, "i4", id="x4")
    recent, state.recent = state.recent, state.recent.replace(b"x4", b"y4")
    world.work()
    assert recent


def stale(world: World) -> None:
    """A stalled worker wakes up and writes what it had."""
    found, mine = states(world)
    world.log.append(world.settings.changelog_topic, partition_of(ALICE), ALICE.encode(), found[mine[1]].value)


def fork(world: World) -> None:
    """Two workers went on from the same state: same seq, other chain."""
    found, mine = states(world)
    state = interest.decode(found[mine[1]].value or b"")
    state.chain = bytes(range(16))
    world.log.append(world.settings.changelog_topic, partition_of(ALICE), ALICE.encode(), interest.encode(state))


def fork_at_the_head(world: World) -> None:
    found, mine = states(world)
    state = interest.decode(found[mine[2]].value or b"")
    state.chain = bytes(range(16))
    world.log.append(world.settings.changelog_topic, partition_of(ALICE), ALICE.encode(), interest.encode(state))


def wrong_chain(world: World) -> None:
    change_state(world, 2, lambda state: setattr(state, "chain", bytes(16)))


def wrong_applied(world: World) -> None:
    change_state(world, 2, lambda state: state.applied.__setitem__(0, state.applied[0] + 7))


def applied_goes_back(world: World) -> None:
    change_state(world, 2, lambda state: state.applied.__setitem__(0, 0))


def wrong_time(world: World) -> None:
    change_state(world, 2, lambda state: setattr(state, "last_time", 5))


def forgotten_item(world: World) -> None:
    change_state(world, 2, lambda state: setattr(state, "seen", b""))


def damaged_state(world: World) -> None:
    found, mine = states(world)
    row = found[mine[2]]
    found[mine[2]] = row._replace(value=(row.value or b"")[:-1] + b"?")


def erased_state(world: World) -> None:
    world.log.append(world.settings.changelog_topic, partition_of(ALICE), ALICE.encode(), None)


def state_elsewhere(world: World) -> None:
    found, mine = states(world)
    row = found.pop(mine[2])
    world.log.append(world.settings.changelog_topic, 1 - partition_of(ALICE), row.key, row.value)
    world.log.renumber(world.settings.changelog_topic)


def invalid_applied(world: World) -> None:
    """The worker took a record that the schema refuses (here: one that was good when it was read)."""
    _, partition, offset = world.send(1, ALICE)
    world.work()
    found = world.log.topics["ratings"][partition]
    found[offset] = found[offset]._replace(value=(found[offset].value or b"").replace(b"4.0", b"9.0"))


def foreign_event(world: World) -> None:
    """Alice's event was folded into a neighbour on her partition."""
    other = next(name for name in map(str, range(99)) if partition_of(name) == partition_of(ALICE))
    _, partition, offset = world.send(0, ALICE)
    found = world.log.topics["clicks"][partition]
    kept = found[offset]
    body = (kept.value or b"").replace(ALICE.encode(), other.encode())
    found[offset] = kept._replace(key=other.encode(), value=body)
    world.work()
    found[offset] = kept


def phantom(world: World) -> None:
    """A state names a record that is not there."""
    world.send(0, ALICE)
    world.work()
    world.log.topics["clicks"][partition_of(ALICE)].pop()
    world.log.offsets["clicks", partition_of(ALICE)] -= 1


def good_event_set_aside(world: World) -> None:
    _, partition, offset = world.send(0, BOB)
    row = world.log.topics["clicks"][partition][offset]
    world.letter("clicks", row, "the worker did not like it")
    world._read["clicks", partition] = offset + 1
    world.commit()


def applied_and_set_aside(world: World) -> None:
    world.letter("clicks", world.log.topics["clicks"][partition_of(ALICE)][0], "and yet it was applied")


def missing_letter(world: World) -> None:
    world.log.topics["dead-letters"][partition_of("carol")].clear()


def letter_of_nothing(world: World) -> None:
    world.letter("clicks", Row(0, 777, NOW, None, None), "no such record")


def changed_letter(world: World) -> None:
    found = world.log.topics["dead-letters"][partition_of("carol")]
    found[0] = found[0]._replace(value=b"something else")


def letter_of_another_key(world: World) -> None:
    found = world.log.topics["dead-letters"][partition_of("carol")]
    found[0] = found[0]._replace(key=b"dave")


def missing_slate(world: World) -> None:
    found, mine = slates(world)
    del found[mine[2]]
    world.log.renumber(world.settings.recommendations_topic)


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
    world.states[b"nobody"] = interest.new(bytes(16), 16)
    world.slate(b"nobody", partition_of("nobody"), True)


def slate_of_another_chain(world: World) -> None:
    change_slate(world, 2, chain="00" * 16)


def slate_with_other_applied(world: World) -> None:
    change_slate(world, 2, applied={f"clicks/{partition_of(ALICE)}": 0})


def slate_with_an_item_twice(world: World) -> None:
    change_slate(world, 2, items=[{"item": "a", "score": 1.0}, {"item": "a", "score": 1.0}])


def slate_against_the_schema(world: World) -> None:
    change_slate(world, 2, seq="4")


def committed_too_far(world: World) -> None:
    world.log.offsets["clicks", 0] = 10_000


def committed_unread(world: World) -> None:
    """The offset of an event was committed before its state was durable."""
    _, partition, offset = world.send(0, BOB)
    world.log.offsets["clicks", partition] = offset + 1


def forgets_seen(world: World) -> None:
    """Only what was taken in last is seen."""
    change_state(world, 1, lambda state: setattr(state, "seen", state.seen[4:]))


def sees_too_much(world: World) -> None:
    change_state(world, 2, lambda state: setattr(state, "seen", bytes(4) + state.seen))


def muddles_recent(world: World) -> None:
    """Another item, of the same length, stands in the place of an earlier one."""
    change_state(world, 2, lambda state: setattr(state, "recent", state.recent.replace(b"i1", b"i7")))


def muddles_value(world: World) -> None:
    change_state(
        world, 2, lambda state: setattr(state, "recent", state.recent.replace(b"\0\0\x80\x40", b"\0\0\x40\x40"))
    )


def swaps_recent(world: World) -> None:
    def swap(state: interest.Interest) -> None:
        first, second, *others = split(state.recent) or ()
        state.recent = b"".join(len(one).to_bytes(2, "little") + one for one in (second, first, *others))

    change_state(world, 1, swap)


def a_duplicate_wipes_the_memory(world: World) -> None:
    world.send(2, ALICE, "i4", id="x4")
    world.work()

    def wipe(state: interest.Interest) -> None:
        state.seen = state.recent = b""
        state.recent_count = 0

    change_state(world, 3, wipe)


def a_retry_with_another_memory(world: World) -> None:
    found, mine = states(world)
    state = interest.decode(found[mine[2]].value or b"")
    state.seen = state.seen[4:]
    world.write(ALICE.encode(), partition_of(ALICE), interest.encode(state))


MUTANTS: list[tuple[Callable[[World], None], set[str]]] = [
    (lost_state, {"gap", "lost", "slate-state"}),
    (lost_last_state, {"lost"}),
    (forgotten_event, {"lost"}),
    (swapped_states, {"gap", "stale", "lost", "slate-state"}),
    (swapped_events, {"chain", "state"}),
    (swapped_offsets, {"order", "lost"}),
    (double, {"double"}),
    (double_by_id, {"double", "state"}),
    (stale, {"stale"}),
    (fork, {"fork"}),
    (fork_at_the_head, {"fork"}),
    (wrong_chain, {"chain", "slate-chain"}),
    (wrong_applied, {"applied", "slate-applied"}),
    (applied_goes_back, {"applied", "slate-applied"}),
    (wrong_time, {"state"}),
    (forgotten_item, {"state"}),
    (forgets_seen, {"state"}),
    (sees_too_much, {"state"}),
    (muddles_recent, {"state"}),
    (muddles_value, {"state"}),
    (swaps_recent, {"state"}),
    (a_duplicate_wipes_the_memory, {"state"}),
    (a_retry_with_another_memory, {"state"}),
    (damaged_state, {"state", "lost", "slate-state"}),
    (erased_state, {"state"}),
    (state_elsewhere, {"state", "lost", "slate-state"}),
    (invalid_applied, {"invalid-applied", "unreported"}),
    (foreign_event, {"foreign", "lost"}),
    (phantom, {"phantom"}),
    (good_event_set_aside, {"valid-dead-letter", "lost"}),
    (applied_and_set_aside, {"valid-dead-letter"}),
    (missing_letter, {"unreported"}),
    (letter_of_nothing, {"dead-letter"}),
    (changed_letter, {"dead-letter"}),
    (letter_of_another_key, {"dead-letter"}),
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
    (committed_too_far, {"commit"}),
    (committed_unread, {"lost"}),
]


def test_the_world_that_is_broken_below_is_whole() -> None:
    report = verify(small())
    assert report.violations == []
    assert report.exit_code == 0


@pytest.mark.parametrize(("mutate", "kinds"), MUTANTS, ids=lambda value: getattr(value, "__name__", ""))
def test_a_mutant_is_red_for_the_right_reason(mutate: Callable[[World], None], kinds: set[str]) -> None:
    world = small()
    mutate(world)
    report = verify(world)
    assert report.exit_code == 1
    assert kinds <= set(report.kinds), report.violations
    assert set(report.kinds) <= kinds | {"slate-events", "slate-applied", "slate-chain", "uncovered"}, report.violations


def test_the_first_offender_is_named() -> None:
    world = small()
    _, partition, offset = world.send(0, BOB)
    world.log.offsets["clicks", partition] = offset + 1
    first = verify(world).violations[0]
    assert (first.kind, first.user, first.topic, first.partition, first.offset) == (
        "lost", BOB, "clicks", partition, offset,
    )  # fmt: skip
    assert BOB in str(first)


def test_one_good_event_in_a_thousand_set_aside_is_seen() -> None:
    world = World()
    for number in range(1000):
        world.send(0, f"u{number % 50}")
    partition = partition_of("u7")
    rows = world.log.topics["clicks"][partition]
    place = max(place for place, row in enumerate(rows) if row.key == b"u7")
    kept = rows[place]
    rows[place] = kept._replace(value=b"{")
    world.work()
    rows[place] = kept
    letters = world.log.topics["dead-letters"][partition]
    letters[0] = letters[0]._replace(value=kept.value)
    assert set(verify(world).kinds) == {"valid-dead-letter", "lost"}


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


def test_a_record_written_twice_by_a_retry_is_harmless() -> None:
    world = small()
    for topic in (world.settings.changelog_topic, world.settings.recommendations_topic):
        found, mine = rows(world, topic, ALICE)
        world.log.append(topic, partition_of(ALICE), ALICE.encode(), found[mine[-1]].value)
    report = verify(world)
    assert report.violations == []
    assert report.repeated == 2


def test_a_compacted_changelog_cannot_be_judged() -> None:
    world = small()
    found, mine = states(world)
    del found[mine[1]], found[mine[0]]
    report = verify(world)
    assert report.violations == []
    assert report.unverifiable > 0
    assert report.exit_code == 3


def test_a_changelog_that_was_cut_off_cannot_be_judged() -> None:
    """Nothing is left of users whose states were deleted all; of the others, what is left is judged."""
    world = eventful()
    topic = world.settings.changelog_topic
    for partition in range(PARTITIONS):
        cut = len(world.log.topics[topic][partition]) * 2 // 3
        del world.log.topics[topic][partition][:cut]
        world.log.first[topic, partition] = cut
    report = verify(world)
    assert report.violations == []
    assert report.unseen > 0
    assert report.conserved
    assert report.exit_code == 3


def test_a_changelog_of_which_nothing_is_left() -> None:
    world = eventful()
    topic = world.settings.changelog_topic
    for partition in range(PARTITIONS):
        world.log.first[topic, partition] = len(world.log.topics[topic][partition])
        world.log.topics[topic][partition].clear()
    report = verify(world)
    assert report.violations == []
    assert report.exit_code == 3


def test_compacted_slates_cannot_be_judged() -> None:
    world = small()
    found, mine = slates(world)
    del found[mine[0]]
    report = verify(world)
    assert report.violations == []
    assert (report.uncovered, report.unverifiable, report.exit_code) == (0, 1, 3)


def test_deleted_sources_cannot_be_judged() -> None:
    world = eventful()
    for partition in range(PARTITIONS):
        del world.log.topics["clicks"][partition][:20]
        world.log.first["clicks", partition] = 20
    report = verify(world)
    assert report.violations == []
    assert report.exit_code == 3


def test_a_break_is_red_even_where_something_cannot_be_judged() -> None:
    world = small()
    found, mine = slates(world)
    del found[mine[0]]
    committed_unread(world)
    assert verify(world).exit_code == 1


def test_the_popularity_slate_shows_no_state() -> None:
    world = small()
    world.anyone()
    world.anyone(world.claim(HOME, 1))
    assert verify(world).violations == []


def test_a_missing_topic_is_a_topology_error() -> None:
    world = small()
    del world.log.topics["dead-letters"]
    with pytest.raises(TopologyError, match="dead-letters"):
        verify(world)


def test_unequal_partition_counts_are_a_topology_error() -> None:
    world = small()
    world.log.topics["clicks"].append([])
    with pytest.raises(TopologyError, match="partitions"):
        verify(world)


def test_the_report_as_json() -> None:
    world = small()
    committed_unread(world)
    found = json.loads(json.dumps(verify(world).as_dict()))
    assert found["ok"] is False
    assert found["lost"] == 1
    assert found["violations"][0]["kind"] == "lost"


@pytest.mark.parametrize("seed", range(20))
def test_any_state_that_is_taken_away_is_missed(seed: int) -> None:
    world = eventful(seed)
    rows = random.Random(seed).choice([rows for rows in world.log.topics[world.settings.changelog_topic] if rows])
    del rows[random.Random(seed).randrange(len(rows))]
    world.log.renumber(world.settings.changelog_topic)
    assert verify(world).exit_code == 1


@pytest.mark.parametrize("seed", range(20))
def test_any_byte_that_is_changed_in_a_good_source_record_is_seen(seed: int) -> None:
    """The chain holds the payloads: what was folded is what is there."""
    world = eventful(seed)
    chance = random.Random(seed)
    rows = world.log.topics["clicks"][chance.randrange(PARTITIONS)]
    place = chance.choice([place for place, row in enumerate(rows) if row.value and b"item" in row.value])
    value = bytearray(rows[place].value or b"")
    value[chance.randrange(len(value))] ^= 1 << chance.randrange(7)
    was = rows[place]
    rows[place] = was._replace(value=bytes(value))
    duplicate = verify(world).exit_code == 0  # a duplicate's payload is in no chain
    if duplicate:
        rows[place] = was
        assert b'"id"' in (was.value or b"")


# Writers, claims and fences.


def test_a_fenced_record_is_no_part_of_the_state() -> None:
    world = small()
    partition = partition_of(ALICE)
    world.claim(partition, 1)
    world.send(0, ALICE, "i5")
    world.work()
    old = states(world)[0][states(world)[1][0]].value or b""
    world.claim(partition, 2)
    world.write(ALICE.encode(), partition, old, epoch=1)  # what a stalled worker still writes
    world.send(0, ALICE, "i6")
    world.work()
    report = verify(world)
    assert report.violations == []
    assert (report.claims, report.fenced, report.exposed, report.exit_code) == (2, 1, 0, 0)


def test_a_fenced_record_that_is_its_users_last_is_exposed() -> None:
    world = small()
    partition = partition_of(ALICE)
    world.claim(partition, 3)
    world.write(ALICE.encode(), partition, states(world)[0][states(world)[1][0]].value or b"", epoch=2)
    report = verify(world)
    assert report.violations == []
    assert (report.fenced, report.exposed, report.exit_code) == (1, 1, 0)
    assert [(note.kind, note.user) for note in report.notes] == [("exposed", ALICE)]


def test_a_state_that_a_takeover_wrote_again_settles_what_was_exposed() -> None:
    world = small()
    partition = partition_of(ALICE)
    first, last = (states(world)[0][states(world)[1][number]].value or b"" for number in (0, -1))
    world.claim(partition, 3)
    world.write(ALICE.encode(), partition, first, epoch=2)
    world.claim(partition, 4)
    world.write(ALICE.encode(), partition, last, epoch=4)
    report = verify(world)
    assert report.violations == []
    assert (report.fenced, report.exposed, report.repeated, report.exit_code) == (1, 0, 1, 0)


def test_the_logs_order_fences_not_the_clock() -> None:
    """The same record is stale where nobody claimed the partition in between."""
    world = small()
    partition = partition_of(ALICE)
    world.claim(partition, 1)
    world.write(ALICE.encode(), partition, states(world)[0][states(world)[1][0]].value or b"", epoch=1)
    world.claim(partition, 2)
    assert set(verify(world).kinds) == {"stale"}


def test_a_claim_that_comes_too_late_changes_nothing() -> None:
    world = small()
    partition = partition_of(ALICE)
    world.claim(partition, 5)
    world.claim(partition, 4)
    world._epochs[partition] = 5
    world.send(0, ALICE)
    world.work()
    report = verify(world)
    assert report.violations == []
    assert (report.claims, report.fenced) == (2, 0)


def test_a_state_of_an_epoch_that_nobody_claimed() -> None:
    world = small()
    world._epochs[partition_of(ALICE)] = 7
    world.send(0, ALICE)
    world.work()
    assert set(verify(world).kinds) == {"claim"}


@pytest.mark.parametrize(
    "value",
    [
        None,
        b"",
        b"{",
        b"[]",
        b"{}",
        b'{"epoch": 1}',
        b'{"epoch": "1", "worker": ""}',
        b'{"epoch": 0, "worker": ""}',
        b'{"epoch": true, "worker": ""}',
    ],
)
def test_a_claim_that_says_nothing(value: bytes | None) -> None:
    world = small()
    world.log.append(world.settings.changelog_topic, 0, CLAIM, value)
    assert verify(world).kinds == {"claim": 1}


# Records that no worker wrote.


def forged_claim(world: World) -> None:
    world.claim(0, 3)
    world.claim(0, 10**17)
    world._epochs[0] = 3


def claim_of_another_header(world: World) -> None:
    world.claim(0, 3)
    topic = world.settings.changelog_topic
    world.log.append(topic, 0, CLAIM, world.log.topics[topic][0][-1].value, (("writer", b"4"),))


def claim_of_a_stranger(world: World) -> None:
    value = json.dumps({"epoch": 1, "worker": "evil", "time": NOW}).encode()
    world.log.append(world.settings.changelog_topic, 0, CLAIM, value, (("writer", b"1"),))


def state_under_the_claims_key(world: World) -> None:
    value = states(world)[0][states(world)[1][0]].value
    world.log.append(world.settings.changelog_topic, partition_of(ALICE), CLAIM, value)


def state_of_a_huge_epoch(world: World) -> None:
    world.claim(partition_of(ALICE), 1)
    world.write(ALICE.encode(), partition_of(ALICE), states(world)[0][states(world)[1][0]].value or b"", epoch=10**17)


def state_without_a_key(world: World) -> None:
    value = states(world)[0][states(world)[1][0]].value
    world.log.append(world.settings.changelog_topic, partition_of(ALICE), None, value)


def state_of_a_user_without_events(world: World) -> None:
    world.write(b"nobody", partition_of("nobody"), interest.encode(interest.new(bytes(16), 16)))


def erased_under_the_owners_epoch(world: World) -> None:
    epoch = world.claim(partition_of(ALICE), 1)
    stamp = (("writer", str(epoch).encode()),)
    world.log.append(world.settings.changelog_topic, partition_of(ALICE), ALICE.encode(), None, stamp)


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


def erased_letter(world: World) -> None:
    world.log.append(world.settings.dead_letters_topic, partition_of("carol"), b"carol", None)


def letter_on_another_partition(world: World) -> None:
    found = world.log.topics["dead-letters"][partition_of("carol")][0]
    world.log.append("dead-letters", 1 - partition_of("carol"), found.key, found.value, found.headers)


def letter_of_an_item(world: World) -> None:
    world.letter(world.settings.items_topic, Row(0, 0, NOW, b"item-1", b"{"), "no item", "catalogue")


FORGERIES: list[tuple[Callable[[World], None], str, str]] = [
    (forged_claim, "forged-claim", "but 3 is in force"),
    (claim_of_another_header, "forged-claim", "but its header names 4"),
    (claim_of_a_stranger, "forged-claim", "'evil'"),
    (state_under_the_claims_key, "claim", "not JSON"),
    (state_of_a_huge_epoch, "claim", "no takeover can reach"),
    (state_without_a_key, "state", "it has no key"),
    (state_of_a_user_without_events, "state", "no event was applied"),
    (erased_state, "state", "a tombstone"),
    (erased_under_the_owners_epoch, "state", "a tombstone"),
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
    (erased_letter, "dead-letter", "headers"),
    (letter_on_another_partition, "dead-letter", "not a place in this source partition"),
    (letter_of_an_item, "dead-letter", "names an item's record"),
]


@pytest.mark.parametrize(("forge", "kind", "says"), FORGERIES, ids=lambda value: getattr(value, "__name__", ""))
def test_a_forged_record_is_named_and_breaks_nothing_else(forge: Callable[[World], None], kind: str, says: str) -> None:
    world = small()
    forge(world)
    report = verify(world)
    assert report.kinds == {kind: 1}, report.violations
    assert says in report.violations[0].message
    assert report.violations[0].topic
    assert report.violations[0].offset >= 0


def test_after_a_forged_claim_everything_is_judged_as_before() -> None:
    world = small()
    partition = partition_of(ALICE)
    world.claim(partition, 3)
    world.claim(partition, 10**17)
    world._epochs[partition] = 3
    world.send(0, ALICE)
    world.work()
    world.claim(partition, 4)
    world.send(0, ALICE)
    world.work()
    report = verify(world)
    assert (report.kinds, report.fenced, report.lost) == ({"forged-claim": 1}, 0, 0)


# Letters that were sent back.


def test_a_letter_sent_back_twice_is_applied_once() -> None:
    world = World()
    _, partition, offset = world.send_raw(0, ALICE.encode(), b"{", partition_of(ALICE))
    world.work()
    back = (("original-record", f"clicks/{partition}/{offset}".encode()),)
    world.send(0, ALICE, headers=back)
    world.work()
    world.send(0, ALICE, headers=back)
    world.send(0, ALICE, headers=(("original-record", b"elsewhere/0/0"),))  # names no source: an event of its own
    world.states[ALICE.encode()].folded = []
    world.work()
    found = verify(world)
    assert (found.applied, found.duplicates, found.dead_letters) == (2, 1, 1)


def test_a_body_id_goes_before_the_replay_header() -> None:
    world = World()
    world.send(0, ALICE, id="mine", headers=(("original-record", b"clicks/0/7"),))
    world.work()
    assert verify(world).violations == []


def test_a_replay_that_is_folded_twice_is_double() -> None:
    world = World()
    back = (("original-record", b"clicks/0/7"),)
    world.send(0, ALICE, headers=back)
    world.work()
    state = world.states[ALICE.encode()]
    state.recent = state.recent.replace(b"clicks/0/7", b"clicks/0/8")  # the worker's memory fails
    world.send(0, ALICE, headers=back)
    world.work()
    assert "double" in verify(world).kinds


@pytest.mark.parametrize(
    ("header", "named"),
    [
        (b"clicks/0/7", True), (b"ratings/1/0", True), (b"items/0/7", False), (b"clicks/0/07", False), (b"clicks/0", False),
        (b"clicks/0/-1", False), (b"", False), (b"clicks/0/7 ", False), ("clicks/0/\u0667".encode(), False),
    ],
)  # fmt: skip
def test_what_names_the_original(header: bytes, named: bool) -> None:
    world = World()
    spans = world.log.spans(world.settings.sources)
    ledger = SourceIndex(world.settings.sources, spans, Validator(PARTITIONS, (0.5, 5)), 0)
    row = Row(0, 0, NOW, b"u", b"", (("original-record", header),))
    assert ledger.original_record_of(row) == (header.decode() if named else "")


# Events that the model fails on.


def poison(world: World, stage: str = "inference", user: str = BOB) -> None:
    """A user's event is set aside and the fence moved over it."""
    _, partition, offset = world.send(0, user)
    row = world.log.topics["clicks"][partition][offset]
    world.letter("clicks", row, "the model failed", stage)
    state = world.states[user.encode()]
    state.applied[0], state.folded = offset, []
    world.write(user.encode(), partition, interest.encode(state))
    world._read["clicks", partition] = offset + 1
    world.commit()
    world.slate(user.encode(), partition, True)


def test_an_event_that_the_model_fails_on_is_counted_apart() -> None:
    world = small()
    poison(world)
    report = verify(world)
    assert report.violations == []
    assert (report.inference, report.lost, report.dead_letters) == (1, 0, 1)
    assert report.conserved
    assert report.exit_code == 0


def test_a_users_first_event_may_be_one_that_the_model_fails_on() -> None:
    world = small()
    world.states[b"eve"] = interest.new(bytes(range(16)), 16)
    poison(world, user="eve")
    report = verify(world)
    assert report.violations == []
    assert (report.inference, report.exit_code) == (1, 0)


def test_only_the_stage_inference_excuses() -> None:
    world = small()
    poison(world, "validate")
    assert set(verify(world).kinds) == {"valid-dead-letter", "lost"}


def test_an_applied_event_is_no_poison_event() -> None:
    world = small()
    world.letter("clicks", world.log.topics["clicks"][partition_of(ALICE)][0], "and yet it was applied", "inference")
    assert set(verify(world).kinds) == {"valid-dead-letter"}


# The producer's ledger.


def line(world: World, topic: str, partition: int, offset: int, status: str = "acked", /, **fields: object) -> str:
    row = world.log.topics[topic][partition][offset]
    said: dict[str, object] = {
        "id": f"{topic}-{partition}-{offset}", "topic": topic, "partition": partition, "offset": offset,
        "key": (row.key or b"").decode(), "sha256": sha256(row.value or b"").hexdigest(), "status": status,
    }  # fmt: skip
    return json.dumps({name: value for name, value in (said | fields).items() if value is not None})


def sends(world: World, folder: Path, *lines: str) -> Report:
    file = folder / "ledger.jsonl"
    file.write_text("\n".join(lines))
    return check(world.log, world.settings, scope=Scope(producer_log=file))


def everything(world: World, **fields: object) -> list[str]:
    return [
        line(world, topic, partition, row.offset, **fields)  # type: ignore[arg-type]
        for topic in world.settings.sources
        for partition in range(PARTITIONS)
        for row in world.log.topics[topic][partition]
    ]


def test_a_ledger_that_agrees(tmp_path: Path) -> None:
    world = eventful()
    report = sends(world, tmp_path, *everything(world))
    assert (report.acked, report.exit_code) == (300, 0)


def test_a_ledger_without_places_agrees_too(tmp_path: Path) -> None:
    world = small()
    report = sends(world, tmp_path, *everything(world, partition=None, offset=None))
    assert (report.acked, report.exit_code) == (6, 0)


def test_sends_of_which_the_producer_does_not_know(tmp_path: Path) -> None:
    world = small()
    partition = partition_of(ALICE)
    nowhere = sha256(b"never arrived").hexdigest()
    there = line(world, "ratings", partition, 0, "indeterminate", partition=None, offset=None)
    report = sends(
        world, tmp_path, there,
        line(world, "clicks", partition, 0, "indeterminate", partition=None, offset=None, sha256=nowhere),
        line(world, "comments", partition, 0, "failed", partition=None, offset=None),
        line(world, "clicks", partition, 0, "failed", sha256=nowhere),
    )  # fmt: skip
    assert (report.indeterminate, report.indeterminate_found) == (2, 1)
    assert (report.failed, report.failed_found) == (2, 1)
    assert report.exit_code == 0


def test_what_was_acked_is_not_found_again_for_another_send(tmp_path: Path) -> None:
    """Two sends of one value: the record that is there is the acked one's."""
    world = small()
    partition = partition_of(ALICE)
    again = line(world, "ratings", partition, 0, "indeterminate", partition=None, offset=None, id="again")
    report = sends(world, tmp_path, again, line(world, "ratings", partition, 0))
    assert (report.acked, report.indeterminate, report.indeterminate_found) == (1, 1, 0)


def test_a_send_is_known_by_its_header(tmp_path: Path) -> None:
    world = World()
    _, partition, offset = world.send(0, ALICE, headers=(("send-id", b"s-1"),))
    world.work()
    unknown = line(
        world, "clicks", partition, offset, "indeterminate", partition=None, offset=None, id="s-1", sha256="00" * 32
    )
    assert sends(world, tmp_path, unknown).indeterminate_found == 1


@pytest.mark.parametrize(
    ("fields", "says"),
    [
        ({"sha256": "00" * 32}, "another value"),
        ({"offset": 99}, "beyond the log's end"),
        ({"partition": None, "offset": None, "sha256": "00" * 32}, "nowhere"),
    ],
)
def test_an_acked_send_that_is_not_there(tmp_path: Path, fields: dict[str, object], says: str) -> None:
    world = small()
    report = sends(world, tmp_path, line(world, "clicks", partition_of(ALICE), 0, **fields))  # type: ignore[arg-type]
    assert report.kinds == {"ledger": 1}
    assert says in report.violations[0].message
    assert f"send clicks-{partition_of(ALICE)}-0" in report.violations[0].message
    assert report.violations[0].user == ALICE


@pytest.mark.parametrize(
    ("fields", "says"),
    [
        ("{", "line 2: found '{', expected one JSON object"),
        ("[]", "line 2: found '[]', expected one JSON object"),
        ("[" * 100_000, "expected one JSON object"),
        (b"\xff", "line 2: found '\ufffd', expected one JSON object"),
        ({"topic": "clickz"}, "line 2, topic: found 'clickz', expected one of clicks, ratings, comments"),
        ({"topic": 1}, "line 2, topic: found 1, expected one of clicks"),
        ({"partition": PARTITIONS}, "line 2, partition: found 2, expected 0 to 1, or none"),
        ({"partition": 10**4999}, "line 2, partition: found a number of more than 24 digits, expected 0 to 1"),
        ({"partition": -1}, "line 2, partition: found -1, expected 0 to 1"),
        ({"partition": True}, "line 2, partition: found True, expected 0 to 1"),
        ({"partition": 0.0}, "line 2, partition: found 0.0, expected 0 to 1"),
        ({"partition": "0"}, "line 2, partition: found '0', expected 0 to 1"),
        ({"offset": 10**4999}, "line 2, offset: found a number of more than 24 digits, expected 0 to 9223372036854775807"),
        ({"offset": 2**63}, "line 2, offset: found 9223372036854775808, expected 0 to 9223372036854775807"),
        ({"offset": -1}, "line 2, offset: found -1, expected 0 to"),
        ({"partition": None}, "line 2, offset: found 0, expected no offset, since there is no partition"),
        ({"status": "?"}, "line 2, status: found '?', expected one of acked, failed, indeterminate"),
        ({"id": None}, "line 2, id: found nothing, expected text or a whole number"),
        ({"id": 1.5}, "line 2, id: found 1.5, expected text or a whole number"),
        ({"key": 7}, "line 2, key: found 7, expected text, or none"),
        ({"sha256": "00"}, "line 2, sha256: found '00', expected 64 hex digits"),
        ({"sha256": None}, "line 2, sha256: found nothing, expected 64 hex digits"),
    ],
)  # fmt: skip
def test_a_ledger_that_cannot_be_read(tmp_path: Path, fields: dict[str, object] | str | bytes, says: str) -> None:
    world = small()
    good = line(world, "clicks", 0, 0)
    bad = (
        json_of(json.loads(good) | fields).encode()
        if isinstance(fields, dict)
        else fields if isinstance(fields, bytes) else fields.encode()
    )  # fmt: skip
    file = tmp_path / "ledger.jsonl"
    file.write_bytes(good.encode() + b"\n" + bad)
    with pytest.raises(DataError) as refused:
        check(world.log, world.settings, scope=Scope(producer_log=file))
    assert says in str(refused.value)
    assert str(refused.value).startswith(f"{file}, line 2")
    assert len(str(refused.value)) < 400


def json_of(said: dict[str, object]) -> str:
    """As json.dumps, which refuses numbers of thousands of digits."""
    return "{" + ", ".join(
        f'"{name}": {"1" + "0" * 4999 if value == 10**4999 else json.dumps(value)}'
        for name, value in said.items()
        if value is not None
    ) + "}"  # fmt: skip


def test_a_ledgers_line_is_of_the_partition_that_it_names_itself(tmp_path: Path) -> None:
    """Whatever else in the line looks like a partition."""
    world = small()
    said = json.loads(line(world, "clicks", partition_of(ALICE), 0, sha256="00" * 32))
    for more in (
        {"note": {"partition": 1 - partition_of(ALICE)}} | said,
        said | {"note": {"partition": 1 - partition_of(ALICE)}},
        said | {"note": {"partition": "x"}},
    ):
        for text in (json.dumps(more), json.dumps(more).replace('"partition"', r'"p\u0061rtition"', 1)):
            report = sends(world, tmp_path, text)
            assert (report.acked, report.kinds) == (1, {"ledger": 1})


def test_a_ledger_that_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"none\.jsonl cannot be read"):
        check(small().log, small().settings, scope=Scope(producer_log=tmp_path / "none.jsonl"))


# Ranges.


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
    last = interest.decode(found[mine[-1]].value or b"")
    last.recent = last.recent.replace(b"y7", b"x7")
    found[mine[-1]] = found[mine[-1]]._replace(value=interest.encode(last))
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
    first = next(place for place, row in enumerate(found) if row.value and b"item" in row.value)
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


# The folders of stopped workers.


def stored(
    world: World, folder: Path, offset: int | None = None, change: Callable[[dict[bytes, bytes]], None] = dict
) -> Report:
    """RocksDB as a worker leaves it: the changelog's values up to an offset (all), then changed."""
    for partition, found in enumerate(world.log.topics[world.settings.changelog_topic]):
        head = len(found) - 1 if offset is None else offset
        path = folder / "v1" / "tables" / f"interest-{partition}.db"
        path.parent.mkdir(parents=True, exist_ok=True)
        values = {row.key or b"": row.value or b"" for row in found if row.offset <= head}
        if partition == partition_of(ALICE):
            change(values)
        database = rocksdict.Rdict(str(path), options=rocksdict.Options(raw_mode=True))
        for key, value in values.items():
            database[key] = value
        database[OFFSET_KEY] = b"%d" % head
        database.close()
    return check(world.log, world.settings, scope=Scope(data_dirs=(folder,)))


def test_a_folder_that_is_the_changelogs_head(tmp_path: Path) -> None:
    world = eventful()
    report = stored(world, tmp_path)
    assert report.violations == []
    assert (report.stored, report.stored_ahead, report.exit_code) == (report.users, 0, 0)


def test_a_folder_with_notes_of_states_to_be_written_again(tmp_path: Path) -> None:
    report = stored(small(), tmp_path, change=lambda values: values.update({NOTES + ALICE.encode(): b""}))
    assert report.violations == []
    assert report.exit_code == 0


def test_a_folder_that_stopped_earlier(tmp_path: Path) -> None:
    report = stored(small(), tmp_path, offset=0)
    assert report.violations == []


def test_a_folder_whose_last_write_did_not_know_its_offset(tmp_path: Path) -> None:
    world = small()
    last = states(world)[0][states(world)[1][-1]].value or b""
    report = stored(world, tmp_path, 0, lambda values: values.update({ALICE.encode(): last}))
    assert report.violations == []
    assert report.stored_ahead == 1


def put(world: World, change: Callable[[interest.Interest], None]) -> Callable[[dict[bytes, bytes]], None]:
    def changed(values: dict[bytes, bytes]) -> None:
        state = interest.decode(values[ALICE.encode()])
        change(state)
        values[ALICE.encode()] = interest.encode(state)

    return changed


@pytest.mark.parametrize(
    ("change", "says"),
    [
        (lambda state: setattr(state, "seq", 9), "does not have"),
        (lambda state: setattr(state, "chain", bytes(16)), "does not have"),
    ],
)
def test_a_state_that_only_the_folder_has(
    tmp_path: Path, change: Callable[[interest.Interest], None], says: str
) -> None:
    world = small()
    report = stored(world, tmp_path, change=put(world, change))
    assert report.kinds == {"store": 1}
    assert says in report.violations[0].message
    assert report.violations[0].user == ALICE


def test_an_older_state_than_the_folder_says(tmp_path: Path) -> None:
    world = small()
    first = states(world)[0][states(world)[1][0]].value or b""
    report = stored(world, tmp_path, change=lambda values: values.update({ALICE.encode(): first}))
    assert report.kinds == {"store": 1}
    assert "older" in report.violations[0].message


def test_a_state_that_the_folder_lacks(tmp_path: Path) -> None:
    report = stored(small(), tmp_path, change=lambda values: values.pop(ALICE.encode()))
    assert report.kinds == {"store": 1}


def test_a_folder_beyond_the_changelogs_end(tmp_path: Path) -> None:
    assert "store" in stored(small(), tmp_path, offset=99).kinds


@pytest.mark.parametrize("offset", [b"", b"x", b"-1", b"9" * 5000])
def test_a_folder_whose_offset_is_no_number(tmp_path: Path, offset: bytes) -> None:
    world = small()
    stored(world, tmp_path)
    path = tmp_path / "v1" / "tables" / f"interest-{partition_of(ALICE)}.db"
    database = rocksdict.Rdict(str(path), options=rocksdict.Options(raw_mode=True))
    database[OFFSET_KEY] = offset
    database.close()
    with pytest.raises(DataError, match="expected a number"):
        check(world.log, world.settings, scope=Scope(data_dirs=(tmp_path,)))


def test_a_folder_that_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="no such folder"):
        check(small().log, small().settings, scope=Scope(data_dirs=(tmp_path / "none",)))


@pytest.mark.parametrize("seed", range(5))
def test_states_are_found_whatever_order_slates_come_in(seed: int) -> None:
    """Slates of one user may be read in any order: each finds its own state."""
    world = eventful(seed)
    for rows in world.log.topics[world.settings.recommendations_topic]:
        random.Random(seed).shuffle(rows)
    world.log.renumber(world.settings.recommendations_topic)
    assert verify(world).violations == []


def test_every_kind_of_violation_is_documented() -> None:
    """docs/verify.md tells what each means."""
    code = "".join(path.read_text("utf-8") for path in Path(scope.__file__).parent.rglob("*.py"))
    kinds = set(re.findall(r"(?:_blame|\badd|_add|add_event|Violation|kind, message =)\(?\s*\"([a-z-]+)\"", code)) | {
        "dead-letter",
        "store",
        "ledger",
    }
    page = (ROOT / "docs" / "verify.md").read_text("utf-8")
    assert kinds >= {"lost", "fork", "gap", "numbers", "claim"}
    assert [kind for kind in sorted(kinds) if f"`{kind}`" not in page] == []


def test_every_count_of_the_report_is_explained() -> None:
    told = Report.__doc__ or ""
    unexplained = {
        "users",
        "states",
        "slates",
        "replays",
        "seconds",
        "kinds",
        "violations",
        "notes",
    }
    missing = [f.name for f in fields(Report) if f.name not in unexplained and f.name not in told]
    assert [name for name in missing if not name.endswith("_found")] == []


@pytest.mark.parametrize(
    ("said", "epoch_ms"),
    [
        ("1700000000000", 1_700_000_000_000),
        ("2023-11-14T22:13:20", 1_700_000_000_000),
        ("2023-11-14T23:13:20+01:00", 1_700_000_000_000),
        ("2023-11-14", 1_699_920_000_000),
    ],
)
def test_times_of_the_command(said: str, epoch_ms: int) -> None:
    assert command.time_of(said) == epoch_ms


@pytest.mark.parametrize(
    "said", ["clicks", "clicks/0", "clicks/٣/1", "clicks/0/٣", "clicks/x/1", "clicks/0/-1", "/0/1", "clicks/0/1/2"]
)
def test_an_offset_that_names_nothing(said: str) -> None:
    with pytest.raises(typer.BadParameter):
        command.start_of(said)


def test_an_offset_of_the_command() -> None:
    assert command.start_of("p-clicks/3/12") == (("p-clicks", 3), 12)
    with pytest.raises(typer.BadParameter):
        command.time_of("yesterday")
    with pytest.raises(typer.BadParameter):
        command.time_of("١٧٠٠٠٠٠٠٠٠٠٠٠")  # digits, but not of ASCII
