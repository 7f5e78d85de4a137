"""A bundle that re-ranks its slates: worker, API and verify show the same ones, under rules, too, and a
request may ask for another strength."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pytest

from deploy.verify import run
from deploy.verify.scope import Scope
from export.publish import build, publish
from models.training.diversity import Chosen
from stream.settings import Settings
from tests.bundles import text_onnx, tiny_run
from tests.gateway_process import GatewayProcess
from tests.worker_process import Events, WorkerProcess, all_committed, slates, until

pytestmark = pytest.mark.integration

STRENGTH = 0.4
ITEMS = 50


@dataclass
class Served:
    settings: Settings
    bundles: Path
    gateway: GatewayProcess
    worker: WorkerProcess
    events: Events


def categories(number: int) -> list[str]:
    return sorted({f"c{number % 7}", f"c{number % 4}"})


@pytest.fixture(scope="module")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("diverse")
    publish(
        build(replace(tiny_run(ITEMS), diversity=Chosen(STRENGTH, 0.02, {"NDCG@10": -0.01})), text=text_onnx()), folder
    )
    return folder


@pytest.fixture
def served(world: Callable[..., Settings], bundle: Path, tmp_path: Path) -> Iterator[Served]:
    settings = world(partitions=2)
    worker = WorkerProcess(settings, tmp_path, bundles=bundle)
    gateway = GatewayProcess(settings, tmp_path, bundles=bundle)
    events = Events(settings, seed=9, users=25, items=ITEMS)
    worker.start()
    gateway.start()
    for number in range(1, ITEMS + 1):
        name = f"item-{number}"
        item = {
            "item": name,
            "title": f"Item {number}",
            "categories": categories(number),
        }
        events.producer.send(settings.items_topic, key=name.encode(), value=json.dumps(item).encode())
    events.producer.flush()
    worker.wait_ready()
    gateway.wait_ready()
    events.send(300)
    all_committed(settings, worker)
    yield Served(settings, bundle, gateway, worker, events)
    gateway.close()
    worker.close()
    events.close()


def test_worker_api_and_verify_agree(served: Served) -> None:
    newest = {slate["user"]: slate for slate in slates(served.settings) if slate["user"] != "*"}
    assert len(newest) > 20
    unsorted = 0
    for user, slate in newest.items():
        assert slate["diversity"] == STRENGTH

        def same(user: str = user, slate: dict[str, Any] = slate) -> Any:
            found = served.gateway.slate(user).body
            return found if found["chain"] == slate["chain"] else None

        found = until(same, 10, f"the state of {user}")
        assert found["diversity"] == STRENGTH
        assert [one["item"] for one in found["items"]] == [one["item"] for one in slate["items"]]
        scores = [one["score"] for one in slate["items"]]
        assert scores == pytest.approx([one["score"] for one in found["items"]], abs=1e-3)
        unsorted += scores != sorted(scores, reverse=True)

        plain = served.gateway.slate(user, "diversity=0").body
        by_score = [one["score"] for one in plain["items"]]
        assert by_score == sorted(by_score, reverse=True)
        assert plain["diversity"] == 0.0
        left_out = plain["items"][0]["item"]
        other = served.gateway.slate(user, f"diversity=0.9&n=5&exclude={left_out}").body
        assert len({one["item"] for one in other["items"]} - {left_out}) == 5
    assert unsorted > 5

    event = {"type": "click", "item": "item-3", "time": newest[next(iter(newest))]["time"]}
    for strength in (0, 0.7):
        session = served.gateway.ask(
            "POST", "/v1/sessions/recommendations", {"events": [event], "diversity": strength}
        ).body
        assert session["diversity"] == strength
        assert len(session["items"]) == 10
    for wrong in ("1.5", "-0.1", "much", "nan"):
        answer = served.gateway.slate("user1", f"diversity={wrong}")
        assert (answer.status, answer.body["field"]) == (400, "diversity")

    report = run(served.settings, scope=Scope(bundle=served.bundles, users=0))
    assert report.exit_code == 0, report.violations
    assert report.ranked >= len(newest)


def test_rules_hold_in_slates_that_are_re_ranked(served: Served) -> None:
    rules: list[dict[str, Any]] = [
        {"rule": "few", "kind": "cap", "most": 2},
        {"rule": "new", "kind": "boost", "filter": {"category": "c1"}, "factor": 5},
        {"rule": "no", "kind": "block", "filter": {"category": "c3"}},
        {"rule": "star", "kind": "pin", "item": "item-4", "place": 1},
    ]
    for rule in rules:
        put = served.gateway.ask("PUT", f"/v1/rules/{rule['rule']}", rule)
        assert put.status == 200, put.body
    offset: int = put.body["offset"]
    until(lambda: served.worker.metric("freshet_rules_offset") >= offset, 20, "the worker applies the rules")
    served.events.send(100)
    all_committed(served.settings, served.worker)
    newest = {slate["user"]: slate for slate in slates(served.settings) if slate.get("rules") == offset}
    newest.pop("*", None)
    assert len(newest) > 10
    pinned = 0
    for user, slate in newest.items():
        names = [one["item"] for one in slate["items"]]
        shown = [category for name in names for category in categories(int(name.removeprefix("item-")))]
        assert slate["diversity"] == STRENGTH
        assert "c3" not in shown
        assert max(shown.count(one) for one in set(shown)) <= 2
        pinned += names[1] == "item-4"

        def same(user: str = user, slate: dict[str, Any] = slate) -> Any:
            found = served.gateway.slate(user).body
            return found if found["chain"] == slate["chain"] and found.get("rules") == offset else None

        found = until(same, 10, f"the state of {user}")
        assert (found["diversity"], [one["item"] for one in found["items"]]) == (STRENGTH, names)
    assert pinned, "users who have seen it do not get it"
    report = run(served.settings, scope=Scope(bundle=served.bundles, users=0))
    assert report.exit_code == 0, report.violations
    assert not report.numbers_unverifiable, [str(one) for one in report.notes]
