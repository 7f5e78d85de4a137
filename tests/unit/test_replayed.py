"""A replay that is repeated sends what is not there yet."""

from __future__ import annotations

import json

from deploy.replayed import already_there, id_prefix
from models.data import event_messages
from models.data.dataset import Event, dataset
from stream.events import CLICK, RATING
from tests.unit.synthetic import NOW, Lists, settings

EVENTS = [Event("ann", f"i{n}", CLICK, NOW + n) for n in range(5)] + [Event("bob", "i1", RATING, NOW, 4.0)]


def test_the_same_events_have_the_same_ids() -> None:
    events = dataset("one", EVENTS, [], (0.5, 5.0), now_ms=NOW).events
    again = dataset("two", EVENTS[::-1], [], (0.5, 5.0), now_ms=NOW).events
    ids = [json.loads(message.value)["id"] for message in event_messages(events, id_prefix(events))]
    assert ids == [json.loads(message.value)["id"] for message in event_messages(again, id_prefix(again))]
    assert len(set(ids)) == len(EVENTS)
    other = dataset("one", EVENTS[1:], [], (0.5, 5.0), now_ms=NOW).events
    assert id_prefix(other) != id_prefix(events)
    assert "id" not in json.loads(next(event_messages(events)).value)


def test_what_is_there_is_found_and_nothing_else() -> None:
    names = settings()
    log = Lists(names.sources)
    events = dataset("one", EVENTS, [], (0.5, 5.0), now_ms=NOW).events
    prefix = id_prefix(events)
    sent = list(event_messages(events, prefix))
    for number in (0, 2, 5):
        log.append(names.prefix + sent[number].topic, number % 2, sent[number].key, sent[number].value)
    log.append(names.sources[0], 0, b"ann", b'{"user":"ann","item":"i1","time":1,"id":"another-1"}')
    log.append(names.sources[0], 0, b"ann", None)
    log.append(names.sources[0], 0, b"ann", b"\xff not JSON")
    assert already_there(log, names, prefix) == {0, 2, 5}
