"""Rules on a real Kafka: what an editor puts shows in the next slate, in the API and in `freshet verify`."""

from __future__ import annotations

import json
import subprocess
import sys
import time
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from deploy.clients import admin
from deploy.verify import Scope, run
from stream.settings import Settings, load
from tests.gateway_process import GatewayProcess
from tests.worker_process import Events, WorkerProcess, all_committed, environment, read_all, slates, until

pytestmark = pytest.mark.integration

USERS = 20


class Made:
    """A worker, a gateway, and items of two categories: item-1, item-3 ... are toys, the others books."""

    def __init__(self, settings: Settings, folder: Path, bundles: Path) -> None:
        self.settings = settings
        self.bundles = bundles
        self.worker = WorkerProcess(settings, folder, bundles=bundles)
        self.gateway = GatewayProcess(settings, folder, bundles=bundles)
        self.events = Events(settings, seed=3, users=USERS)
        for number in range(1, 51):
            name = f"item-{number}"
            body = {
                "item": name, "title": "A thing", "categories": ["toys" if number % 2 else "books"],
                "attributes": {"price": number},
            }  # fmt: skip
            self.events.producer.send(settings.items_topic, key=name.encode(), value=json.dumps(body).encode())
        self.events.producer.flush()

    def rules(self, *words: str, code: int = 0) -> str:
        """Run `freshet rules` -> all that it printed."""
        return "".join(self.printed(*words, code=code))

    def printed(self, *words: str, code: int = 0) -> tuple[str, str]:
        """Run `freshet rules` -> stdout, stderr."""
        done = subprocess.run(
            [sys.executable, "-m", "deploy.cli", "rules", *words], env=environment(self.settings), capture_output=True,
            text=True, timeout=120, check=False,
        )  # fmt: skip
        assert done.returncode == code, done.stdout + done.stderr
        assert "Traceback" not in done.stderr
        return done.stdout, done.stderr

    def put(self, code: int = 0, **rule: Any) -> int:
        """Put a rule by the command, and wait until worker and gateway apply it -> its offset."""
        said, _ = self.printed("put", json.dumps(rule), "--json", code=code)
        if code:
            return -1
        offset: int = json.loads(said)["records"][0]["offset"]
        self.applied(offset)
        return offset

    def applied(self, offset: int) -> None:
        until(lambda: self.worker.metric("freshet_rules_offset") >= offset, 20, "the worker applies the rule")
        until(lambda: self.gateway.metric("freshet_api_rules_offset") >= offset, 20, "the gateway applies the rule")

    def slate(self, user: str, item: str = "item-50") -> dict[str, Any]:
        """Send a click -> the worker's slate after it, which must be the API's, too."""
        seq = max((slate["seq"] for slate in slates(self.settings, user)), default=0) + 1
        topic, message = self.events.one(user=user, kind="click", item=item)
        self.events.put(topic, message).get(30)

        def found() -> Any:
            return next((slate for slate in slates(self.settings, user) if slate["seq"] == seq), None)

        slate: dict[str, Any] = until(found, 30, f"the slate of {user}")
        answer = until(lambda: self._of_seq(user, seq), 20, "the API's state")
        assert [one["item"] for one in answer["items"]] == [one["item"] for one in slate["items"]]
        for one, other in zip(answer["items"], slate["items"], strict=True):
            assert abs(one["score"] - other["score"]) <= 1e-3
        assert answer.get("rules", -1) == slate.get("rules", -1)
        return slate

    def _of_seq(self, user: str, seq: int) -> Any:
        body = self.gateway.slate(user).body
        return body if body["seq"] == seq else None


@pytest.fixture(scope="module")
def made(kafka: Any, bundles: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Made]:
    name = uuid.uuid4().hex[:8]
    settings = load(brokers=kafka.bootstrap, prefix=f"{name}-", app_id=f"{name}-app", partitions=2)
    admin.create(settings)
    found = Made(settings, tmp_path_factory.mktemp("rules"), bundles)
    found.worker.start()
    found.gateway.start()
    found.worker.wait_ready()
    found.gateway.wait_ready()
    yield found
    found.gateway.close()
    found.worker.close()
    found.events.close()


def names(slate: dict[str, Any]) -> list[str]:
    return [one["item"] for one in slate["items"]]


def test_rules_change_the_next_slate_and_verify_follows(made: Made) -> None:
    plain = made.slate("ann")
    assert "rules" not in plain
    first, second = names(plain)[:2]
    offset = made.put(rule="no-first", kind="block", filter={"item": first})
    slate = made.slate("ann")
    assert slate["rules"] == offset
    assert first not in names(slate)
    made.put(rule="toys", kind="boost", filter={"category": "toys"}, factor=1000)
    slate = made.slate("ann")
    assert all(int(name.removeprefix("item-")) % 2 for name in names(slate)), slate
    made.put(rule="star", kind="pin", item="item-42", place=2)
    made.put(rule="few", kind="cap", category="toys", most=4)
    offset = made.put(rule="some", kind="block", filter={"price": {"ge": 40, "lt": 42}}, segment={"share": [0, 50]})
    slate = made.slate("ann")
    assert slate["rules"] == offset
    assert names(slate)[2] == "item-42"
    assert sum(int(name.removeprefix("item-")) % 2 for name in names(slate)) == 4
    assert len(names(slate)) == made.settings.slate_size
    made.put(rule="home", kind="only", filter={"category": "books"}, scene="home")
    made.put(rule="past", kind="only", filter={"category": "books"}, until=1)
    assert sum(int(name.removeprefix("item-")) % 2 for name in names(made.slate("ann"))) == 4
    home = made.gateway.slate("ann", "scene=home").body
    assert {int(name.removeprefix("item-")) % 2 for name in names(home)} == {0}
    ranked = made.gateway.ask("POST", "/v1/rerank", {"user": "ann", "candidates": [first, "item-41", "item-44"]}).body
    assert first in ranked["left_out"]
    popular = made.gateway.ask("GET", "/v1/popular").body
    assert first not in names(popular)
    assert names(popular)[2] == "item-42"
    unknown = until(lambda: _anyone(made), 30, "the slate for unknown users follows the rules")
    assert names(unknown)[2] == "item-42"
    made.events.send(200)
    all_committed(made.settings, made.worker)
    made.rules("delete", "no-first", "toys", "star", "few", "some", "home", "past")
    made.applied(offset + 9)
    again = made.slate("ann")
    assert "rules" not in again
    assert {first, second} & set(names(again))
    report = run(made.settings, wait=30, scope=Scope(bundle=made.bundles, users=0))
    assert report.exit_code == 0, [str(one) for one in report.violations[:5]]
    assert report.ranked > 20
    assert not report.numbers_unverifiable, [str(one) for one in report.notes]


def _anyone(made: Made) -> Any:
    found = [
        json.loads(one.value) for one in read_all(made.settings, made.settings.recommendations_topic) if one.key == b"*"
    ]
    return next((slate for slate in reversed(found) if "rules" in slate and names(slate)[2:3] == ["item-42"]), None)


def test_wrong_rules_are_refused_by_everyone_and_counted(made: Made) -> None:
    made.put(rule="one", kind="pin", item="item-7", place=0)
    said = made.rules("put", json.dumps({"rule": "two", "kind": "pin", "item": "item-8", "place": 0}), code=65)
    assert "contradicts the rule 'one'" in said
    said = made.rules(
        "put", json.dumps({"rule": "two", "kind": "boost", "filter": {"price": {"gt": "x"}}, "factor": 2}), code=65
    )
    assert "filter.price.gt" in said
    put = made.gateway.ask("PUT", "/v1/rules/two", {"rule": "two", "kind": "pin", "item": "item-8", "place": 0})
    assert (put.status, put.body["reason"]) == (422, "contradiction")
    put = made.gateway.ask("PUT", "/v1/rules/two", {"rule": "two", "kind": "cap"})
    assert (put.status, put.body["field"], put.body["reason"]) == (422, "most", "missing_field")
    before = made.worker.metric("freshet_rules_refused_total")
    bad = {"two": {"rule": "two", "kind": "pin", "item": "item-8", "place": 0}, "three": {"rule": "three"}}
    for name, body in bad.items():
        sent = made.events.producer.send(made.settings.rules_topic, key=name.encode(), value=json.dumps(body).encode())
    offset = sent.get(30).offset
    made.applied(offset)
    assert made.worker.metric("freshet_rules_refused_total") == before + 2
    assert made.worker.metric("freshet_rules_refused_total", reason="contradiction") == 1
    assert made.gateway.metric("freshet_api_rules_refused_total", reason="missing_field") == 1
    assert any(line["message"].startswith("rule refused: it contradicts") for line in made.worker.lines())
    assert "two is not in force: it contradicts" in made.rules("list")
    listed = made.gateway.ask("GET", "/v1/rules").body["rules"]
    assert [(one["rule"], one["in_force"]) for one in listed] == [("one", True), ("two", False), ("three", False)]
    assert names(made.slate("ann"))[0] == "item-7"
    gone = made.gateway.ask("DELETE", "/v1/rules/one")
    assert (gone.status, gone.body["existed"]) == (200, True)
    for path in ("/v1/rules/nothing", "/v1/items/nothing"):
        never = made.gateway.ask("DELETE", path)
        assert (never.status, never.body["existed"]) == (200, False)
    waited = made.gateway.ask("GET", f"/v1/rules/two?min_offset={gone.body['min_offset']}")
    assert (waited.status, waited.body["in_force"]) == (200, True)
    assert made.gateway.ask("GET", "/v1/rules/one").status == 404
    until(lambda: names(made.gateway.slate("ann").body)[0] == "item-8", 10, "the pin that is in force now")
    made.rules("delete", "two", "three")


def test_a_rule_holds_from_its_time_on(made: Made) -> None:
    since = int(time.time() * 1000) + 15_000  # the command itself takes seconds on a busy machine
    made.put(rule="later", kind="pin", item="item-9", place=0, since=since)
    assert names(made.gateway.slate("bob").body)[0] != "item-9"
    until(lambda: names(made.gateway.slate("bob").body)[0] == "item-9", 40, "the rule holds")
    made.rules("delete", "later")


def test_what_is_probably_wrong_is_said_and_put(made: Made) -> None:
    typo = {
        "rule": "typo",
        "kind": "only",
        "filter": {"category": "toyz"},
        "scene": "nowhere",
        "until": 10**12 * 5 // 4,
    }
    put = made.gateway.ask("PUT", "/v1/rules/typo", typo)
    expected = [
        "until: 2009-08-11T14:13:20Z is past: the rule does not apply",
        "filter: no item has the category 'toyz'",
        "filter: it matches none of the 50 live items: each slate that it applies to is empty",
    ]
    assert (put.status, put.body["warnings"]) == (200, expected)
    made.applied(put.body["offset"])
    answer = made.gateway.ask("GET", f"/v1/rules/typo?min_offset={put.body['min_offset']}").body
    assert (answer["in_force"], answer["state"]) == (True, "expired")
    _, said = made.printed("put", json.dumps(typo))
    assert said.splitlines() == [f"freshet: typo: {text}" for text in expected]
    good = made.gateway.ask("PUT", "/v1/rules/fine", {"rule": "fine", "kind": "pin", "item": "item-1", "place": 0})
    assert (good.status, good.body["warnings"]) == (200, [])
    wrong: list[tuple[Any, str]] = [({"rule": "a", "kind": "cap", "from": 3}, "from"), ([], "body")]
    for body, field in wrong:
        bad = made.gateway.ask("PUT", "/v1/rules/a", body)
        assert (bad.status, bad.body["field"]) == (422, field)
        assert bad.body["title"] == "An event, item or rule is not acceptable"
    printed, said = made.printed("list")
    assert [json.loads(line)["rule"] for line in printed.splitlines()] == ["typo", "fine"]
    assert said == "freshet: typo does not apply any more: until was 2009-08-11T14:13:20Z\n"
    assert "'nothing'; nothing was deleted: 'fine', 'typo' remain" in made.rules(
        "delete", "fine", "typo", "nothing", code=65
    )
    made.rules("delete", "fine", "typo")
