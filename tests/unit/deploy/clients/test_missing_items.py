"""`freshet send` says which items the topic `items` lacks, and never waits long to find out."""

from __future__ import annotations

import json
import threading
from typing import Any

import pytest

from deploy.cli.commands import send
from deploy.clients import missing_items
from deploy.clients.producer import Sent
from stream.core.errors import BrokerError, TopologyError
from stream.settings import Settings, load
from tests.unit.synthetic import Lists

SETTINGS = load()


class Items(Lists):
    def close(self) -> None: ...


def items(*records: tuple[str, dict[str, Any] | None]) -> Items:
    log = Items([SETTINGS.items_topic], 1)
    for name, body in records:
        value = None if body is None else json.dumps({"item": name, "title": "T"} | body).encode()
        log.append(SETTINGS.items_topic, 0, name.encode(), value, (), 1)
    return log


def test_an_item_is_missing_that_was_never_sent_or_removed_or_is_not_acceptable() -> None:
    log = items(("a", {}), ("b", {}), ("b", None), ("c", {"title": 7}), ("d", {}), ("d", {"available": "no"}))
    assert missing_items.missing(log, SETTINGS.items_topic, {"a", "b", "c", "d", "e"}) == {"b", "c", "e"}


def test_a_topic_that_is_too_large_is_not_read(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(missing_items, "MOST", 2)
    log = items(("a", {}), ("b", {}))
    assert missing_items.missing(log, SETTINGS.items_topic, {"x"}) == {"x"}
    log = items(("a", {}), ("b", {}), ("c", {}))
    assert missing_items.missing(log, SETTINGS.items_topic, {"x"}) == set()


class Never:
    """A log that gives no answer until `over`."""

    def __init__(self) -> None:
        self.over = threading.Event()
        self.closed = threading.Event()

    def spans(self, topics: Any) -> Any:
        self.over.wait(30)
        raise BrokerError("gone")

    def close(self) -> None:
        self.closed.set()


def test_a_look_that_takes_too_long_is_given_up() -> None:
    log: Any = Never()
    look = missing_items.Look(SETTINGS, {"x"}, lambda settings: log)
    assert look.warning(0.05) == ""
    log.over.set()
    assert log.closed.wait(10)
    assert look.warning(10) == ""  # a broker that fails is no word about the item


def test_a_topic_that_is_not_there_is_said() -> None:
    def absent(settings: Settings) -> Any:
        raise TopologyError("topic items is missing; create it with: freshet topics create")

    assert "topic items is missing" in missing_items.Look(SETTINGS, {"x"}, absent).warning(10)


class Takes:
    """deploy.clients.producer's Producer on a broker that takes everything."""

    def __init__(self, *arguments: Any, **more: Any) -> None: ...

    def __enter__(self) -> Takes:
        return self

    def __exit__(self, *error: object) -> None: ...

    def send(self, topic: str, key: bytes, value: bytes) -> Any:
        return Sent(topic, 0, 4)

    def position(self, future: Sent) -> Sent:
        return future


@pytest.fixture
def delivered(monkeypatch: pytest.MonkeyPatch) -> Lists:
    log = items(("known", {}))
    monkeypatch.setattr("deploy.clients.producer.Producer", Takes)
    monkeypatch.setattr(missing_items, "opened", lambda settings: log)
    return log


@pytest.mark.parametrize("kind", ["click", "rating", "comment"])
@pytest.mark.parametrize("as_json", [False, True])
def test_send_warns_of_an_item_that_is_not_in_the_catalogue(
    delivered: Lists, capsys: pytest.CaptureFixture[str], kind: str, as_json: bool
) -> None:
    fields_of: dict[str, dict[str, Any]] = {"click": {}, "rating": {"value": 3.0}, "comment": {"text": "good"}}
    more = fields_of[kind]
    send._send(SETTINGS, kind, {"user": "ada", "item": "lost\x1b[1m", **more}, None, as_json)
    out, err = capsys.readouterr()
    assert f"{kind}s" in out
    assert err == (
        "freshet: the topic items has no item 'lost\\x1b[1m': the event was accepted, but such an item is never recommended, and "
        "if the bundle does not know it either, the event has next to no effect; add it with freshet send item --item ID "
        "--title TITLE\n"
    )
    send._send(SETTINGS, kind, {"user": "ada", "item": "known", **more}, None, as_json)
    assert capsys.readouterr().err == ""


def test_many_items_of_a_file_are_one_line(delivered: Lists, capsys: pytest.CaptureFixture[str], tmp_path: Any) -> None:
    file = tmp_path / "clicks.jsonl"
    file.write_text(
        "".join(json.dumps({"user": "u", "item": f"i{n}", "time": 1_700_000_000_000}) + "\n" for n in range(9))
    )
    send._send(SETTINGS, "click", {}, file, False)
    err = capsys.readouterr().err
    assert err.startswith("freshet: the topic items has no items 'i0', 'i1', 'i2' and 6 more: ")
    assert err.count("\n") == 1


def test_an_item_that_is_sent_needs_no_look(delivered: Lists, capsys: pytest.CaptureFixture[str]) -> None:
    send._send(SETTINGS, "item", {"item": "new", "title": "T"}, None, False)
    assert capsys.readouterr().err == ""
