"""`freshet rules`: what is refused, what is warned about, and what is printed where."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, ClassVar

import pytest
from typer.testing import CliRunner, Result

from deploy.cli.main import app
from deploy.clients import missing_items
from deploy.clients.producer import Sent
from stream.settings import load
from tests.unit.synthetic import Lists

SETTINGS = load()
TOYS: dict[str, Any] = {"rule": "toys", "kind": "only", "filter": {"category": "toys"}}


class Topics(Lists):
    def close(self) -> None: ...


class Takes:
    """deploy.clients.producer's Producer: what it sends is in `sent`."""

    sent: ClassVar[list[tuple[bytes, bytes | None]]] = []

    def __init__(self, *arguments: Any, **more: Any) -> None: ...

    def __enter__(self) -> Takes:
        return self

    def __exit__(self, *error: object) -> None: ...

    def send(self, topic: str, key: bytes, value: bytes | None) -> Any:
        self.sent.append((key, value))
        return Sent(topic, 0, 4)

    def position(self, future: Sent) -> Sent:
        return future


@pytest.fixture
def topics(monkeypatch: pytest.MonkeyPatch) -> Topics:
    log = Topics([SETTINGS.rules_topic, SETTINGS.items_topic], 1)
    for name, category in (("a", "toys"), ("b", "books"), ("gone", "lamps")):
        body = json.dumps({"item": name, "title": "T", "categories": [category], "attributes": {"price": 3}}).encode()
        log.append(SETTINGS.items_topic, 0, name.encode(), body, (), 1)
    log.append(SETTINGS.items_topic, 0, b"gone", None, (), 2)
    monkeypatch.setattr("deploy.clients.producer.Producer", Takes)
    monkeypatch.setattr("deploy.clients.log_reader.KafkaLog", lambda settings: log)
    monkeypatch.setattr(missing_items, "opened", lambda settings: log)
    monkeypatch.setattr(Takes, "sent", [])
    return log


def stand(log: Topics, *rules: dict[str, Any]) -> None:
    """Put rules in the topic."""
    for rule in rules:
        log.append(SETTINGS.rules_topic, 0, rule["rule"].encode(), json.dumps(rule).encode(), (), 1)


def said(*words: str, code: int = 0) -> Result:
    done = CliRunner().invoke(app, ["rules", *words])
    found = done.exit_code if done.exception is None or isinstance(done.exception, SystemExit) else 65
    assert found == code, (done.output, done.exception)
    return done


def put(**rule: Any) -> list[str]:
    """Put a rule -> its warnings."""
    done = said("put", json.dumps(rule))
    assert done.stdout == f"{SETTINGS.rules_topic}/0/4\n"
    return done.stderr.splitlines()


def test_put_warns_and_sends_all_the_same(topics: Topics) -> None:
    assert put(**TOYS) == []
    assert put(rule="s", kind="pin", item="b", place=0) == []
    assert put(rule="s", kind="pin", item="gone", place=0) == [
        "freshet: s: item: the catalogue has no item 'gone': it is not shown until it is live"
    ]
    assert put(rule="t", kind="only", filter={"category": "toyz\x1b"}) == [
        "freshet: t: filter: no item has the category 'toyz\\x1b'",
        "freshet: t: filter: it matches none of the 2 live items: each slate that it applies to is empty",
    ]
    assert put(rule="u", kind="boost", factor=2, filter={"price": {"ge": 3}}, until=10**12 * 5 // 4) == [
        "freshet: u: until: 2009-08-11T14:13:20Z is past: the rule does not apply"
    ]
    assert [key for key, _ in Takes.sent] == [b"toys", b"s", b"s", b"t", b"u"]


def test_rules_of_a_file_are_seen_together(topics: Topics, tmp_path: Path) -> None:
    file = tmp_path / "rules.jsonl"
    books = {**TOYS, "rule": "books", "filter": {"category": "books"}}
    file.write_text(f"{json.dumps(TOYS)}\n\n{json.dumps(books)}\n")
    assert said("put", "--file", str(file)).stderr.splitlines() == [
        "freshet: toys: with the rule 'books', it leaves no live item: slates to which both apply are empty",
        "freshet: books: with the rule 'toys', it leaves no live item: slates to which both apply are empty",
    ]


def test_what_is_no_rule_says_what_to_do(topics: Topics, tmp_path: Path) -> None:
    file = tmp_path / "rule1.json"
    file.write_text('{\n  "rule": "a"\n}\n')
    assert "--file" in said("put", str(file), code=2).stderr
    assert "line 1: the JSON ends before it is complete; expected one rule per line" in str(
        said("put", "--file", str(file), code=65).exception
    )
    file.write_text("\n")
    assert "empty, nothing sent" in str(said("put", "--file", str(file), code=65).exception)
    assert "send one rule per record" in str(said("put", "[]", code=65).exception)
    assert "1700000000 looks like seconds; times are milliseconds: multiply by 1000" in str(
        said("put", json.dumps(TOYS | {"until": 1_700_000_000}), code=65).exception
    )
    assert Takes.sent == []


def test_the_list_can_be_put_again(topics: Topics, tmp_path: Path) -> None:
    assert said("list").stdout == ""
    assert said("list").stderr == "freshet: there are no rules\n"
    past, later = TOYS | {"rule": "past", "until": 1}, TOYS | {"rule": "later", "since": 4_000_000_000_000}
    stand(topics, TOYS, past, {"rule": "bad", "kind": "zap"}, later)
    done = said("list")
    assert [json.loads(line) for line in done.stdout.splitlines()] == [TOYS, past, later]
    first, second, third = done.stderr.splitlines()
    assert first == "freshet: past does not apply any more: until was 1970-01-01T00:00:00Z"
    assert second.startswith('freshet: bad is not in force: kind: found "zap" (a text), expected one of block')
    assert third == "freshet: later does not apply yet: since is 2096-10-02T07:06:40Z"
    file = tmp_path / "rules.jsonl"
    file.write_text(done.stdout)
    said("put", "--file", str(file))
    assert [key for key, _ in Takes.sent] == [b"toys", b"past", b"later"]
    found = json.loads(said("list", "--json").stdout)["rules"]
    assert [(one["rule"], one["in_force"], one["state"]) for one in found] == [
        ("toys", True, "active"), ("past", True, "expired"), ("bad", False, "refused"), ("later", True, "scheduled"),
    ]  # fmt: skip


def test_delete_says_what_remains(topics: Topics) -> None:
    stand(topics, TOYS, TOYS | {"rule": "e"})
    refused = said("delete", "toys", "e", "typo", code=65).exception
    assert str(refused) == "there is no rule 'typo'; nothing was deleted: 'toys', 'e' remain"
    refused = said("delete", "e", "typo", "typo2", code=65).exception
    assert str(refused) == "there are no rules 'typo', 'typo2'; nothing was deleted: 'e' remains"
    assert str(said("delete", "typo", code=65).exception) == "there is no rule 'typo'; nothing was deleted"
    assert Takes.sent == []
    said("delete", "toys")
    assert Takes.sent == [(b"toys", None)]
