"""What each user's newest slate shows: kept beside the states, up to an offset of the topic."""

from __future__ import annotations

from pathlib import Path

import pytest

from stream.kafka.standing_slates import END, Shown, Slot, StandingSlates
from stream.kafka.state_store import InterestStore
from tests.stores import plain_store

A, B, C = b"ann", b"bob", b"cid"


@pytest.fixture
def store(tmp_path: Path) -> InterestStore:
    found = plain_store(tmp_path / "store", "changelog")
    found.prepare(0)
    return found


@pytest.fixture
def standing(store: InterestStore) -> StandingSlates:
    """Nothing is in the topic, and nothing is missing."""
    found = StandingSlates(store)
    found.begin([0])
    found.aim(0, 0)
    assert found.caught_up(0)
    return found


def slate(*items: str, seq: int = 1) -> Shown:
    return Shown(seq, list(items))


def shown(standing: StandingSlates) -> dict[bytes, list[str]]:
    return {one.slot.user: one.shown.items for one in standing.scan(0, b"", 99)}


def test_the_newest_slate_of_each_user_is_known_also_after_a_restart(
    store: InterestStore, standing: StandingSlates
) -> None:
    standing.sent(0, [(Slot(A), slate("x", "y")), (Slot(B), slate("z", seq=7))], 1)
    standing.sent(0, [(Slot(A), slate("w"))], 2)
    store.write(0, [(A, b"state"), (B, b"state")], 5)
    assert shown(standing) == {A: ["w"], B: ["z"]}
    assert standing.read(0, [Slot(B), Slot(C)]) == [slate("z", seq=7), None]
    assert standing.behind() == []
    again = StandingSlates(store)
    again.begin([0])
    assert again.behind() == [0]
    assert again.reached(0) == 2
    assert shown(again) == {A: ["w"], B: ["z"]}
    assert store.read(0, [A]) == [b"state"]


def test_a_tombstone_removes_the_entry(standing: StandingSlates) -> None:
    standing.sent(0, [(Slot(A), slate("x")), (Slot(B), slate("y")), (Slot(A), None)], 2)
    assert shown(standing) == {B: ["y"]}
    standing.remove(0, [B])
    assert shown(standing) == {}


def test_a_scan_goes_on_after_a_user(standing: StandingSlates) -> None:
    users = [b"u", "u\xff".encode(), b"u1", b"v"]
    standing.sent(0, [(Slot(user), slate("x")) for user in users], 3)
    found = []
    at = b""
    while some := standing.scan(0, at, 1):
        at = some[-1].slot.key
        found.append(some[-1].slot.user)
    assert found == sorted(users, key=lambda user: user + END)


def test_what_is_read_later_is_older_than_what_was_sent_since(store: InterestStore) -> None:
    standing = StandingSlates(store)
    standing.begin([0])
    standing.sent(0, [(Slot(A), slate("new"))], 5)
    assert standing.reached(0) == -1
    standing.aim(0, 5)
    standing.take(0, [(Slot(A), slate("old")), (Slot(B), slate("other"))], 3)
    assert (shown(standing), standing.reached(0)) == ({A: ["new"], B: ["other"]}, 3)
    standing.take(0, [(Slot(B), None)], 4)
    assert standing.caught_up(0)
    assert (shown(standing), standing.reached(0), standing.behind()) == ({A: ["new"]}, 5, [])
    standing.sent(0, [(Slot(B), slate("z"))], 6)
    assert (standing.reached(0), standing.behind()) == (6, [])


def test_slates_that_somebody_else_has_written_in_between_must_be_read(standing: StandingSlates) -> None:
    standing.sent(0, [(Slot(A), slate("x"))], 0)
    standing.sent(0, [(Slot(B), slate("y"))], 3)
    assert (standing.behind(), standing.target(0), standing.reached(0)) == ([0], 3, 0)
    standing.take(0, [(Slot(A), slate("late")), (Slot(B), slate("late"))], 2)
    assert standing.caught_up(0)
    assert (shown(standing), standing.reached(0)) == ({A: ["late"], B: ["y"]}, 3)


def test_a_record_of_our_own_in_between_is_no_gap(standing: StandingSlates) -> None:
    standing.sent(0, [(Slot(A), slate("x"))], 0)
    standing.passed(0, 2)  # acknowledged before the slate at 1 is noted
    standing.sent(0, [(Slot(B), slate("y"))], 1)
    standing.sent(0, [(Slot(A), slate("z"))], 3)
    assert standing.behind() == []
    standing.sent(0, [(Slot(A), slate("w"))], 5)  # what is at 4 is somebody else's
    assert standing.behind() == [0]


def test_a_gap_while_it_reads_has_it_read_on(store: InterestStore) -> None:
    standing = StandingSlates(store)
    standing.begin([0])
    standing.aim(0, 2)
    standing.sent(0, [(Slot(A), slate("x"))], 4)  # offsets 2 and 3 are another's
    standing.take(0, [], 1)
    assert not standing.caught_up(0)
    assert standing.target(0) == 4
    standing.sent(0, [(Slot(A), slate("y"))], 9)
    assert standing.target(0) == -1
    standing.aim(0, 12)
    assert standing.caught_up(0)
    assert standing.reached(0) == 11


def test_an_offset_that_the_broker_did_not_report_is_looked_for(standing: StandingSlates) -> None:
    standing.sent(0, [(Slot(A), slate("x"))], -1)
    assert (standing.behind(), standing.target(0)) == ([0], -1)
    standing.sent(0, [(Slot(B), slate("y"))], 1)
    standing.aim(0, 2)
    assert standing.caught_up(0)
    assert (shown(standing), standing.reached(0)) == ({A: ["x"], B: ["y"]}, 1)


def test_another_log_begins_with_nothing(store: InterestStore, standing: StandingSlates) -> None:
    standing.sent(0, [(Slot(A), slate("x"))], 0)
    store.write(0, [(A, b"state")], 5)
    standing.drop(0)
    assert (shown(standing), standing.reached(0), store.read(0, [A])) == ({}, -1, [b"state"])


def test_a_user_has_a_slate_in_each_placement_and_a_tombstone_removes_all(standing: StandingSlates) -> None:
    home = Slot(A, "home")
    standing.sent(0, [(Slot(A), slate("x")), (home, slate("y")), (Slot(B), slate("z"))], 2)
    standing.sent(0, [(home, slate("w"))], 3)
    assert standing.read(0, [Slot(A), home, Slot(B, "home")]) == [slate("x"), slate("w"), None]
    assert [one.slot for one in standing.scan(0, b"", 99)] == [Slot(A), home, Slot(B)]
    standing.sent(0, [(Slot(A), None)], 4)
    assert [one.slot for one in standing.scan(0, b"", 99)] == [Slot(B)]


def test_a_slate_that_was_sent_since_makes_only_that_of_its_placement_older(store: InterestStore) -> None:
    standing = StandingSlates(store)
    standing.begin([0])
    standing.aim(0, 3)
    standing.sent(0, [(Slot(A), slate("new")), (Slot(B), None)], 4)
    standing.take(0, [(Slot(A), slate("old")), (Slot(A, "home"), slate("old")), (Slot(B), slate("old"))], 2)
    assert standing.read(0, [Slot(A), Slot(A, "home"), Slot(B)]) == [slate("new"), slate("old"), None]
