"""A replay that is repeated sends what is not there yet."""

from __future__ import annotations

import json
from pathlib import Path

import polars as pl
import pytest

from deploy.clients.already_sent import already_there
from deploy.clients.message_keys import keyed
from models.data import event_messages, read
from models.data.dataset import Event, dataset, fingerprint
from stream.core.messages import CLICK, COMMENT, RATING
from stream.settings import Settings, load
from tests.unit.synthetic import NOW, Lists, settings

EVENTS = [
    *(Event("ann", f"i{n}", CLICK, NOW + n, scene="home", action="view") for n in range(4)),
    Event("ann", "i9", CLICK, NOW + 9),
    Event("bob", "i1", RATING, NOW, 4.0),
    Event("bob", "i1", COMMENT, NOW, text="Good, \u201ereally\u201c"),
    Event("7", "i1", COMMENT, NOW, 2.5, "Hm"),
]


def table(events: list[Event]) -> pl.DataFrame:
    return dataset("made up", events, [], (0.5, 5.0), now_ms=NOW).events


def ids(events: list[Event]) -> list[str]:
    return [json.loads(message.value)["id"] for message in event_messages(table(events), ids=True)]


def bodies(log: Lists, names: Settings) -> list[dict[str, object]]:
    return [json.loads(row.value or b"") for topic in names.sources for row in log.all(topic)]


def test_an_id_depends_on_the_event_alone() -> None:
    assert ids(EVENTS) == ids(EVENTS[::-1])
    assert len(set(ids(EVENTS))) == len(EVENTS)
    assert set(ids(EVENTS[1:])) < set(ids(EVENTS))
    assert all("id" not in json.loads(message.value) for message in event_messages(table(EVENTS)))


def test_every_field_of_an_event_is_in_its_id() -> None:
    one = Event("ann", "a", COMMENT, NOW, 3.0, "fine", "home")
    others = [
        one._replace(user="bob"),
        one._replace(item="b"),
        one._replace(time=NOW + 1),
        one._replace(value=3.5),
        one._replace(text="Fine"),
        one._replace(scene="shop"),
        one._replace(behaviour=RATING, text=""),
        Event("ann", "a", CLICK, NOW, scene="home"),
        Event("ann", "a", CLICK, NOW, scene="home", action="view"),
    ]
    assert len(set(ids([one, *others]))) == 1 + len(others)
    # fields that lie next to each other are not run together
    assert ids([Event("ann", "ab", CLICK, NOW)]) != ids([Event("anna", "b", CLICK, NOW)])


def test_the_ids_of_this_version_stay_as_they_are() -> None:
    """A topic holds them for years: another way of making them would double every history."""
    assert ids([Event("ann", "a", COMMENT, NOW, 3.0, "fine", "home")]) == ["replay-c659697358af29daac89b02a2d2a5ded"]
    assert ids([Event("ann", "a", CLICK, NOW, action="view")]) == ["replay-9389652b798b961eabb9453c8512fe82"]


def test_an_id_of_the_events_own_is_sent_and_found(tmp_path: Path) -> None:
    log, names = Lists(settings().sources), settings()
    rows = [{"user": "ann", "item": "a", "time": NOW, "id": f"o-{n}"} for n in range(3)]
    (tmp_path / "clicks.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    events = read(tmp_path).events
    assert [json.loads(message.value)["id"] for message in event_messages(events, ids=True)] == ["o-0", "o-1", "o-2"]
    # as `freshet send click --file` writes it, or any producer: with spaces, fields in another order
    log.append(names.sources[0], 0, b"ann", json.dumps({"id": "o-1"} | rows[1]).encode())
    # the same id of another user is another event, and so is that of a message that no worker takes
    log.append(names.sources[0], 0, b"bob", json.dumps(rows[2] | {"user": "bob"}).encode())
    log.append(names.sources[0], 0, b"bob", json.dumps(rows[0]).encode())
    assert already_there(log, names, events) == {1}


def test_of_a_file_that_grew_only_the_new_events_are_sent() -> None:
    log, names = Lists(settings().sources), settings()
    before, after = table(EVENTS[:3] + EVENTS[4:]), table(EVENTS)
    for message in event_messages(before, ids=True):
        log.append(names.prefix + message.topic, 0, message.key, message.value)
    assert len(already_there(log, names, before)) == len(before)
    there = already_there(log, names, after)
    assert [tuple(row)[:4] for n, row in enumerate(after.iter_rows()) if n not in there] == [EVENTS[3][:4]]


@pytest.mark.parametrize("id_before", ["", "{fingerprint}-{number}"])
def test_what_an_earlier_version_sent_is_found_by_what_it_says(id_before: str) -> None:
    """Ids of earlier versions were a part of the data set's fingerprint and a number."""
    log, names = Lists(settings().sources), settings()
    before, after = table(EVENTS[:5]), table(EVENTS)
    for number, message in enumerate(event_messages(before)):
        name = id_before.format(fingerprint=fingerprint(before)[:16], number=number)
        body = json.loads(message.value) | ({"id": name} if name else {})
        log.append(names.prefix + message.topic, 0, message.key, json.dumps(body).encode())
    there = already_there(log, names, after)
    assert {row[:4] for n, row in enumerate(after.iter_rows()) if n in there} == {event[:4] for event in EVENTS[:5]}


def test_an_event_with_another_id_of_its_own_is_another_event() -> None:
    log, names = Lists(settings().sources), settings()
    log.append(names.sources[0], 0, b"ann", b'{"user":"ann","item":"i9","time":%d,"id":"x"}' % (NOW + 9))
    assert already_there(log, names, table([EVENTS[4]])) == set()
    assert already_there(log, names, table([EVENTS[4]._replace(id="y")])) == set()
    assert already_there(log, names, table([EVENTS[4]._replace(id="x", item="another")])) == {0}


@pytest.mark.parametrize("form", ["utf8", "json"])
def test_keys_of_every_form_are_read(form: str) -> None:
    names = load(app_id="t", key=form)
    log = Lists(names.sources)
    for message in event_messages(table(EVENTS), ids=True):
        log.append(names.prefix + message.topic, 0, keyed(message, form).key, message.value)
    assert already_there(log, names, table(EVENTS)) == set(range(len(EVENTS)))


def test_an_event_in_an_envelope_is_found() -> None:
    names = load(app_id="t", envelope="cloudevents")
    log = Lists(names.sources)
    wrapped = {
        "specversion": "1.0",
        "id": "o-1",
        "type": "click",
        "source": "shop",
        "data": {"user": "ann", "item": "i9", "time": NOW},
    }
    log.append(names.sources[0], 0, b"ann", json.dumps(wrapped).encode())
    assert already_there(log, names, table([Event("ann", "i9", CLICK, NOW, id="shop o-1")])) == {0}


def test_what_is_no_event_is_passed_over() -> None:
    log, names = Lists(settings().sources), settings()
    log.append(names.sources[0], 0, b"ann", None)
    log.append(names.sources[0], 0, None, b"{}")
    log.append(names.sources[0], 0, b"ann", b"\xff not JSON")
    log.append(names.sources[1], 0, b"bob", b'{"user":"bob","item":"i1","time":1,"value":9}')
    assert already_there(log, names, table(EVENTS)) == set()
