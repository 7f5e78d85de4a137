"""`freshet explain` over topics in memory and a real exported bundle."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import typer
from typer.testing import CliRunner

from deploy.cli.commands import explain as command
from deploy.clients import log_reader
from deploy.clients.explained import explain
from deploy.clients.murmur2 import murmur2
from stream.core import state as interest
from stream.core.errors import DataError, TopologyError
from stream.core.fencing_log import CLAIM_KEY, Claim, encode, stamp
from stream.core.fold import advance, apply_events
from stream.core.keys import LONG
from stream.core.messages import NAN, SourceEvent
from stream.core.tables import CLOSED_KEY, encode_closed, encode_row, row_key
from stream.gateway.items import ItemCatalogue
from stream.inference.bundle import Bundle, current, load
from stream.inference.models import Models, open_models
from stream.settings import Settings
from stream.settings import load as load_settings
from tests.epochs import closed, row
from tests.unit.synthetic import Lists

TOPICS = ("clicks", "ratings", "comments")


class Log(Lists):
    """Topics in memory, closed as a real one is."""

    def close(self) -> None:
        pass


@pytest.fixture(scope="module")
def bundle(bundles: Path) -> Bundle:
    return load(current(bundles))


@pytest.fixture(scope="module")
def models(bundle: Bundle) -> Models:
    return open_models(bundle, "cpu")


@pytest.fixture
def settings(bundles: Path) -> Settings:
    return load_settings(app_id="t", partitions=2, bundles=bundles)


def record(bundle: Bundle, models: Models, *items: int) -> bytes:
    """The state record of ann after a click on the first item and ratings of the others."""
    events = [
        SourceEvent(int(n > 0), 0, n, 0, b"ann", f"item-{one}", 1000 * n, 4.5 if n else NAN, "", "", "", b"{}")
        for n, one in enumerate(items)
    ]
    user = apply_events(b"ann", 0, None, events, TOPICS, bundle.state_model, bundle.hidden)
    snapshot = ItemCatalogue(bundle, lambda texts: np.zeros((len(texts), bundle.item_dim), np.float32)).snapshot
    advance([user], models, snapshot, bundle.spec)
    return interest.encode(user.state)


@pytest.fixture
def log(settings: Settings, bundle: Bundle, models: Models) -> Log:
    found = Log([settings.items_topic, settings.rules_topic, settings.tables_topic, settings.changelog_topic], 2)
    for number in range(1, 41):
        name = f"item-{number}"
        item = {"item": name, "title": f"[Title] {number}", "available": number != 9}
        found.append(settings.items_topic, 0, name.encode(), json.dumps(item).encode())
    place = murmur2(b"ann") % 2
    claim = Claim(5, "0" * 32, 1)
    found.append(settings.changelog_topic, place, CLAIM_KEY, encode(claim), (*stamp(5),))
    found.append(settings.changelog_topic, place, b"ann", record(bundle, models, 1, 2, 3), (*stamp(5),))
    found.append(settings.changelog_topic, place, b"ann", record(bundle, models, 30), (*stamp(4),))  # fenced
    return found


def test_every_item_of_the_slate_and_every_other_one(log: Log, settings: Settings) -> None:
    places: dict[str, int] = {}
    for number in range(1, 41):
        found = explain(log, settings, "ann", f"item-{number}")
        parts = found.explanation.parts
        total = parts.interest + parts.neighbours + parts.popularity + parts.rules
        assert total == pytest.approx(found.score, abs=1e-4)
        assert (found.seq, found.title, found.rules) == (3, f"[Title] {number}", None)
        assert (found.place is None) == bool(found.why_not)
        if found.place is not None:
            places[f"item-{number}"] = found.place
            assert found.rank == found.place
        elif number == 9:
            assert "not live" in found.why_not
            assert found.rank is None
        elif number <= 3:
            assert "interacted" in found.why_not
        else:
            assert found.why_not == f"by score it is at place {(found.rank or 0) + 1}, and the slate has 10"
    assert sorted(places.values()) == list(range(10))


def test_rules(log: Log, settings: Settings) -> None:
    for rule in (
        {"rule": "gone", "kind": "block", "filter": {"item": "item-20"}},
        {"rule": "star", "kind": "pin", "item": "item-21", "place": 0},
        {"rule": "more", "kind": "boost", "filter": {"item": "item-1"}, "factor": 2.0},
    ):
        log.append(settings.rules_topic, 0, str(rule["rule"]).encode(), json.dumps(rule).encode())
    gone = explain(log, settings, "ann", "item-20")
    assert (gone.place, gone.rank, gone.rules) == (None, None, 2)
    assert gone.why_not == "rule gone (block) leaves it out"
    star = explain(log, settings, "ann", "item-21")
    assert star.place == 0
    assert "rule star puts it at place 1" in star.explanation.text
    seen = explain(log, settings, "ann", "item-1")
    assert [one.rule for one in seen.explanation.boosts] == ["more"]
    assert seen.explanation.parts.rules == pytest.approx(0.693147, abs=1e-5)


def test_it_explains_with_the_newest_tables(log: Log, settings: Settings) -> None:
    """Of the user's choices, item-3 has got a neighbour far away; the others have none any more."""
    before = explain(log, settings, "ann", "item-35")
    assert (before.tables, before.explanation.neighbours) == (None, [])
    rows = [row("item-3", {"item-35": 4}), row("item-35")]
    for number in (1, 2):
        for one in rows:
            log.append(settings.tables_topic, 0, row_key(one.item), encode_row(one))
        log.append(settings.tables_topic, 0, CLOSED_KEY, encode_closed(closed(rows, number)))
    found = explain(log, settings, "ann", "item-35")
    assert found.tables == 2
    assert [one.item for one in found.explanation.neighbours] == ["item-3"]
    parts = found.explanation.parts
    assert parts.neighbours == pytest.approx(0.5 * 4 / (2 + 1), abs=1e-4)
    assert parts.interest + parts.neighbours + parts.popularity == pytest.approx(found.score, abs=1e-4)
    kept = explain(log, settings.model_copy(update={"tables": "bundle"}), "ann", "item-35")
    assert (kept.tables, kept.score) == (None, before.score)


def test_diversity(log: Log, settings: Settings) -> None:
    diverse = settings.model_copy(update={"diversity": 0.6})
    found = [explain(log, diverse, "ann", f"item-{number}") for number in range(4, 41) if number != 9]
    shown = [one for one in found if one.place is not None]
    assert len(shown) == 10
    moves = {one.place: one.explanation.diversity for one in shown}
    assert all(moved and moved.after == place for place, moved in moves.items())
    assert any("re-ranked" in one.why_not for one in found)


def test_placements(log: Log, settings: Settings) -> None:
    placed = settings.model_validate(
        settings.model_dump()
        | {"placements": {"cart": {"size": 2, "filter": {"item": ["item-1", "item-7", "item-8"]}}}}
    )
    other = explain(log, placed, "ann", "item-20", "cart")
    assert (other.place, other.why_not) == (None, "the placement's filter leaves it out")
    found = {name: explain(log, placed, "ann", name, "cart").place for name in ("item-7", "item-8")}
    assert sorted(one for one in found.values() if one is not None) == [0, 1]
    with pytest.raises(DataError, match="placement 'x': expected one of the setting placements: default, cart"):
        explain(log, placed, "ann", "item-1", "x")


def test_an_unknown_user_or_item_is_refused_with_what_to_do(log: Log, settings: Settings) -> None:
    with pytest.raises(
        DataError, match=r"user 'bob': found no state in partition \d of .*; send one with `freshet send"
    ):
        explain(log, settings, "bob", "item-1")
    with pytest.raises(DataError, match=r"item 'x': found neither in the bundle .* nor in the topic items"):
        explain(log, settings, "ann", "x")
    log.append(settings.changelog_topic, murmur2(b"ann") % 2, b"ann", None, (*stamp(5),))
    with pytest.raises(DataError, match="user 'ann': found no state"):
        explain(log, settings, "ann", "item-1")
    other = Log([settings.items_topic], 1)
    with pytest.raises(TopologyError, match="app_id t: if the workers have another, give it with --set app_id"):
        explain(other, settings, "ann", "item-1")


@pytest.fixture
def run(log: Log, settings: Settings, monkeypatch: pytest.MonkeyPatch) -> Any:
    monkeypatch.setattr(log_reader, "KafkaLog", lambda _: log)
    monkeypatch.setenv("COLUMNS", "110")

    def call(*words: str, changed: Settings = settings) -> Any:
        app = typer.Typer()
        app.command()(command.explain)
        return CliRunner().invoke(app, list(words), obj=changed)

    return call


def test_the_table_and_the_words(run: Any, log: Log, settings: Settings) -> None:
    rule = {"rule": "more", "kind": "boost", "filter": {"item": "item-1"}, "factor": 2.0}
    log.append(settings.rules_topic, 0, b"more", json.dumps(rule).encode())
    done = run("ann", "item-1")
    assert done.exit_code == 0, done.output
    assert "item-1, [Title] 1 for ann after 3 events: not in the slate" in done.stdout
    for words in ("interest", "neighbours", "popularity", "boost more: 2 times the odds", "sum", "(+0.6931)", "rating"):
        assert words in done.stdout, words
    assert "rule more multiplies its odds by 2" in done.stdout
    assert "not in the slate: the user has interacted with it" in done.stdout


def test_json(run: Any) -> None:
    done = run("ann", "item-4", "--json")
    assert done.exit_code == 0, done.output
    found = json.loads(done.stdout)
    assert (found["user"], found["item"], found["seq"]) == ("ann", "item-4", 3)
    assert sum(found["explanation"]["parts"].values()) == pytest.approx(found["score"], abs=1e-4)
    assert found["explanation"]["events"][0]["type"] in ("click", "rating")


def test_a_user_without_a_key_is_wrong_usage(run: Any, settings: Settings) -> None:
    done = run("ann", "item-1", changed=settings.model_copy(update={"key": LONG}))
    assert done.exit_code == 2
    assert "USER" in done.output
