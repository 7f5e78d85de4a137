"""The changelog's states: a right worker's are green, and whatever no right worker writes is red by its name."""

from __future__ import annotations

import random
from collections.abc import Callable

import pytest

from deploy.verify.recent_events import split
from deploy.verify.validator import Accepted, Validator
from stream.core import state as state_module
from tests.unit.deploy.verify.worlds import (
    ALICE,
    change_state,
    eventful,
    forgotten_event,
    named,
    red,
    rows,
    slates,
    small,
    states,
    verify,
    wrong_chain,
)
from tests.unit.synthetic import NOW, PARTITIONS, World, event, partition_of


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
    state = state_module.decode(found[mine[1]].value or b"")
    state.chain = bytes(range(16))
    world.log.append(world.settings.changelog_topic, partition_of(ALICE), ALICE.encode(), state_module.encode(state))


def fork_at_the_head(world: World) -> None:
    found, mine = states(world)
    state = state_module.decode(found[mine[2]].value or b"")
    state.chain = bytes(range(16))
    world.log.append(world.settings.changelog_topic, partition_of(ALICE), ALICE.encode(), state_module.encode(state))


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
    def swap(state: state_module.Interest) -> None:
        events = split(state.recent)
        assert events is not None
        first, second, *others = events
        state.recent = b"".join(len(one).to_bytes(2, "little") + one for one in (second, first, *others))

    change_state(world, 1, swap)


def a_duplicate_wipes_the_memory(world: World) -> None:
    world.send(2, ALICE, "i4", id="x4")
    world.work()

    def wipe(state: state_module.Interest) -> None:
        state.seen = state.recent = b""
        state.recent_count = 0

    change_state(world, 3, wipe)


def a_retry_with_another_memory(world: World) -> None:
    found, mine = states(world)
    state = state_module.decode(found[mine[2]].value or b"")
    state.seen = state.seen[4:]
    world.write(ALICE.encode(), partition_of(ALICE), state_module.encode(state))


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
    index = chance.choice([index for index, row in enumerate(rows) if row.value and b"item" in row.value])
    value = bytearray(rows[index].value or b"")
    value[chance.randrange(len(value))] ^= 1 << chance.randrange(7)
    was = rows[index]
    rows[index] = was._replace(value=bytes(value))
    duplicate = verify(world).exit_code == 0  # a duplicate's payload is in no chain
    if duplicate:
        rows[index] = was
        assert b'"id"' in (was.value or b"")


def state_without_a_key(world: World) -> None:
    value = states(world)[0][states(world)[1][0]].value
    world.log.append(world.settings.changelog_topic, partition_of(ALICE), None, value)


def state_of_a_user_without_events(world: World) -> None:
    world.write(b"nobody", partition_of("nobody"), state_module.encode(state_module.new(bytes(16), 16)))


def erased_under_the_owners_epoch(world: World) -> None:
    epoch = world.claim(partition_of(ALICE), 1)
    stamp = (("writer", str(epoch).encode()),)
    world.log.append(world.settings.changelog_topic, partition_of(ALICE), ALICE.encode(), None, stamp)


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
]


@pytest.mark.parametrize(("mutate", "kinds"), MUTANTS, ids=lambda value: getattr(value, "__name__", ""))
def test_a_mutant_is_red_for_the_right_reason(mutate: Callable[[World], None], kinds: set[str]) -> None:
    red(mutate, kinds)


FORGERIES: list[tuple[Callable[[World], None], str, str]] = [
    (state_without_a_key, "state", "it has no key"),
    (state_of_a_user_without_events, "state", "no event was applied"),
    (erased_state, "state", "a tombstone"),
    (erased_under_the_owners_epoch, "state", "a tombstone"),
]


@pytest.mark.parametrize(("forge", "kind", "says"), FORGERIES, ids=lambda value: getattr(value, "__name__", ""))
def test_a_forged_record_is_named_and_breaks_nothing_else(forge: Callable[[World], None], kind: str, says: str) -> None:
    named(forge, kind, says)
