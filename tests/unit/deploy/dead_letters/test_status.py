"""Which dead letters are open, and which were sent back: as `freshet deadletters list` says it. Topics are lists in memory."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import pytest
from aiokafka.partitioner import murmur2 as kafka_hash

from deploy.clients.murmur2 import murmur2
from deploy.dead_letters.corrections import Correction
from deploy.dead_letters.reader import Choice, DeadLetterReader
from deploy.dead_letters.redrive import CLOCKS_MS, Status
from deploy.dead_letters.status import DeadLetterStatuses, State
from stream.core.decoder import EventDecoder
from stream.core.errors import RecordError
from stream.core.origin import ORIGINAL_RECORD_HEADER
from tests.unit.deploy.dead_letters.test_letters import (
    CLICKS,
    NOW,
    RATINGS,
    SETTINGS,
    World,
    fate,
    fixed,
    rating,
    source,
)

EVERYTHING = Choice()
Run = Callable[..., tuple[int, str, str]]


@pytest.fixture
def world() -> World:
    return World()


def states(world: World, choice: Choice = EVERYTHING) -> list[tuple[str, State]]:
    box = world.box()
    statuses = DeadLetterStatuses(SETTINGS, box, choice)
    return sorted(("/".join(letter.source), statuses.of(letter).state) for letter in box.read(choice))


def test_what_was_sent_back_is_told_from_what_is_open(world: World) -> None:
    bad = world.put(RATINGS, b"alice", rating(value="four"))
    other = world.put(CLICKS, b"bob", b"{")
    assert states(world) == sorted([("/".join(source(bad)), State.OPEN), ("/".join(source(other)), State.OPEN)])
    world.replay(fixed(bad, value=rating()))
    assert states(world) == sorted([("/".join(source(bad)), State.BACK), ("/".join(source(other)), State.OPEN)])
    statuses = DeadLetterStatuses(SETTINGS, world.box(), Choice())
    (letter,) = world.box().read(Choice(RATINGS))
    landed = statuses.of(letter).landed
    assert landed is not None
    assert world.log.topics[RATINGS][landed.partition][landed.offset].value == rating()


@pytest.mark.parametrize(
    ("key", "value", "correction"),
    [
        (None, rating(), Correction(key=b"alice")),
        (None, b"{", Correction(key=b"zoe", value=rating("zoe"))),  # nobody could know the user: any key counts
        (b"bob", rating("alice"), Correction(key=b"alice")),
        (b"\xff", rating("alice"), Correction(key=b"alice")),
        (b"alice", rating("bob"), Correction(value=rating("alice"))),
    ],
)
def test_a_letter_whose_key_was_corrected_counts_as_sent_back(
    world: World, key: bytes | None, value: bytes, correction: Correction
) -> None:
    bad = world.put(RATINGS, key, value)
    assert world.replay({source(bad): correction}) == [fate(bad, Status.SENT)]
    assert states(world) == [("/".join(source(bad)), State.BACK)]


def test_a_record_under_somebody_elses_key_hides_no_letter(world: World) -> None:
    """It may be forged: the letter stays open, and the place is named."""
    bad = world.put(RATINGS, b"alice", rating(value="four"))
    world.put(RATINGS, b"mallory", rating("mallory"), ((ORIGINAL_RECORD_HEADER, "/".join(source(bad)).encode()),))
    assert states(world) == [("/".join(source(bad)), State.ELSEWHERE)]
    assert State.ELSEWHERE.open
    (letter,) = world.box().read()
    landed = DeadLetterStatuses(SETTINGS, world.box(), Choice()).of(letter).landed
    assert landed is not None
    assert landed.partition == murmur2(b"mallory") % 2


def test_what_failed_again_is_open_once(world: World) -> None:
    first = world.put(RATINGS, b"alice", rating(value="four"))
    world.decoder = EventDecoder(kafka_hash, 2, (1, 3), SETTINGS.sources)
    world.replay(fixed(first, value=rating()))
    world.decoder = EventDecoder(kafka_hash, 2, SETTINGS.rating_scale, SETTINGS.sources)
    assert sorted(state for _, state in states(world)) == [State.OPEN, State.REPEATED]
    assert dict(states(world))["/".join(source(first))] == State.REPEATED
    world.replay(fixed(first, value=rating()))
    assert {state for _, state in states(world)} == {State.BACK}


def test_one_record_in_two_letters_is_open_once(world: World) -> None:
    world.put(RATINGS, b"alice", rating(value="four"))
    world.refuse(RATINGS, world.log.all(RATINGS)[0], RecordError("validate", "wrong_type", "value", "no"))
    assert sorted(state for _, state in states(world)) == [State.OPEN, State.REPEATED]


def test_a_letter_from_elsewhere_is_open(world: World) -> None:
    world.log.topics["other"] = [[], []]
    world.log.append("other", 0, b"alice", rating())
    world.refuse("other", world.log.topics["other"][0][0], RecordError("decode", "malformed_json", "", "no"))
    assert states(world) == [("other/0/0", State.OPEN)]


def test_only_the_choice_is_looked_for(world: World) -> None:
    bad = world.put(RATINGS, b"alice", rating(value="four"))
    world.put(CLICKS, b"bob", b"{")
    assert states(world, Choice(RATINGS)) == [("/".join(source(bad)), State.OPEN)]


def test_where_records_were_deleted_it_says_so(world: World) -> None:
    world.put(RATINGS, b"alice", rating(value="four"))
    assert DeadLetterStatuses(SETTINGS, world.box(), Choice()).unseen == []
    home = (RATINGS, murmur2(b"alice") % 2)
    world.put(RATINGS, b"alice", rating(), now=NOW + 2 * CLOCKS_MS)
    world.log.first[home] = 1
    assert home in DeadLetterStatuses(SETTINGS, world.box(), Choice()).unseen


# the command


@pytest.fixture
def desk(world: World, monkeypatch: pytest.MonkeyPatch) -> World:
    """Two open letters and one that was sent back, behind `freshet deadletters list`."""

    @contextmanager
    def opened(_: Any) -> Iterator[DeadLetterReader]:
        yield DeadLetterReader(SETTINGS, world.log)

    monkeypatch.setattr("deploy.dead_letters.reader.opened", opened)
    bad = world.put(RATINGS, b"alice", rating(value="four"))
    world.put(CLICKS, b"bob", b"{")
    world.put(CLICKS, b"carol", b"{")
    world.replay(fixed(bad, value=rating()))
    return world


def listed(freshet: Run, *words: str) -> dict[str, Any]:
    code, out, err = freshet("--prefix", "p-", "deadletters", "list", "--json", *words)
    assert (code, err) == (0, "")
    found: dict[str, Any] = json.loads(out)
    return found


def test_the_list_has_the_status_and_counts(desk: World, freshet: Run) -> None:
    found = listed(freshet)
    assert found["matched"] == 3
    assert found["counts"] == {"open": 2, "sent back": 1}
    assert sorted((row["topic"], row["status"]) for row in found["letters"]) == [
        (CLICKS, "open"), (CLICKS, "open"), (RATINGS, "sent back"),
    ]  # fmt: skip
    back = next(row for row in found["letters"] if row["status"] == "sent back")
    assert back["landed"] == [RATINGS, murmur2(b"alice") % 2, 1]
    assert all(row["landed"] is None for row in found["letters"] if row["status"] == "open")


def test_the_list_is_narrowed_to_what_is_open_or_sent_back(desk: World, freshet: Run) -> None:
    for words, topics in (
        (("--open",), [CLICKS, CLICKS]),
        (("--sent-back",), [RATINGS]),
        (("--all",), [CLICKS, CLICKS, RATINGS]),
        (("--open", "--limit", "1"), [CLICKS]),
    ):
        found = listed(freshet, *words)
        assert sorted(row["topic"] for row in found["letters"]) == topics
        assert found["counts"] == {"open": 2, "sent back": 1}  # of each, whatever is shown
    code, _, err = freshet("deadletters", "list", "--open", "--sent-back")
    assert code == 2
    assert "one of --open, --sent-back, --all" in " ".join(err.split())


def test_the_sections_stand_apart(desk: World, freshet: Run) -> None:
    code, out, _ = freshet("--prefix", "p-", "deadletters", "list")
    assert code == 0
    assert "2 of 2 dead letters open, the newest first" in out
    assert "1 of 1 dead letter sent back, the newest first" in out
    assert out.index("p-clicks/") < out.index("sent back") < out.index("p-ratings/")
    assert "3 dead letters: 2 open, 1 sent back" in out
    for words in ((), ("--summary",)):
        out = freshet("--prefix", "p-", "deadletters", "list", "--no-status", "--topic", RATINGS, *words)[1]
        assert "1 dead letter" in out
        assert "1 dead letters" not in out


def test_the_summary_counts_what_is_open(desk: World, freshet: Run) -> None:
    found = listed(freshet, "--summary")
    assert (found["matched"], found["counts"]) == (3, {"open": 2, "sent back": 1})
    assert {(kind["topic"], kind["letters"], kind["open"]) for kind in found["kinds"]} == {
        (CLICKS, 2, 2),
        (RATINGS, 1, 0),
    }
    assert [kind["letters"] for kind in listed(freshet, "--summary", "--sent-back")["kinds"]] == [1]


def test_without_the_status_the_source_topics_are_not_read(desk: World, freshet: Run) -> None:
    for topic in SETTINGS.sources:
        del desk.log.topics[topic]
    found = listed(freshet, "--no-status")
    assert (found["matched"], len(found["letters"])) == (3, 3)
    assert "counts" not in found
    assert all("status" not in row for row in found["letters"])
    code, _, err = freshet("deadletters", "list", "--no-status", "--open")
    assert code == 2
    assert "--no-status" in err
