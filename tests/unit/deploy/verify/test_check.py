"""`freshet verify` on logs in memory, as a whole: a right worker is green, what is not committed yet is waited for."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from deploy.verify import check
from stream.core.errors import TopologyError
from tests.unit.deploy.verify.worlds import ALICE, BOB, committed_unread, eventful, red, slates, small, verify
from tests.unit.synthetic import World


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


def committed_too_far(world: World) -> None:
    world.log.offsets["clicks", 0] = 10_000


MUTANTS: list[tuple[Callable[[World], None], set[str]]] = [
    (committed_too_far, {"commit"}),
    (committed_unread, {"lost"}),
]


@pytest.mark.parametrize(("mutate", "kinds"), MUTANTS, ids=lambda value: getattr(value, "__name__", ""))
def test_a_mutant_is_red_for_the_right_reason(mutate: Callable[[World], None], kinds: set[str]) -> None:
    red(mutate, kinds)


def test_the_world_that_is_broken_below_is_whole() -> None:
    report = verify(small())
    assert report.violations == []
    assert report.exit_code == 0


def test_the_first_offender_is_named() -> None:
    world = small()
    _, partition, offset = world.send(0, BOB)
    world.log.offsets["clicks", partition] = offset + 1
    first = verify(world).violations[0]
    assert (first.kind, first.user, first.topic, first.partition, first.offset) == (
        "lost", BOB, "clicks", partition, offset,
    )  # fmt: skip
    assert BOB in str(first)


def test_a_break_is_red_even_where_something_cannot_be_judged() -> None:
    world = small()
    found, mine = slates(world)
    del found[mine[0]]
    committed_unread(world)
    assert verify(world).exit_code == 1


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
