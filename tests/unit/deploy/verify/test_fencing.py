"""Writers, claims and fences: the log's order decides whose states count, and a forged claim changes nothing."""

from __future__ import annotations

import json
from collections.abc import Callable

import pytest

from deploy.verify.fencing import CLAIM
from tests.unit.deploy.verify.worlds import ALICE, named, small, states, verify
from tests.unit.synthetic import NOW, World, partition_of


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


FORGERIES: list[tuple[Callable[[World], None], str, str]] = [
    (forged_claim, "forged-claim", "but 3 is in force"),
    (claim_of_another_header, "forged-claim", "but its header names 4"),
    (claim_of_a_stranger, "forged-claim", "'evil'"),
    (state_under_the_claims_key, "claim", "not JSON"),
    (state_of_a_huge_epoch, "claim", "no takeover can reach"),
]


@pytest.mark.parametrize(("forge", "kind", "says"), FORGERIES, ids=lambda value: getattr(value, "__name__", ""))
def test_a_forged_record_is_named_and_breaks_nothing_else(forge: Callable[[World], None], kind: str, says: str) -> None:
    named(forge, kind, says)


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
