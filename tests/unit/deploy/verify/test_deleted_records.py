"""Source records that were deleted: sends that nobody had read are lost, what was processed raises no alarm."""

from __future__ import annotations

import json
import random
from hashlib import sha256
from pathlib import Path
from typing import Any

import pytest

from deploy.verify import Report, Scope, check
from tests.unit.synthetic import NOW, PARTITIONS, World, partition_of

ALICE, BOB = "alice", "bob"
HOME = partition_of(ALICE)


def verify(world: World, scope: Scope | None = None) -> Report:
    return check(world.log, world.settings, scope=scope)


def delete(world: World, topic: str, partition: int, start: int, *, skip: bool = False) -> None:
    """The log of a topic begins at `start` now; skip: a worker that comes to what is gone goes on there without a word."""
    rows = world.log.topics[topic][partition]
    rows[:] = [row for row in rows if row.offset >= start]
    world.log.first[topic, partition] = start
    if skip:
        world._read[topic, partition] = max(start, world._read.get((topic, partition), 0))


class Trimmed(World):
    """Its worker goes by offsets, though the log has lost its beginning."""

    def work(self, limit: int = 10**9, again: int = 0) -> None:
        kept = {topic: [list(rows) for rows in parts] for topic, parts in self.log.topics.items()}
        read = dict(self._read)
        for topic in self.settings.sources:
            for partition, rows in enumerate(self.log.topics[topic]):
                begin = max(read.get((topic, partition), 0), self.log.first.get((topic, partition), 0))
                rows[:] = [row for row in rows if row.offset >= begin]
                self._read[topic, partition] = 0
        super().work(limit)
        for topic in self.settings.sources:
            for partition, rows in enumerate(self.log.topics[topic]):
                rows[:] = kept[topic][partition]
                self._read[topic, partition] = rows[-1].offset + 1 if rows else read.get((topic, partition), 0)
        self.commit()


def skipped(ids: bool = False, count: int = 200, hole: bool = False) -> Trimmed:
    """40 clicks are processed, `count` more deleted unread, 20 later ones processed."""
    world = Trimmed()

    def click(number: int) -> None:
        fields: dict[str, Any] = {"id": f"e{number}"} if ids else {}
        world.send(0, ALICE, f"i{number % 9}", **fields)

    for number in range(40):
        click(number)
    world.work()
    for number in range(count):
        click(40 + number)
    delete(world, "clicks", HOME, 40 + count)
    for number in range(20):
        click(40 + count + number)
    if hole:
        world.log.topics["clicks"][HOME].pop(5)
    world.work()
    return world


def producer_log(folder: Path, *offsets: int) -> Scope:
    """A producer's ledger: its clicks of these offsets were acknowledged."""
    lines = [
        {
            "id": f"s{offset}", "topic": "clicks", "partition": HOME, "offset": offset, "key": ALICE,
            "sha256": sha256(b"").hexdigest(), "status": "acked",
        }
        for offset in offsets
    ]  # fmt: skip
    file = folder / "ledger.jsonl"
    file.write_text("".join(json.dumps(line) + "\n" for line in lines))
    return Scope(producer_log=file)


@pytest.mark.parametrize("hole", [False, True])
@pytest.mark.parametrize("ids", [False, True])
def test_sends_that_were_deleted_unread_are_lost(tmp_path: Path, ids: bool, hole: bool) -> None:
    report = verify(skipped(ids, hole=hole), producer_log(tmp_path, *range(240)))
    assert report.kinds == {"lost": 1}
    (found,) = report.violations
    assert (found.topic, found.partition, found.offset) == ("clicks", HOME, 40)
    assert "records 40 to 239 were deleted" in found.message
    assert (report.lost, report.applied, report.exit_code) == (200, 20 - hole, 1)


def test_offsets_deleted_unread_are_named_where_nothing_tells_that_they_were_records(tmp_path: Path) -> None:
    for scope in (None, producer_log(tmp_path, 39, 240)):
        report = verify(skipped(), scope)
        assert [note.kind for note in report.notes] == ["deleted"]
        assert "records 40 to 239 were deleted" in report.notes[0].message
        assert "aborted records" in report.notes[0].message
        assert (report.lost, report.applied) == (0, 20)


@pytest.mark.parametrize("more", [0, 3])
def test_a_marker_that_was_deleted_last_is_no_loss(more: int) -> None:
    """Two committed clicks and their marker, all of it deleted by retention; plain ones may follow."""
    world = Trimmed()
    for _ in range(2):
        world.send(0, ALICE)
    world.work()
    world.log.topics["clicks"][HOME].clear()
    world.log.first["clicks", HOME] = world.log.offsets["clicks", HOME] = world._read["clicks", HOME] = 3
    for _ in range(more):
        world.send(0, ALICE)
    if more:
        world.work()
    report = verify(world)
    assert (report.violations, report.lost, report.exit_code) == ([], 0, 3)
    assert "records 2 to 2" in report.notes[0].message


def test_a_letter_reaches_into_what_is_gone_as_a_state_does(tmp_path: Path) -> None:
    world = Trimmed()
    world.send(0, ALICE)
    world.send_raw(0, ALICE.encode(), b"{", HOME)
    world.work()
    delete(world, "clicks", HOME, 2)
    world.send(0, ALICE)
    world.work()
    report = verify(world)
    assert (report.violations, report.notes, report.exit_code) == ([], [], 3)
    world.send(0, ALICE)
    delete(world, "clicks", HOME, 4)
    world.send(0, ALICE)
    world.work()
    report = verify(world, producer_log(tmp_path, 3))
    assert report.kinds == {"lost": 1}
    assert "records 3 to 3" in report.violations[0].message


@pytest.mark.parametrize("seed", range(30))
def test_what_was_processed_and_then_deleted_is_no_alarm(seed: int) -> None:
    """Duplicates, dead letters, several topics and users, micro-batches that end anywhere; any beginning may be gone."""
    world = Trimmed()
    chance = random.Random(seed)
    for _ in range(120):
        user = f"u{chance.randrange(4)}"
        behaviour = chance.choice((0, 0, 0, 1, 2))
        if chance.random() < 0.1:
            world.send_raw(behaviour, user.encode(), b"{", partition_of(user))
        else:
            fields: dict[str, Any] = {"id": f"e{chance.randrange(10)}"} if chance.random() < 0.5 else {}
            world.send(behaviour, user, f"i{chance.randrange(9)}", time=NOW, **fields)
        if chance.random() < 0.1:
            world.work()
    world.work()
    for topic in world.settings.sources:
        for partition in range(PARTITIONS):
            if rows := world.log.topics[topic][partition]:
                delete(world, topic, partition, chance.randrange(rows[-1].offset + 2))
                world.log.offsets[topic, partition] = rows[-1].offset + 1 if rows else world.log.first[topic, partition]
    report = verify(world)
    assert report.violations == []
    assert report.exit_code == 3


def test_duplicates_of_the_same_micro_batch_leave_a_doubt() -> None:
    """One state folds an event behind a duplicate: nothing tells of the duplicate once it is deleted."""
    world = Trimmed()
    world.send(0, ALICE, id="a")
    world.work()
    world.send(0, ALICE, id="a")
    world.send(0, ALICE, id="b")
    world.work()
    delete(world, "clicks", HOME, 2)
    report = verify(world)
    assert (report.violations, report.exit_code) == ([], 3)
    assert [note.kind for note in report.notes] == ["deleted"]
    assert "may have been duplicates" in report.notes[0].message


def test_a_hole_in_the_topic_leaves_a_doubt() -> None:
    """The last offset of a transaction is no record; neither are those of one that was aborted."""
    report = verify(skipped(hole=True))
    assert (report.violations, report.exit_code) == ([], 3)
    assert "offsets without a record" in report.notes[0].message


def test_a_compacted_changelog_leaves_a_doubt() -> None:
    world = skipped()
    rows = world.log.topics[world.settings.changelog_topic][HOME]
    del rows[0]
    report = verify(world)
    assert (report.violations, report.exit_code) == ([], 3)
    assert "compacted" in "".join(note.message for note in report.notes) or not report.notes


def test_what_the_group_has_not_come_to_yet_is_not_judged_but_named(tmp_path: Path) -> None:
    world = Trimmed()
    world.send(0, ALICE)
    world.work()
    for _ in range(5):
        world.send(0, ALICE)
    delete(world, "clicks", HOME, 4)
    report = verify(world)
    assert (report.violations, report.exit_code) == ([], 3)
    assert "records 1 to 3 were deleted" in report.notes[0].message
    scope = producer_log(tmp_path, 1, 2, 3)
    waited = check(world.log, world.settings, wait=0.01, sleep=lambda seconds: None, scope=scope)
    assert waited.kinds == {"lost": 3}, waited.violations  # the range, and the two that are left


def test_a_topic_that_had_lost_its_beginning_before_the_first_worker_came() -> None:
    world = Trimmed()
    for _ in range(9):
        world.send(0, ALICE)
    delete(world, "clicks", HOME, 7)
    world.work()
    report = verify(world)
    assert (report.violations, report.notes, report.applied, report.exit_code) == ([], [], 2, 3)


def test_a_range_does_not_look_for_what_was_deleted_before_it() -> None:
    world = skipped()
    report = verify(world, Scope(starts={("clicks", HOME): 250}))
    assert report.violations == []
