"""`freshet replay` itself: what it leaves as it is, and what it says. Topics are lists in memory."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner, Result

from deploy.cli.interrupted import Interrupted
from deploy.cli.main import app
from deploy.clients.producer import Sent
from tests.unit.synthetic import NOW, Lists

TOPICS = ("clicks", "ratings", "comments", "items")


class Broker(Lists):
    """Topics that the command reads and writes."""

    def __init__(self) -> None:
        super().__init__(TOPICS, 1)

    def put(self, item: str, body: dict[str, Any] | bytes | None) -> None:
        value = body if body is None or isinstance(body, bytes) else json.dumps({"item": item} | body).encode()
        self.append("items", 0, item.encode(), value)

    def send(self, topic: str, key: bytes | None, value: bytes | None) -> Sent:
        return Sent(topic, 0, self.append(topic, 0, key, value))

    def position(self, future: Sent) -> Sent:
        return future

    def close(self) -> None: ...

    def __enter__(self) -> Broker:
        return self

    def __exit__(self, *_: object) -> None: ...

    def sent(self, topic: str) -> list[str]:
        return [(row.key or b"").decode() for row in self.all(topic)]


@pytest.fixture
def broker(monkeypatch: pytest.MonkeyPatch) -> Broker:
    log = Broker()
    monkeypatch.setattr("deploy.clients.producer.Producer", lambda *_, **__: log)
    monkeypatch.setattr("deploy.clients.log_reader.KafkaLog", lambda settings: log)
    return log


@pytest.fixture
def shop(tmp_path: Path) -> Path:
    items = [{"item": f"i{n}", "title": f"Item {n}", "categories": ["toys"]} for n in range(6)]
    clicks = [{"user": "ann", "item": f"i{n}", "time": NOW + n} for n in range(5)]
    (tmp_path / "items.jsonl").write_text("".join(json.dumps(one) + "\n" for one in items))
    (tmp_path / "clicks.jsonl").write_text("".join(json.dumps(one) + "\n" for one in clicks))
    return tmp_path


def replay(*words: str | Path) -> Result:
    done = CliRunner().invoke(app, ["replay", *map(str, words)])
    assert done.exit_code == 0, (done.exception, done.output)
    return done


def test_a_repeated_replay_leaves_every_item_that_is_there_as_it_is(broker: Broker, shop: Path) -> None:
    assert "6 items and 5 events sent" in replay(shop).stdout
    broker.put("i0", None)
    broker.put("i1", {"title": "Item 1", "categories": ["toys"], "available": False})
    broker.put("i2", {"title": "A new title", "categories": ["toys"]})
    broker.put(
        "i3", {"title": "Item 3", "categories": ["toys"], "shelf": 7}
    )  # as in DATA, but for what DATA cannot say
    before = broker.all("items")
    output = replay(shop).stdout
    assert broker.all("items") == before
    assert "0 items and 0 events sent" in output
    assert (
        "6 items were there already; 3 of them are removed or different from DATA ('i0' removed, 'i1' unavailable, "
        "'i2' changed): all are left unchanged; --again sends them (with --limit 0 only the items)" in output
    )


def test_items_that_are_not_there_yet_are_sent(broker: Broker, shop: Path) -> None:
    broker.put("i4", {"title": "Item 4", "categories": ["toys"]})
    broker.put("i5", {"title": 5})  # no worker takes it: it is not there
    report = json.loads(replay(shop, "--json").stdout)
    assert broker.sent("items")[2:] == ["i0", "i1", "i2", "i3", "i5"]
    assert (report["items"], report["items_already"], report["items_otherwise"]) == (5, 1, {})
    broker.put("i3", None)
    report = json.loads(replay(shop, "--json").stdout)
    assert (report["items"], report["items_already"], report["items_otherwise"]) == (0, 6, {"i3": "removed"})


def test_again_sends_the_items_whatever_is_there(broker: Broker, shop: Path) -> None:
    broker.put("i0", None)
    assert "6 items and 0 events sent" in replay(shop, "--again", "--limit", "0").stdout
    assert broker.sent("items") == ["i0", *(f"i{n}" for n in range(6))]


def test_without_items_the_topic_is_not_looked_at(broker: Broker, shop: Path) -> None:
    del broker.topics["items"]
    assert "0 items and 5 events sent" in replay(shop, "--no-items").stdout


def interrupted(*words: str | Path) -> str:
    """What a command says that Ctrl-C ends."""
    done = CliRunner().invoke(app, ["replay", *map(str, words)])
    assert isinstance(done.exception, Interrupted), (done.exception, done.output)
    assert done.exception.exit_code == 130
    return str(done.exception)


class Impatient(Broker):
    """Whoever sends gives up before the record number `last`; the newest record of each topic is not acknowledged yet."""

    last = 8

    def send(self, topic: str, key: bytes | None, value: bytes | None) -> Sent:
        if sum(len(self.all(name)) for name in TOPICS) == self.last:
            raise KeyboardInterrupt
        return super().send(topic, key, value)

    def acknowledged(self, future: Sent) -> bool:
        return future.offset + 1 < len(self.all(future.topic))


@pytest.mark.parametrize(
    ("words", "rest"),
    [
        ((), "run the same command to continue"),
        (("--again",), "run the same command to send all of it again"),
    ],
)
def test_ctrl_c_says_how_much_was_sent_and_how_to_go_on(
    monkeypatch: pytest.MonkeyPatch, shop: Path, words: tuple[str, ...], rest: str
) -> None:
    log = Impatient()
    monkeypatch.setattr("deploy.clients.producer.Producer", lambda *_, **__: log)
    monkeypatch.setattr("deploy.clients.log_reader.KafkaLog", lambda settings: log)
    assert interrupted(shop, *words) == f"interrupted: 6 of 6 items and at least 1 of 5 events sent; {rest}"
    log = Impatient()
    log.last = 3
    assert interrupted(shop, "--limit", "2", *words) == (
        f"interrupted: at least 2 of 6 items and 0 of 2 events sent; {rest}"
    )


def test_ctrl_c_while_the_topics_are_read(monkeypatch: pytest.MonkeyPatch, broker: Broker, shop: Path) -> None:
    def stop(*_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(broker, "spans", stop)
    assert interrupted(shop) == "interrupted: nothing sent; run the same command to start again"


def test_events_that_are_there_are_counted_among_those_that_are_chosen(broker: Broker, shop: Path) -> None:
    replay(shop)
    assert "; 2 events were there already" in replay(shop, "--limit", "2").stdout
    assert "; 1 event was there already" in replay(shop, "--limit", "1").stdout
    assert json.loads(replay(shop, "--limit", "3", "--json").stdout)["already"] == 3
    assert "0 items and 0 events sent" in replay(shop, "--limit", "0").stdout


def events_of(broker: Broker) -> list[dict[str, Any]]:
    return [json.loads(row.value or b"") for row in broker.all("clicks")]


def test_events_that_were_sent_with_ids_of_their_own_are_there_already(broker: Broker, tmp_path: Path) -> None:
    rows = [{"user": "ann", "item": f"i{n}", "time": NOW + n, "id": f"o-{n}"} for n in range(4)]
    (tmp_path / "clicks.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    for row in rows[:3]:  # as `freshet send click --file` sends them
        broker.append("clicks", 0, b"ann", json.dumps(row).encode())
    report = json.loads(replay(tmp_path, "--no-items", "--json").stdout)
    assert (report["events"], report["already"]) == (1, 3)
    assert events_of(broker) == rows
    assert json.loads(replay(tmp_path, "--no-items", "--json").stdout)["events"] == 0


def test_of_a_file_that_grew_the_new_event_is_sent(broker: Broker, shop: Path) -> None:
    replay(shop)
    with (shop / "clicks.jsonl").open("a") as file:
        file.write(json.dumps({"user": "bob", "item": "i1", "time": NOW - 5}) + "\n")
    report = json.loads(replay(shop, "--json").stdout)
    assert (report["events"], report["already"]) == (1, 5)
    assert events_of(broker)[-1]["user"] == "bob"


def test_events_without_times_are_there_already_when_the_file_has_grown(broker: Broker, tmp_path: Path) -> None:
    path = tmp_path / "log.csv"
    path.write_text("u,i\n" + "".join(f"u{n % 2},i{n}\n" for n in range(6)))
    named = ("--user", "u", "--item", "i", "--no-items", "--json")
    assert json.loads(replay(path, *named).stdout)["events"] == 6
    with path.open("a") as file:
        file.write("u0,i9\n")
    report = json.loads(replay(path, *named).stdout)
    assert (report["events"], report["already"]) == (1, 6)


def test_again_sends_no_ids(broker: Broker, tmp_path: Path) -> None:
    """Within a user's last 64 events the worker would take an id that is there for a repeat."""
    (tmp_path / "clicks.jsonl").write_text(json.dumps({"user": "ann", "item": "a", "time": NOW, "id": "o"}) + "\n")
    replay(tmp_path, "--no-items")
    replay(tmp_path, "--no-items", "--again")
    assert [row.get("id") for row in events_of(broker)] == ["o", None]
