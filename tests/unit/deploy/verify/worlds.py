"""Worlds that a right worker leaves, and ways to break them that several tests share."""

from __future__ import annotations

import json
import random
from collections.abc import Callable
from typing import Any

from deploy.verify import Report, check
from stream.core import state as state_module
from tests.unit.synthetic import NOW, Row, World, partition_of

ALICE, BOB = "alice", "bob"

HOME = partition_of("*")


def verify(world: World, **arguments: Any) -> Report:
    return check(world.log, world.settings, **arguments)


def eventful(seed: int = 1) -> World:
    """Many users, all behaviours, duplicates, bad records, replays, several micro-batches."""
    world = World()
    chance = random.Random(seed)
    for _ in range(300):
        user = f"u{chance.randrange(12)}"
        behaviour = chance.choice((0, 0, 0, 1, 2))
        fields: dict[str, Any] = {"id": f"e{chance.randrange(60)}"} if chance.random() < 0.3 else {}
        if chance.random() < 0.05:
            world.send_raw(behaviour, user.encode(), b'{"user": 1}', partition_of(user))
        else:
            world.send(behaviour, user, f"i{chance.randrange(40)}", time=NOW - chance.randrange(10**9), **fields)
        if chance.random() < 0.1:
            world.work(again=chance.randrange(4))
    world.work()
    return world


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
    return found, [index for index, row in enumerate(found) if row.key == user.encode()]


def states(world: World) -> tuple[list[Row], list[int]]:
    return rows(world, world.settings.changelog_topic, ALICE)


def slates(world: World) -> tuple[list[Row], list[int]]:
    return rows(world, world.settings.recommendations_topic, ALICE)


def change_state(world: World, index: int, change: Callable[[state_module.Interest], None]) -> None:
    found, mine = states(world)
    row = found[mine[index]]
    state = state_module.decode(row.value or b"")
    change(state)
    found[mine[index]] = row._replace(value=state_module.encode(state))


def change_slate(world: World, index: int, **fields: object) -> None:
    found, mine = slates(world)
    row = found[mine[index]]
    found[mine[index]] = row._replace(value=json.dumps(json.loads(row.value or b"") | fields).encode())


def forgotten_event(world: World) -> None:
    """The worker skipped an event, and moved its fence over it."""
    world.send(0, ALICE)
    skipped = world.send(0, ALICE)
    world.send(0, ALICE)
    rows = world.log.topics["clicks"][skipped[1]]
    hidden = rows.pop(next(index for index, row in enumerate(rows) if row.offset == skipped[2]))
    world.work()
    rows.insert(skipped[2], hidden)


def wrong_chain(world: World) -> None:
    change_state(world, 2, lambda state: setattr(state, "chain", bytes(16)))


def missing_slate(world: World) -> None:
    found, mine = slates(world)
    del found[mine[2]]
    world.log.renumber(world.settings.recommendations_topic)


def committed_unread(world: World) -> None:
    """The offset of an event was committed before its state was durable."""
    _, partition, offset = world.send(0, BOB)
    world.log.offsets["clicks", partition] = offset + 1


def poison(world: World, stage: str = "inference", user: str = BOB) -> None:
    """A user's event is set aside and the fence moved over it."""
    _, partition, offset = world.send(0, user)
    row = world.log.topics["clicks"][partition][offset]
    world.letter("clicks", row, "the model failed", stage)
    state = world.states[user.encode()]
    state.applied[0], state.folded = offset, []
    world.write(user.encode(), partition, state_module.encode(state))
    world._read["clicks", partition] = offset + 1
    world.commit()
    world.slate(user.encode(), partition, True)


def red(mutate: Callable[[World], None], kinds: set[str]) -> None:
    """Breaks one thing in the output of a right worker: these kinds are found, and no other but what follows from them."""
    world = small()
    mutate(world)
    report = verify(world)
    assert report.exit_code == 1
    assert kinds <= set(report.kinds), report.violations
    assert set(report.kinds) <= kinds | {"slate-events", "slate-applied", "slate-chain", "uncovered"}, report.violations


def named(forge: Callable[[World], None], kind: str, says: str) -> None:
    """Adds one record that no worker wrote: it is named with its place, and nothing else is red."""
    world = small()
    forge(world)
    report = verify(world)
    assert report.kinds == {kind: 1}, report.violations
    assert says in report.violations[0].message
    assert report.violations[0].topic
    assert report.violations[0].offset >= 0
