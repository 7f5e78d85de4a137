"""`freshet send item`: what is not given stays as it is. The topic is a list in memory."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import pytest

from deploy.clients.log_reader import Span, TopicPartition
from deploy.clients.producer import Sent
from stream.core.errors import BrokerError
from tests.unit.synthetic import Lists, Row

Run = Callable[..., tuple[int, str, str]]
WHOLE = {
    "item": "i1", "title": "Spring", "text": "The snow melts.", "categories": ["Drama"], "scenes": ["home"],
    "available": False, "shelf": {"row": 7},
}  # fmt: skip


class Topic(Lists):
    """The items topic, read and written by the command."""

    def __init__(self) -> None:
        super().__init__(["items"], 1)
        self.read: list[Span] = []
        self.error: Exception | None = None

    def put(self, item: str, value: Any) -> None:
        raw = value if value is None or isinstance(value, bytes) else json.dumps(value).encode()
        self.append("items", 0, item.encode(), raw)

    def records(self, topic: str, spans: dict[TopicPartition, Span]) -> Any:
        if self.error:
            raise self.error
        self.read += spans.values()
        return super().records(topic, spans)

    def send(self, topic: str, key: bytes | None, value: bytes | None) -> Sent:
        return Sent(topic, 0, self.append(topic, 0, key, value))

    def position(self, future: Sent) -> Sent:
        return future

    def close(self) -> None:
        pass

    def __enter__(self) -> Topic:
        return self

    def __exit__(self, *_: object) -> None:
        pass

    @property
    def newest(self) -> Any:
        value = self.topics["items"][0][-1].value
        return None if value is None else json.loads(value)


@pytest.fixture
def topic(monkeypatch: pytest.MonkeyPatch) -> Topic:
    made = Topic()
    monkeypatch.setattr("deploy.clients.log_reader.KafkaLog", lambda settings: made)
    monkeypatch.setattr("deploy.clients.producer.Producer", lambda *_, **__: made)
    return made


def send(freshet: Run, *words: str, code: int = 0) -> str:
    found, _, err = freshet("send", "item", *words)
    assert found == code, err
    return " ".join(err.replace("│", " ").split())


@pytest.mark.parametrize(
    ("words", "change"),
    [
        (("--title", "Flood"), {"title": "Flood"}),
        (("--text", "Rain."), {"text": "Rain."}),
        (("--category", "A", "--category", "B"), {"categories": ["A", "B"]}),
        (("--scene", "search"), {"scenes": ["search"]}),
        (("--available",), {"available": True}),
        (("--unavailable",), {}),
        (("--text", ""), {"text": None}),
        (("--category", ""), {"categories": None}),
        (("--scene", ""), {"scenes": None}),
    ],
)
def test_only_what_is_given_changes(topic: Topic, freshet: Run, words: tuple[str, ...], change: dict[str, Any]) -> None:
    topic.put("i1", {"item": "i1", "title": "old"})
    topic.put("i1", WHOLE)
    topic.put("i2", {"item": "i2", "title": "Other"})
    send(freshet, "--item", "i1", *words)
    assert topic.newest == {name: value for name, value in (WHOLE | change).items() if value is not None}


def test_replace_sends_the_whole_without_reading(topic: Topic, freshet: Run) -> None:
    topic.put("i1", WHOLE)
    topic.error = BrokerError("no")
    send(freshet, "--item", "i1", "--title", "Flood", "--replace")
    assert topic.newest == {"item": "i1", "title": "Flood"}
    assert "--title" in send(freshet, "--item", "i1", "--text", "x", "--replace", code=2)


@pytest.mark.parametrize("before", [(), (WHOLE, None)])
def test_a_new_item_needs_its_title(topic: Topic, freshet: Run, before: tuple[Any, ...]) -> None:
    for value in before:
        topic.put("i1", value)
    output = send(freshet, "--item", "i1", "--text", "x", code=2)
    assert "i1 is not in the catalogue" in output
    assert "--title" in output
    send(freshet, "--item", "i1", "--title", "New", "--text", "")
    assert topic.newest == {"item": "i1", "title": "New"}


@pytest.mark.parametrize(
    ("value", "named"),
    [
        (b"{", "the JSON ends before it is complete"),
        (b"\xff", "UTF-8"),
        ([1], "object"),
        ({"item": "i1", "title": 7}, "title"),
        ({"item": "i2", "title": "x"}, "item"),
    ],
)
def test_a_newest_record_that_is_no_item_is_named_and_nothing_sent(
    topic: Topic,
    freshet: Run,
    value: Any,
    named: str,
) -> None:
    topic.put("i1", value)
    output = send(freshet, "--item", "i1", "--text", "x", code=65)
    assert "items/0/0" in output
    assert named in output
    assert "--replace" in output
    assert len(topic.all("items")) == 1


def test_where_the_topic_cannot_be_read_nothing_is_sent(topic: Topic, freshet: Run) -> None:
    topic.put("i1", WHOLE)
    topic.error = BrokerError("items cannot be read: gone")
    output = send(freshet, "--item", "i1", "--title", "Flood", code=69)
    assert "items cannot be read: gone" in output
    assert "--replace" in output
    assert len(topic.all("items")) == 1


def test_the_topic_is_read_from_its_end_and_no_record_twice(topic: Topic, freshet: Run) -> None:
    rows = topic.topics["items"][0]
    rows += [Row(0, offset, 0, b"i%d" % (offset % 5), b"{}") for offset in range(5)]
    topic.first["items", 0] = 3  # the first ones are deleted
    rows.append(Row(0, 900_000, 0, b"i1", json.dumps(WHOLE).encode()))  # compaction left a hole
    send(freshet, "--item", "i1", "--title", "Flood")
    assert topic.newest == WHOLE | {"title": "Flood"}
    assert len(topic.read) == 1  # it lies near the end
    topic.read.clear()
    send(freshet, "--item", "new", "--title", "New")
    offsets = [offset for span in topic.read for offset in range(span.start, span.end)]
    assert len(offsets) == len(set(offsets)) == 900_002 - 3


def test_a_file_holds_whole_items(topic: Topic, freshet: Run, tmp_path: Any) -> None:
    topic.put("i1", WHOLE)
    file = tmp_path / "items.jsonl"
    file.write_text('{"item": "i1", "title": "Flood"}\n')
    topic.error = BrokerError("not to be read")
    send(freshet, "--file", str(file))
    assert topic.newest == {"item": "i1", "title": "Flood"}
    output = send(freshet, "--file", str(file), "--available", code=2)
    assert "omit available" in output


def test_an_id_that_no_item_can_have_is_refused_before_anything_is_read(topic: Topic, freshet: Run) -> None:
    topic.error = BrokerError("not to be read")
    output = send(freshet, "--item", "x" * 257, "--title", "t", code=65)
    assert "item" in output
