"""Open transactions of somebody else: what lies behind them is pending, never missing."""

from __future__ import annotations

import pytest

from deploy.verify import Report, check
from tests.unit.deploy.verify.worlds import eventful, poison, small
from tests.unit.stream.pipeline.test_misplaced import copy, record
from tests.unit.synthetic import World, partition_of


def topic_of(world: World, which: str) -> str:
    names = world.settings
    return {
        "slates": names.recommendations_topic, "letters": names.dead_letters_topic, "states": names.changelog_topic
    }[which]  # fmt: skip


def behind(world: World, which: str, partition: int, offset: int) -> Report:
    """The check while a transaction is open from that offset on."""
    world.log.open[topic_of(world, which), partition] = offset
    return check(world.log, world.settings)


@pytest.mark.parametrize("which", ["slates", "letters", "states"])
@pytest.mark.parametrize("partition", [0, 1])
@pytest.mark.parametrize("part", [0.0, 0.3, 0.6, 0.99])
def test_what_lies_behind_an_open_transaction_is_not_missing(which: str, partition: int, part: float) -> None:
    world = eventful()
    rows = world.log.topics[topic_of(world, which)][partition]
    begin = int(part * len(rows))
    report = behind(world, which, partition, begin)
    assert report.violations == []
    assert report.exit_code == 3
    assert report.undecided == len(rows) - begin
    assert report.conserved
    (note,) = report.notes
    assert f"open transaction of another producer from offset {begin}" in note.message
    assert (note.kind, note.topic, note.partition, note.offset) == (
        "undecided", topic_of(world, which), partition, begin,
    )  # fmt: skip
    hides = {"slates": report.unshown, "letters": report.pending, "states": report.pending}[which]
    assert hides > 0 or part == 0.99


@pytest.mark.parametrize("which", ["slates", "letters", "states"])
def test_once_it_has_ended_all_is_judged_again(which: str) -> None:
    world = eventful()
    assert behind(world, which, 0, 10**6).exit_code == 0
    del world.log.topics[topic_of(world, which)][0][-1]
    broken = check(world.log, world.settings)
    assert broken.exit_code == 1
    assert (broken.undecided, broken.unshown) == (0, 0)


@pytest.mark.parametrize("which", ["slates", "letters", "states"])
def test_what_lies_before_it_is_judged_all_the_same(which: str) -> None:
    """A slate whose chain is wrong stays wrong."""
    world = eventful()
    rows = world.log.topics[world.settings.recommendations_topic][0]
    rows[0] = rows[0]._replace(value=(rows[0].value or b"").replace(b'"chain": "', b'"chain": "00'))
    report = behind(world, which, 0, len(world.log.topics[topic_of(world, which)][0]) - 1)
    assert report.exit_code == 1
    assert report.kinds["slate-chain"] == 1


def test_the_letter_of_what_the_model_fails_on_may_lie_behind_it() -> None:
    world = small()
    poison(world)
    for partition in range(2):
        dead_letters = world.log.topics[world.settings.dead_letters_topic][partition]
        if dead_letters:
            world.log.open[world.settings.dead_letters_topic, partition] = dead_letters[-1].offset
    report = check(world.log, world.settings)
    assert (report.violations, report.exit_code, report.pending) == ([], 3, 1)


def test_a_copy_of_a_misplaced_record_may_lie_behind_one_on_its_topic() -> None:
    world = World()
    row = record(offset=0)
    world.send_raw(0, row.key, row.value, row.partition)
    world.work()
    world.log.topics[world.settings.dead_letters_topic][row.partition].clear()
    sent = copy(row)
    assert sent is not None
    world.send_raw(0, sent.key, sent.value, partition_of("ann"), tuple(sent.headers))
    world.log.open["clicks", partition_of("ann")] = 0
    report = check(world.log, world.settings)
    assert (report.violations, report.exit_code, report.pending) == ([], 3, 1)
