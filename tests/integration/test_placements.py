"""Placements on a real Kafka: the worker publishes some of them, the API answers all, verify computes each again."""

from __future__ import annotations

import http.client
import json
import os
import subprocess
import sys
import uuid
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import urlencode

import pytest

from deploy.clients import admin
from deploy.verify import Scope, run
from stream.settings import Settings, load
from tests.conftest import ROOT
from tests.gateway_process import GatewayProcess
from tests.worker_process import Events, WorkerProcess, all_committed, environment, slates, until

pytestmark = pytest.mark.integration

PLACEMENTS: dict[str, Any] = {
    "cart": {"size": 4, "filter": {"category": "toys"}, "diversity": 0.4},
    "mail": {"size": 20, "filter_seen": False},
}


@dataclass
class Made:
    settings: Settings
    worker: WorkerProcess
    gateway: GatewayProcess
    events: Events
    bundles: Path

    def click(self, user: str, item: str) -> None:
        """Send a click, and wait for its slates and the gateway's state."""
        seq = max((slate["seq"] for slate in slates(self.settings, user)), default=0) + 1
        topic, message = self.events.one(user=user, kind="click", item=item)
        self.events.put(topic, message).get(30)
        until(lambda: len(newest(self.settings, user, seq)) == 2, 30, f"the slates of {user}")
        until(lambda: self.gateway.slate(user).body["seq"] == seq, 20, "the API's state")


def newest(settings: Settings, user: str, seq: int) -> dict[str, dict[str, Any]]:
    """Placement -> the slate after so many events."""
    return {one.get("placement", ""): one for one in slates(settings, user) if one["seq"] == seq}


def names(slate: dict[str, Any]) -> list[str]:
    return [one["item"] for one in slate["items"]]


@pytest.fixture(scope="module")
def made(kafka: Any, bundles: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Made]:
    name = uuid.uuid4().hex[:8]
    settings = load(
        brokers=kafka.bootstrap, prefix=f"{name}-", app_id=f"{name}-app", partitions=2, placements=PLACEMENTS,
        published=["default", "cart"],
    )  # fmt: skip
    admin.create(settings)
    folder = tmp_path_factory.mktemp("placements")
    worker = WorkerProcess(settings, folder, bundles=bundles)
    gateway = GatewayProcess(settings, folder, bundles=bundles)
    events = Events(settings, seed=4, users=15)
    for number in range(1, 51):
        item = f"item-{number}"
        body = {"item": item, "title": "A thing", "categories": ["toys" if number % 2 else "books"]}
        events.producer.send(settings.items_topic, key=item.encode(), value=json.dumps(body).encode())
    events.producer.flush()
    worker.start()
    gateway.start()
    worker.wait_ready()
    gateway.wait_ready()
    yield Made(settings, worker, gateway, events, bundles)
    gateway.close()
    worker.close()
    events.close()


def test_the_worker_publishes_what_the_api_answers(made: Made) -> None:
    made.click("ann", "item-3")
    made.click("ann", "item-4")
    found = newest(made.settings, "ann", 2)
    order = [one.get("placement", "") for one in slates(made.settings, "ann")]
    assert order == ["cart", "", "cart", ""], "default is the last one: compaction keeps it"
    assert "diversity" not in found[""]
    assert (len(found[""]["items"]), len(found["cart"]["items"]), found["cart"]["diversity"]) == (10, 4, 0.4)
    assert all(int(name.removeprefix("item-")) % 2 for name in names(found["cart"]))
    for placement, query in (("", ""), ("", "placement=default"), ("cart", "placement=cart")):
        answer = made.gateway.slate("ann", query).body
        assert names(answer) == names(found[placement])
        assert answer.get("placement", "") == placement
    mail = made.gateway.slate("ann", "placement=mail").body
    assert (len(mail["items"]), mail["placement"]) == (20, "mail")
    without = json.dumps({"not": {"item": names(found["cart"])[0]}})
    some = made.gateway.slate("ann", urlencode({"placement": "cart", "n": 2, "filter": without})).body
    assert len(some["items"]) == 2
    assert names(found["cart"])[0] not in names(some)
    event = {"type": "click", "item": "item-3", "time": found[""]["time"]}
    for events in ([], [event]):
        asked = {"events": events, "placement": "cart"}
        session = made.gateway.ask("POST", "/v1/sessions/recommendations", asked).body
        assert (len(session["items"]), session["placement"]) == (4, "cart")
        assert all(int(name.removeprefix("item-")) % 2 for name in names(session))
    popular = made.gateway.slate("nobody", "placement=cart").body
    assert (popular["strategy"], popular["placement"], len(popular["items"])) == ("popularity", "cart", 4)


def test_an_unknown_placement_is_refused_with_the_known_ones(made: Made) -> None:
    for answer in (
        made.gateway.slate("ann", "placement=home"),
        made.gateway.ask("POST", "/v1/users/ann/recommendations", {"placement": "home"}),
        made.gateway.ask("POST", "/v1/sessions/recommendations", {"events": [], "placement": "home"}),
    ):
        assert (answer.status, answer.body["field"]) == (400, "placement")
        assert answer.body["detail"] == "found 'home', expected one of default, cart, mail"


def test_a_stream_has_all_published_placements(made: Made) -> None:
    made.click("watcher", "item-1")
    connection = http.client.HTTPConnection("127.0.0.1", made.gateway.port(), timeout=30)
    connection.request("GET", "/v1/users/watcher/stream")
    answer = connection.getresponse()
    first = [next_slate(answer) for _ in range(2)]
    assert [(one.get("placement", ""), one["seq"]) for one in first] == [("cart", 1), ("", 1)]
    made.click("watcher", "item-5")
    then = [next_slate(answer) for _ in range(2)]
    assert [(one.get("placement", ""), one["seq"]) for one in then] == [("cart", 2), ("", 2)]
    connection.close()


def next_slate(answer: http.client.HTTPResponse) -> dict[str, Any]:
    while True:
        line = answer.readline()
        if line.startswith(b"data: "):
            found: dict[str, Any] = json.loads(line.removeprefix(b"data: "))
            return found


def test_the_example_runs(made: Made) -> None:
    made.click("ada", "item-2")
    done = subprocess.run(
        [sys.executable, "examples/rules_and_placements.py", "ada", "item-49", "cart"],
        cwd=ROOT, env=dict(os.environ) | {"FRESHET_API": f"http://127.0.0.1:{made.gateway.port()}"}, capture_output=True,
        text=True, timeout=60, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    pinned, without = done.stdout.splitlines()
    assert pinned.startswith("pinned: item-49 ")
    assert len(pinned.split()) == 5
    assert without == f"without the rule: {' '.join(names(made.gateway.slate('ada', 'placement=cart').body))}"


def test_the_command_shows_a_placement(made: Made) -> None:
    made.click("bob", "item-2")
    found = newest(made.settings, "bob", 1)

    def shown(*words: str) -> subprocess.CompletedProcess[str]:
        command = [sys.executable, "-m", "deploy.cli", "recommendations", "--user", "bob", "--json", *words]
        return subprocess.run(
            command, env=environment(made.settings), capture_output=True, text=True, timeout=120, check=False
        )

    assert names(json.loads(shown().stdout)) == names(found[""])
    assert names(json.loads(shown("--placement", "cart").stdout)) == names(found["cart"])
    wrong = shown("--placement", "mail")
    assert wrong.returncode == 2
    assert "expected one that workers publish" in wrong.stderr


def test_verify_counts_and_computes_each_placement_again(made: Made) -> None:
    rules: list[dict[str, Any]] = [
        {"rule": "few", "kind": "cap", "most": 3},
        {"rule": "star", "kind": "pin", "item": "item-41", "place": 1},
        {"rule": "more", "kind": "boost", "filter": {"item": ["item-21", "item-23"]}, "factor": 30},
    ]
    for number, rule in enumerate(rules):
        offset = made.gateway.ask("PUT", f"/v1/rules/{rule['rule']}", rule).body["offset"]

        def applied(offset: int = offset) -> bool:
            return bool(made.worker.metric("freshet_rules_offset") >= offset)

        until(applied, 20, "the worker has the rule")
        made.events.send(60 + number)
    all_committed(made.settings, made.worker)
    report = run(made.settings, wait=30, scope=Scope(bundle=made.bundles, users=0))
    assert (report.exit_code, report.uncovered) == (0, 0), [str(one) for one in report.violations[:5]]
    assert report.ranked > 100
    assert not report.numbers_unverifiable, [str(one) for one in report.notes]
    other = load(
        brokers=made.settings.brokers, prefix=made.settings.prefix, app_id=made.settings.app_id, partitions=2,
        placements=PLACEMENTS, published=["default", "cart", "mail"],
    )  # fmt: skip
    assert run(other).uncovered == report.applied
