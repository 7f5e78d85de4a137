"""`freshet recommendations` marks items of a slate that were removed or made unavailable since. Topics are lists in memory."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from typing import Any

import pytest
from typer.testing import CliRunner, Result

from deploy.cli.main import app
from deploy.clients import slate_items, slate_reader
from deploy.clients.log_reader import TopicPartition
from deploy.clients.murmur2 import murmur2
from stream.core.errors import BrokerError
from stream.settings import load
from tests.unit.synthetic import NOW, Lists, Row

SETTINGS = load()
SLATES = SETTINGS.recommendations_topic


class Broker(Lists):
    """The two topics that the command reads; `later`: slates that come while it follows."""

    def __init__(self) -> None:
        super().__init__([SLATES, SETTINGS.items_topic], 1)
        self.later: list[bytes] = []

    def item(self, name: str, body: dict[str, Any] | None) -> None:
        value = None if body is None else json.dumps({"item": name} | body).encode()
        self.append(SETTINGS.items_topic, 0, name.encode(), value)

    def tail(self, topic: str, starts: dict[TopicPartition, int]) -> Iterator[Row]:
        for offset, value in enumerate(self.later):
            yield Row(murmur2(b"ann") % 1, offset, NOW, b"ann", value)

    def close(self) -> None: ...


def slate(seq: int, items: list[str], catalogue: int = 0) -> bytes:
    scored = [{"item": item, "score": 1.0 / (1 + index)} for index, item in enumerate(items)]
    return json.dumps(
        {"user": "ann", "slate": "s", "seq": seq, "chain": "0" * 32, "items": scored, "time": NOW, "latency_ms": 1, "events": [],
         "applied": {}, "catalogue": catalogue, "bundle": "b", "strategy": "interest", "replay": False}
    ).encode()  # fmt: skip


@pytest.fixture
def broker(monkeypatch: pytest.MonkeyPatch) -> Broker:
    log = Broker()
    monkeypatch.setattr(slate_reader, "KafkaLog", lambda settings: log)
    monkeypatch.setattr(slate_items, "KafkaLog", lambda settings: log)
    for name in ("a", "b", "c"):
        log.item(name, {"title": f"Title {name}"})
    log.append(SLATES, 0, b"ann", slate(1, ["a", "b", "c", "d"], 2))
    log.item("a", None)
    log.item("b", {"title": "Title b", "available": False})
    return log  # and of d nothing is left: compaction took it away, its tombstone too


def recommendations(*words: str) -> Result:
    done = CliRunner().invoke(app, ["recommendations", "--user", "ann", *words])
    assert done.exit_code == 0, (done.exception, done.output)
    return done


def row(text: str, item: str) -> str:
    return next(line for line in text.splitlines() if f" {item} " in line)


@pytest.mark.parametrize("words", [(), ("--titles",)])
def test_what_was_removed_or_made_unavailable_is_marked(broker: Broker, words: tuple[str, ...]) -> None:
    output = recommendations(*words).stdout
    assert "removed" in row(output, "a")
    assert "unavailable" in row(output, "b")
    assert not {"removed", "unavailable"} & set(row(output, "c").split())
    assert "removed" in row(output, "d")
    assert "Title b" in output, "titles are shown wherever they are known"


@pytest.mark.parametrize("words", [(), ("--titles",)])
def test_json_has_the_mark_as_a_field(broker: Broker, words: tuple[str, ...]) -> None:
    items = json.loads(recommendations("--json", *words).stdout)["items"]
    assert [one.get("now") for one in items] == ["removed", "unavailable", None, "removed"]


def test_a_slate_of_items_that_are_all_there_has_no_mark(broker: Broker) -> None:
    broker.append(SLATES, 0, b"ann", slate(2, ["c"]))
    output = recommendations()
    assert "now" not in output.stdout
    assert output.stderr == ""


def test_a_newer_slate_that_knew_of_the_change_has_no_mark_of_an_older_look(broker: Broker) -> None:
    """b is there again by then: the worker had read on when it made the second of them."""
    broker.later = [slate(2, ["b"], 3), slate(3, ["b"], 9)]
    lines = [json.loads(line) for line in recommendations("--json", "--follow").stdout.splitlines()]
    assert [one["items"][0].get("now") for one in lines] == ["removed", "unavailable", None]


def test_a_topic_that_is_too_large_is_not_read_and_this_is_said(
    broker: Broker, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(slate_items, "MOST", 4)
    output = recommendations("--json")
    assert not any("now" in one for one in json.loads(output.stdout)["items"])
    assert output.stderr == (
        "freshet: titles are left out, and removed or unavailable items are not marked: the topic items has more than 4 "
        "offsets; --titles reads all of it\n"
    )
    assert "removed" in recommendations("--titles").stdout


def test_a_look_that_takes_too_long_or_fails_is_given_up_and_this_is_said() -> None:
    over = threading.Event()

    class Never(Broker):
        def spans(self, topics: Any) -> Any:
            over.wait(30)
            raise BrokerError("topic items: no right to read")

    look = slate_items.Look(SETTINGS, lambda settings: Never())
    assert look.found(0.05) is None
    assert "the topic items was not read within 0.05 s" in look.why
    over.set()
    assert look.found(10) is None
    assert "topic items: no right to read" in look.why
