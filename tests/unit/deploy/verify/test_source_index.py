"""What the source topics hold: letters that were sent back, the ids of their originals, and deleted records."""

from __future__ import annotations

import pytest

from deploy.verify.source_index import SourceIndex
from deploy.verify.validator import Validator
from tests.unit.deploy.verify.worlds import ALICE, eventful, verify
from tests.unit.synthetic import NOW, PARTITIONS, Row, World, partition_of


def test_deleted_sources_cannot_be_judged() -> None:
    world = eventful()
    for partition in range(PARTITIONS):
        del world.log.topics["clicks"][partition][:20]
        world.log.first["clicks", partition] = 20
    report = verify(world)
    assert report.violations == []
    assert report.exit_code == 3


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
    source_index = SourceIndex(world.settings.sources, spans, Validator(PARTITIONS, (0.5, 5)), 0)
    row = Row(0, 0, NOW, b"u", b"", (("original-record", header),))
    assert source_index.original_record_of(row) == (header.decode() if named else "")
