"""The commands write and look for users' keys in the form of the setting `key`."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import typer
from aiokafka.partitioner import murmur2 as kafka_hash
from typer.testing import CliRunner

from deploy.cli.commands import deadletters, recommendations
from deploy.cli.commands.send import _checked
from deploy.cli.main import app
from deploy.clients import slate_reader
from deploy.clients.message_keys import keyed, require_keys
from deploy.clients.murmur2 import murmur2
from deploy.dead_letters import corrections
from deploy.dead_letters.corrections import Acceptance, Edits
from deploy.dead_letters.reader import Choice, DeadLetter, DeadLetterReader
from deploy.dead_letters.redrive import Redrive, Status
from deploy.dead_letters.status import DeadLetterStatuses, State
from models.data import Message
from stream.core.decoder import EventDecoder
from stream.core.errors import DataError, RecordError
from stream.core.keys import ANYONE, FORMS, JSON, LONG, UTF8, key_of
from stream.core.messages import CLICK
from stream.pipeline.dead_letter import DeadLetters
from stream.settings import Settings, load
from tests.unit.synthetic import NOW, Lists

USER = "42"
BODY = {"user": USER, "item": "i1", "time": NOW}


def settings_of(form: str) -> Settings:
    return load(app_id="t", partitions=2, key=form)


def lines(*bodies: dict[str, Any]) -> Any:
    return iter([(f"line {number}: ", json.dumps(body).encode()) for number, body in enumerate(bodies, start=1)])


# send, replay, demo


@pytest.mark.parametrize("form", FORMS)
def test_send_writes_the_key_in_this_form_and_an_items_key_as_text(form: str) -> None:
    ((key, _),) = _checked("click", settings_of(form), lines(BODY))
    assert key == key_of(USER, form)
    ((key, _),) = _checked("item", settings_of(form), lines({"item": "i1", "title": "One"}))
    assert key == b"i1"


def test_send_refuses_a_user_that_has_no_key() -> None:
    with pytest.raises(RecordError, match=r"line 2: user: expected a whole number .* got 'alice'"):
        list(_checked("click", settings_of(LONG), lines(BODY, BODY | {"user": "alice"})))


@pytest.mark.parametrize("form", FORMS)
def test_messages_of_a_data_folder_get_their_keys(form: str) -> None:
    event, item = Message("ratings", USER.encode(), b"{}"), Message("items", b"i1", b"{}")
    assert keyed(event, form) == Message("ratings", key_of(USER, form), b"{}")
    assert keyed(item, form) == item


def test_replay_says_before_it_sends_which_users_have_no_key() -> None:
    for form in (UTF8, JSON):
        require_keys("shop", ["ann", "7"], form)
    require_keys("shop", ["7", "-8"], LONG)
    with pytest.raises(DataError, match=r"shop: user: expected a whole number .* got 'ann'.*; and 1 more"):
        require_keys("shop", ["7", "ann", "ben", "ann"], LONG)


@pytest.mark.parametrize("form", FORMS)
def test_replay_sends_events_under_such_keys_or_nothing(
    form: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    sent: list[tuple[str, bytes]] = []

    class Sender:
        def __init__(self, *_: Any, **__: Any) -> None: ...

        def __enter__(self) -> Sender:
            return self

        def __exit__(self, *_: object) -> None: ...

        def send(self, topic: str, key: bytes, value: bytes) -> None:
            sent.append((topic, key))

        def position(self, future: Any) -> None: ...

    monkeypatch.setattr("deploy.clients.producer.Producer", Sender)
    words = ["--set", f"key={form}", "replay", str(tmp_path), "--again"]
    (tmp_path / "clicks.jsonl").write_text(json.dumps(BODY))
    done = CliRunner().invoke(app, words)
    assert done.exit_code == 0, done.exception
    assert sent == [("items", b"i1"), ("clicks", key_of(USER, form))]
    sent.clear()
    (tmp_path / "clicks.jsonl").write_text(json.dumps(BODY) + "\n" + json.dumps(BODY | {"user": "ann"}))
    done = CliRunner().invoke(app, words)
    assert isinstance(done.exception, DataError) == (form == LONG)
    assert len(sent) == (0 if form == LONG else 3)


@pytest.mark.parametrize("form", FORMS)
def test_the_demo_sends_its_events_under_such_keys(form: str) -> None:
    from deploy.demo.client import Feed

    sent: list[tuple[str, bytes]] = []

    class Sender:
        def send(self, topic: str, key: bytes, value: bytes) -> None:
            sent.append((topic, key))

    feed = Feed.__new__(Feed)
    feed._settings = settings_of(form)
    feed._bulk = feed._single = Sender()  # type: ignore[assignment]
    feed.send(Message("clicks", USER.encode(), b"{}"))
    feed.send_bulk(Message("items", b"i1", b"{}"))
    assert sent == [("clicks", key_of(USER, form)), ("items", b"i1")]


# recommendations


class Log(Lists):
    def close(self) -> None:
        pass


def slate(user: str, seq: int) -> bytes:
    return json.dumps(
        {"user": user, "slate": "s", "seq": seq, "chain": "0" * 32, "items": [], "time": NOW, "latency_ms": 1, "events": [],
         "applied": {}, "catalogue": -1, "bundle": "b", "strategy": "interest", "replay": False}
    ).encode()  # fmt: skip


@pytest.mark.parametrize("form", FORMS)
def test_a_users_slate_is_found_under_its_key(form: str, monkeypatch: pytest.MonkeyPatch) -> None:
    given = settings_of(form)
    topic = given.recommendations_topic
    log = Log([topic], 2)
    for name in FORMS:
        key = key_of(USER, name)
        log.append(topic, murmur2(key) % 2, key, slate(USER, 1 if name == form else 9))
    log.append(topic, murmur2(b"*") % 2, b"*", slate("*", 0))
    monkeypatch.setattr(slate_reader, "KafkaLog", lambda settings: log)
    found = slate_reader.SlateReader(given, USER).latest()
    assert found is not None
    assert found["seq"] == 1
    anyone = slate_reader.SlateReader(given, ANYONE).latest()
    assert anyone is not None
    assert anyone["user"] == "*"


def test_a_user_that_has_no_key_is_told_before_anything_is_read() -> None:
    context: Any = type("Context", (), {"obj": settings_of(LONG)})
    with pytest.raises(typer.BadParameter, match=r"--user: expected a whole number .* got 'alice'"):
        recommendations.recommendations(context, "alice")


# dead letters


def world_of_letters(given: Settings, key: bytes, body: Any = BODY) -> tuple[Lists, DeadLetterReader, DeadLetter]:
    """A log with one record that no worker of these settings takes, and its letter."""
    clicks = given.sources[CLICK]
    log = Lists([*given.sources, given.dead_letters_topic], 2)
    home = murmur2(key_of(USER, given.key)) % 2
    log.append(clicks, home, key, json.dumps(body).encode(), (), NOW)
    row = log.topics[clicks][home][0]
    with pytest.raises(RecordError) as error:
        EventDecoder(kafka_hash, 2, (0.5, 5), given.sources, key=given.key).decode(
            CLICK, home, 0, NOW, row.key, row.value
        )
    letter = DeadLetters("00").letter(clicks, home, row, error.value)
    log.append(given.dead_letters_topic, home, letter.key, letter.value, tuple(letter.headers), NOW)
    reader = DeadLetterReader(given, log)
    return log, reader, next(iter(reader.read()))


@pytest.mark.parametrize("form", FORMS)
def test_the_key_from_the_user_is_of_this_form_and_goes_back_once(form: str, tmp_path: Path) -> None:
    given = settings_of(form)
    other = next(name for name in FORMS if name != form)
    log, reader, letter = world_of_letters(given, key_of(USER, other))
    acceptance = Acceptance(given)
    assert f'key = "{other}"' in corrections.line(acceptance, letter, Edits())["wrong"][0]
    row = corrections.line(acceptance, letter, Edits(key_from_user=True))
    assert row["wrong"] == []
    file = tmp_path / "fix.jsonl"
    file.write_text(json.dumps(row) + "\n")

    class Sender:
        def send(self, topic: str, key: bytes | None, value: bytes | None, headers: Any) -> Any:
            return log.append(topic, murmur2(key or b"") % 2, key, value, tuple(headers), NOW)

        def position(self, future: Any) -> Any:
            return ("clicks", 0, future)

    assert DeadLetterStatuses(given, reader, Choice()).of(letter).state is State.OPEN
    task = Redrive(given, reader, Choice(), corrections.read(file))
    assert [one.status for one in task.run(task.plan(), Sender())] == [Status.SENT]
    assert log.topics["clicks"][murmur2(key_of(USER, form)) % 2][-1].key == key_of(USER, form)
    assert DeadLetterStatuses(given, reader, Choice()).of(letter).state is State.BACK
    again = Redrive(given, reader, Choice(), corrections.read(file))
    assert [one.status for one in again.run(again.plan(), Sender())] == [Status.BACK]


def test_a_user_that_has_no_key_leaves_the_letters_key_and_is_named() -> None:
    given = settings_of(LONG)
    _, _, letter = world_of_letters(given, key_of(USER, LONG), BODY | {"user": "alice"})
    row = corrections.line(Acceptance(given), letter, Edits(key_from_user=True))
    assert corrections.as_bytes(row["key"]) == key_of(USER, LONG)
    assert "another number than the body's user" in row["wrong"][0]


@pytest.mark.parametrize("form", FORMS)
def test_a_key_that_is_given_by_hand_is_the_users(form: str) -> None:
    given = settings_of(form)
    other = next(name for name in FORMS if name != form)
    _, reader, letter = world_of_letters(given, key_of(USER, other))
    ((source, correction),) = deadletters._single(given.key, reader, Choice(), None, USER, None).items()
    assert (source, correction.key) == (letter.source, key_of(USER, form))
    task = Redrive(given, reader, Choice(), {source: correction})
    assert [one.status for one in task.run(task.plan(), None)] == [Status.READY]
    if form == LONG:
        with pytest.raises(typer.BadParameter, match="--key: expected a whole number"):
            deadletters._single(given.key, reader, Choice(), None, "alice", None)
