"""Explanations beside a real worker on a real Kafka: what the API answers, and what the command prints."""

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
from stream.settings import Settings, load
from tests.gateway_process import GatewayProcess
from tests.worker_process import Events, WorkerProcess, environment

pytestmark = pytest.mark.integration


class Made:
    """A worker, a gateway with tokens, and what asks them."""

    def __init__(self, settings: Settings, folder: Path, bundles: Path) -> None:
        self.settings = settings
        tokens = folder / "tokens"
        tokens.write_text(f"reader read {'r' * 32}\nwriter write {'w' * 32}\n")
        tokens.chmod(0o600)
        self.worker = WorkerProcess(settings, folder, bundles=bundles)
        self.gateway = GatewayProcess(settings, folder, bundles=bundles, serve_tokens=tokens)
        self.events = Events(settings, seed=5, users=5)
        self._environment = environment(settings, bundles=bundles)

    def ask(self, method: str, path: str, body: Any = None, scope: str = "r") -> Any:
        return self.gateway.ask(method, path, body, headers={"Authorization": f"Bearer {scope * 32}"})

    def command(self, *words: str, code: int = 0) -> subprocess.CompletedProcess[str]:
        done = subprocess.run(
            [sys.executable, "-m", "deploy.cli", *words],
            env=self._environment, capture_output=True, text=True, timeout=120,
        )  # fmt: skip
        assert done.returncode == code, f"{words}: {done.returncode}\n{done.stdout}\n{done.stderr}"
        assert "Traceback" not in done.stderr
        return done

    def post(self, kind: str, **more: Any) -> str:
        event = {"type": kind, "user": "ann", "time": int(time.time() * 1000)} | more
        answer = self.ask("POST", "/v1/events", event, scope="w")
        assert answer.status == 200, answer
        place: str = answer.body["events"][0]["min_offset"]
        return place


@pytest.fixture(scope="module")
def made(kafka: Any, bundles: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Made]:
    name = uuid.uuid4().hex[:8]
    settings = load(brokers=kafka.bootstrap, prefix=f"{name}-", app_id=f"{name}-app", partitions=2)
    admin.create(settings)
    found = Made(settings, tmp_path_factory.mktemp("explain"), bundles)
    found.worker.start()
    found.gateway.start()
    found.events.send_items()
    found.worker.wait_ready()
    found.gateway.wait_ready()
    yield found
    found.gateway.close()
    found.worker.close()
    found.events.close()


def sums_up(items: list[dict[str, Any]]) -> None:
    assert items
    for one in items:
        assert sum(one["explanation"]["parts"].values()) == pytest.approx(one["score"], abs=1e-4), one
        assert one["explanation"]["text"]


def test_answers_are_explained_on_request_and_cost_nothing_otherwise(made: Made) -> None:
    made.post("click", item="item-3", action="purchase")
    made.post("comment", item="item-5", text="a fine thing", value=5.0)
    place = made.post("rating", item="item-7", value=4.5)
    path = f"/v1/users/ann/recommendations?n=20&min_offset={place}"
    plain = made.ask("GET", path)
    assert plain.status == 200, plain
    assert all(one.keys() == {"item", "score"} for one in plain.body["items"])
    answer = made.ask("GET", path + "&explain=true")
    assert answer.status == 200, answer
    sums_up(answer.body["items"])
    assert [one["item"] for one in answer.body["items"]] == [one["item"] for one in plain.body["items"]]
    moved = {event["item"] for one in answer.body["items"] for event in one["explanation"]["events"]}
    assert moved == {"item-3", "item-5", "item-7"}
    near = {part["item"] for one in answer.body["items"] for part in one["explanation"]["neighbours"]}
    assert near <= moved
    assert "you " in answer.body["items"][0]["explanation"]["text"]
    posted = made.ask("POST", "/v1/users/ann/recommendations", {"n": 3, "diversity": 0.8, "explain": True})
    assert posted.status == 200, posted
    sums_up(posted.body["items"])
    assert [one["explanation"]["diversity"]["after"] for one in posted.body["items"]] == [0, 1, 2]


def test_sessions_candidates_and_unknown_users(made: Made) -> None:
    when = int(time.time() * 1000)
    comment = {"type": "comment", "item": "item-9", "time": when, "text": "lovely"}
    body = {"events": [{"type": "click", "item": "item-8", "time": when - 5}, comment], "explain": True}
    answer = made.ask("POST", "/v1/sessions/recommendations", body)
    assert answer.status == 200, answer
    sums_up(answer.body["items"])
    assert all(abs(one["explanation"]["earlier"]) < 1e-6 for one in answer.body["items"])  # its comment has its text
    empty = made.ask("POST", "/v1/sessions/recommendations", {"events": [], "explain": True})
    sums_up(empty.body["items"])
    unknown = made.ask("GET", "/v1/users/nobody/recommendations?explain=true")
    sums_up(unknown.body["items"])
    assert unknown.body["items"][0]["explanation"]["text"].startswith("because it is popular: 1,000 interactions")
    body = {"user": "ann", "candidates": ["item-40", "item-41", "nothing"], "explain": True}
    ranked = made.ask("POST", "/v1/rerank", body)
    assert ranked.status == 200, ranked
    sums_up(ranked.body["items"])
    assert len(ranked.body["items"]) == 2


def test_who_may_ask(made: Made) -> None:
    assert made.ask("GET", "/v1/users/ann/recommendations?explain=true", scope="w").status == 403
    assert made.gateway.ask("GET", "/v1/users/ann/recommendations?explain=true").status == 401
    wrong = made.ask("GET", "/v1/users/ann/recommendations?explain=yes")
    assert (wrong.status, wrong.body["field"]) == (400, "explain")


def test_the_command_says_the_same(made: Made) -> None:
    slate = made.ask("GET", "/v1/users/ann/recommendations?explain=true").body
    first = slate["items"][0]
    found = json.loads(made.command("explain", "ann", first["item"], "--json").stdout)
    assert (found["chain"], found["bundle"], found["place"]) == (slate["chain"], slate["bundle"], 0)
    assert found["score"] == pytest.approx(first["score"], abs=1e-3)
    assert found["explanation"]["text"] == first["explanation"]["text"]
    shown = made.command("explain", "ann", first["item"]).stdout
    assert f"{first['item']}" in shown.splitlines()[0]
    assert "place 1 of the slate" in shown
    assert "interest" in shown
    assert first["explanation"]["text"] in shown
    seen = made.command("explain", "ann", "item-3").stdout
    assert "not in the slate: the user has interacted with it" in seen
    nobody = made.command("explain", "nobody", "item-3", code=65)
    assert "user 'nobody': found no state" in nobody.stderr
    nothing = made.command("explain", "ann", "no-such-item", code=65)
    assert "item 'no-such-item': found neither" in nothing.stderr
