"""Fields of dead letters and slates, altered one at a time: what no worker can have written is named."""

from __future__ import annotations

import json
from typing import Any

import pytest

from deploy.verify import Report, check
from stream.core.errors import REASONS, RecordError
from stream.pipeline.dead_letter import DeadLetters
from tests.unit.deploy.verify.test_dead_letters import lettered
from tests.unit.deploy.verify.worlds import change_slate, small
from tests.unit.synthetic import NOW, World, partition_of

USER = b"carol"
HOME = partition_of("carol")


def altered(name: str, value: bytes, *, more: bool = False) -> Report:
    """The check of a letter one of whose headers says something else, or stands there twice."""
    world = lettered(USER, b"{")
    rows = world.log.topics[world.settings.dead_letters_topic][HOME]
    whole = "__rec.errors." + name
    kept = [pair for pair in rows[0].headers if more or pair[0] != whole]
    assert len(kept) + (not more) == len(rows[0].headers)
    rows[0] = rows[0]._replace(headers=(*kept, (whole, value)))
    return check(world.log, world.settings)


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("reason", b"x"), ("reason", b""), ("reason", b"malformed_json "), ("reason", b"malformed_json\n"),
        ("stage", b"x"), ("stage", b""), ("stage", b"decode1"),
        ("truncated", b"no"), ("truncated", b""), ("truncated", b"False"), ("truncated", b"true"),
        ("attempt", b""), ("attempt", b"one"), ("attempt", b"0"), ("attempt", b"-1"), ("attempt", "\u0661".encode()),
        ("failed.at", b""), ("failed.at", b"now"), ("failed.at", b"-5"), ("failed.at", b"1.5"), ("failed.at", b"9" * 17),
        ("appended.at", b"now"), ("appended.at", b"1.5"),
        ("partition", b"x"), ("partition", f"0{HOME}".encode()), ("offset", b"x"), ("offset", b"00"), ("offset", b"9" * 20),
        ("payload.sha256", b""), ("payload.sha256", b"0" * 64), ("topic", b""),
    ],
)  # fmt: skip
def test_a_header_that_no_worker_writes_is_named(name: str, value: bytes) -> None:
    report = altered(name, value)
    assert report.exit_code == 1
    assert report.kinds["dead-letter"] == 1


@pytest.mark.parametrize("name", ["reason", "offset", "host", "truncated"])
def test_a_header_that_stands_there_twice_is_named(name: str) -> None:
    """A reader that takes the first one would be told otherwise than one that takes the last."""
    world = lettered(USER, b"{")
    value = dict(world.log.topics[world.settings.dead_letters_topic][HOME][0].headers)["__rec.errors." + name]
    report = altered(name, value, more=True)
    assert report.kinds["dead-letter"] == 1
    assert any("twice" in found.message for found in report.violations)


@pytest.mark.parametrize("reason", REASONS)
@pytest.mark.parametrize("stage", ["key", "partition", "decode", "validate", "encode", "inference", "catalogue"])
def test_every_reason_and_every_stage_is_known(reason: str, stage: str) -> None:
    world = World()
    world.send_raw(0, USER, b"{", HOME)
    row = world.log.topics["clicks"][HOME][0]
    letter = DeadLetters("ab" * 32, lambda: NOW).letter("clicks", HOME, row, RecordError(stage, reason, "", "x"))
    world.log.append("dead-letters", HOME, letter.key, letter.value, tuple(letter.headers))
    world.log.offsets["clicks", HOME] = 1
    report = check(world.log, world.settings)
    assert (report.violations, report.exit_code) == ([], 0)


ITEMS = [{"item": "a", "score": 1.5}, {"item": "b", "score": 1.0}]


@pytest.mark.parametrize(
    ("fields", "says"),
    [
        ({"items": ITEMS[::-1]}, "order"),
        ({"items": [ITEMS[0], ITEMS[0] | {"score": 1.0}]}, "twice"),
        ({"latency_ms": -2}, "latency_ms"),
        ({"latency_ms": -1}, "latency_ms"),
        ({"catalogue": -2}, "catalogue"),
        ({"time": -1}, "time"),
    ],
)
def test_a_slate_that_no_worker_makes_is_named(fields: dict[str, Any], says: str) -> None:
    world = small()
    change_slate(world, 1, **fields)
    report = check(world.log, world.settings)
    assert report.exit_code == 1
    assert report.kinds == {"slate": 1}
    assert says in report.violations[0].message


@pytest.mark.parametrize("fields", [{"items": []}, {"items": [ITEMS[0], ITEMS[1] | {"score": 1.5}]}, {"latency_ms": 0}])
def test_what_a_worker_may_make_is_not(fields: dict[str, Any]) -> None:
    world = small()
    change_slate(world, 1, **fields)
    assert check(world.log, world.settings).violations == []


def test_a_users_first_state_is_no_replay() -> None:
    """Nothing of this user can have been read again before there was a state of theirs."""
    world = small()
    change_slate(world, 0, replay=True)
    report = check(world.log, world.settings)
    assert report.kinds == {"slate-events": 1}
    assert "first" in report.violations[0].message


def test_a_later_state_may_be_a_replay() -> None:
    world = small()
    change_slate(world, 1, replay=True)
    assert check(world.log, world.settings).violations == []


def test_a_replay_of_the_first_state_names_no_events() -> None:
    world = World()
    world.send(0, "alice")
    world.work()
    world.work(again=1)
    rows = world.log.topics[world.settings.recommendations_topic][partition_of("alice")]
    slate = json.loads(rows[1].value or b"")
    assert (slate["events"], slate["replay"]) == ([], True)
    assert check(world.log, world.settings).violations == []
