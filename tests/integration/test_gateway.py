"""`freshet serve` beside a real worker on a real Kafka: what its users meet."""

from __future__ import annotations

import http.client
import json
import os
import shutil
import socket
import subprocess
import sys
import threading
import time
import uuid
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any
from urllib.parse import quote

import pytest
from aiokafka.partitioner import murmur2

from deploy.clients import admin
from export.publish import build, publish
from stream.core.fencing_log import CLAIM_KEY, WRITER
from stream.settings import Settings, load
from tests.bundles import text_onnx, tiny_run
from tests.gateway_process import GatewayProcess
from tests.worker_process import Events, WorkerProcess, all_committed, read_all, slates, until

pytestmark = pytest.mark.integration

ROOT = Path(__file__).parents[2]
LONG = "a-token-of-at-least-thirty-two-characters"


class Made:
    """One world for all tests of this module: they use users of their own."""

    def __init__(self, settings: Settings, folder: Path, bundles: Path) -> None:
        self.settings = settings
        self.folder = folder
        self.bundles = bundles
        self.worker = WorkerProcess(settings, folder, bundles=bundles)
        self.gateway = GatewayProcess(settings, folder, bundles=bundles)
        self.events = Events(settings, seed=5, users=30)

    def post(self, user: str, item: str = "item-3", **more: Any) -> str:
        """Send a click through the API -> its min_offset."""
        event = {"type": "click", "user": user, "item": item, "time": now()} | more
        answer = self.gateway.ask("POST", "/v1/events", event)
        assert answer.status == 200, answer
        place: str = answer.body["events"][0]["min_offset"]
        return place

    def partition(self, user: str) -> int:
        return int(murmur2(user.encode()) & 0x7FFFFFFF) % self.settings.partitions


def now() -> int:
    return int(time.time() * 1000)


@pytest.fixture(scope="module")
def made(kafka: Any, bundles: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Made]:
    name = uuid.uuid4().hex[:8]
    settings = load(brokers=kafka.bootstrap, prefix=f"{name}-", app_id=f"{name}-app", partitions=2)
    admin.create(settings)
    found = Made(settings, tmp_path_factory.mktemp("gateway"), bundles)
    found.worker.start()
    found.gateway.start()
    found.events.send_items()
    found.worker.wait_ready()
    found.gateway.wait_ready()
    yield found
    found.gateway.close()
    found.worker.close()
    found.events.close()


def near(found: list[dict[str, Any]], expected: list[dict[str, Any]]) -> None:
    """The same items in the same order, but for items whose scores are within 1e-3 of each other."""
    assert sorted(one["item"] for one in found) == sorted(one["item"] for one in expected)
    for one, other in zip(found, expected, strict=True):
        assert abs(one["score"] - other["score"]) <= 1e-3


def test_an_answer_has_the_event_that_was_just_sent_and_is_the_workers_slate(made: Made) -> None:
    for number in range(1, 6):
        place = made.post("reader", f"item-{number}")
        answer = made.gateway.slate("reader", f"min_offset={place}")
        assert answer.status == 200, answer
        slate = answer.body
        assert (slate["seq"], slate["min_offset"], slate["strategy"]) == (number, "applied", "interest")
        topic, offset = place.rsplit(":", 1)
        assert slate["applied"][topic] == int(offset)
        assert slate["replica"]["partition"] == made.partition("reader")
        assert 0 <= slate["replica"]["age_ms"] < 10_000
        same = until(partial(_of_seq, made, "reader", number), 20, "the worker's slate")
        assert (same["chain"], same["bundle"], same["applied"]) == (slate["chain"], slate["bundle"], slate["applied"])
        near(slate["items"], same["items"])


def test_many_users_answers_equal_their_slates(made: Made) -> None:
    made.events.send(300)
    all_committed(made.settings, made.worker)
    newest = {slate["user"]: slate for slate in slates(made.settings) if slate["user"].startswith("user")}
    assert len(newest) > 20
    for user, slate in newest.items():
        found = until(partial(_same, made, user, slate), 10, f"the state of {user}")
        near(found["items"], slate["items"])
        posted = made.gateway.ask("POST", f"/v1/users/{user}/recommendations", {"n": 3, "exclude": ["item-1"]}).body
        expected = [one for one in slate["items"] if one["item"] != "item-1"][:3]
        near(posted["items"], expected)


def _of_seq(made: Made, user: str, seq: int) -> Any:
    return next((slate for slate in slates(made.settings, user) if slate["seq"] == seq), None)


def _same(made: Made, user: str, slate: dict[str, Any]) -> Any:
    found = made.gateway.slate(user).body
    return found if found["chain"] == slate["chain"] else None


def test_an_unknown_user_gets_the_popular_items(made: Made) -> None:
    for user in ("nobody", "a/b?c#d", "café", "..x"):
        answer = made.gateway.slate(user, "n=4")
        assert answer.status == 200, answer
        assert (answer.body["strategy"], answer.body["seq"], answer.body["user"]) == ("popularity", 0, user)
    popular = made.gateway.ask("GET", "/v1/popular?n=4").body
    assert [one["item"] for one in popular["items"]] == [one["item"] for one in answer.body["items"]]
    assert made.gateway.ask("GET", "/v1/users/nobody").status == 404


def test_trending_items_are_those_of_new_events(made: Made) -> None:
    before = {one["item"]: one["score"] for one in made.gateway.ask("GET", "/v1/trending?n=100").body["items"]}
    places = [made.post(f"trend {number % 4}", "item-44", id=f"trend {number}") for number in range(12)]
    made.post("trend 0", "item-44", id="trend 0")  # a duplicate
    for number in range(8, 12):
        assert made.gateway.slate(f"trend {number % 4}", f"min_offset={places[number]}").status == 200
    time.sleep(1.1)  # for which a ranking is kept
    answer = made.gateway.ask("GET", "/v1/trending?n=100")
    assert answer.status == 200, answer
    after = {one["item"]: one["score"] for one in answer.body["items"]}
    assert after["item-44"] == before.get("item-44", 0) + 12
    assert (answer.body["window_seconds"], answer.body["complete"], answer.body["strategy"]) == (
        3600,
        False,
        "trending",
    )
    assert answer.body["counted_seconds"] > 0
    scores = [one["score"] for one in answer.body["items"]]
    assert scores == sorted(scores, reverse=True)
    without = made.gateway.ask("GET", "/v1/trending?n=100&exclude=item-44").body["items"]
    assert "item-44" not in {one["item"] for one in without}
    assert made.gateway.ask("GET", "/v1/trending?n=0").body["field"] == "n"


def test_filters_leave_out_the_items_for_which_they_do_not_hold(made: Made) -> None:
    made.post("filtered", "item-40")
    item = {"title": "A thing", "categories": ["toys"], "attributes": {"price": 12.5, "since": "2026-11-01"}}
    for number in (20, 21, 22):
        body = item | {"item": f"item-{number}"} | ({"available": False} if number == 22 else {})
        put = made.gateway.ask("PUT", f"/v1/items/item-{number}", body)
        assert put.status == 200, put
    place = put.body["min_offset"]
    toys = {"all": [{"category": "toys"}, {"price": {"ge": 10, "lt": 20}}, {"since": {"gt": "2026-10-31"}}]}
    inside = quote(json.dumps(toys))
    asked: list[tuple[str, str, Any]] = [
        ("GET", f"/v1/users/filtered/recommendations?min_offset={place}&filter={inside}", None),
        ("POST", "/v1/users/filtered/recommendations", {"filter": toys}),
        ("GET", f"/v1/users/nobody/recommendations?filter={inside}", None),
        ("POST", "/v1/sessions/recommendations", {"events": [], "filter": toys}),
        ("POST", "/v1/rerank", {"user": "filtered", "candidates": ["item-1", "item-20", "item-21"], "filter": toys}),
        ("GET", f"/v1/popular?filter={inside}", None),
    ]
    for method, path, sent in asked:
        answer = made.gateway.ask(method, path, sent)
        assert answer.status == 200, answer
        assert {one["item"] for one in answer.body["items"]} == {"item-20", "item-21"}, path
    near = made.gateway.ask("GET", f"/v1/items/item-20/similar?filter={inside}").body["items"]
    assert [one["item"] for one in near] == ["item-21"]
    wrong = made.gateway.ask(
        "POST", "/v1/users/filtered/recommendations", {"filter": {"all": [{"price": {"gt": "x"}}]}}
    )
    assert (wrong.status, wrong.body["field"]) == (400, "filter.all[0].price.gt")
    refused = made.gateway.ask("PUT", "/v1/items/item-20", item | {"item": "item-20", "attributes": {"price": None}})
    assert (refused.status, refused.body["field"]) == (422, "attributes.price")


def test_what_cannot_be_had_in_time_is_503_and_says_how_far_it_is(made: Made) -> None:
    place = made.post("late")
    assert made.gateway.slate("late", f"min_offset={place}").status == 200
    topic, offset = place.rsplit(":", 1)
    began = time.monotonic()
    answer = made.gateway.slate("late", f"min_offset={topic}:{int(offset) + 100_000}")
    assert answer.status == 503
    assert 1.5 < time.monotonic() - began < 6
    assert answer.headers["content-type"] == "application/problem+json"
    assert (answer.body["type"], answer.body["applied"]) == ("urn:freshet:problem:late", {topic: int(offset)})
    assert answer.headers["retry-after"] == "1"
    other = 1 - made.partition("late")
    wrong = made.gateway.slate("late", f"min_offset={topic.rsplit('/', 1)[0]}/{other}:1")
    assert (wrong.status, wrong.body["field"]) == (400, "min_offset")


def test_duplicates_dead_letters_and_other_users_events_are_covered(made: Made) -> None:
    first = made.post("twice", id="order-1")
    assert made.gateway.slate("twice", f"min_offset={first}").body["seq"] == 1
    again = made.post("twice", id="order-1")
    answer = made.gateway.slate("twice", f"min_offset={again}")
    assert (answer.body["seq"], answer.body["min_offset"]) == (1, "applied")
    topic = made.settings.sources[0]
    partition = made.partition("twice")
    sent = made.events.producer.send(topic, key=b"twice", value=b"not JSON", partition=partition).get(20)
    answer = made.gateway.slate("twice", f"min_offset={topic}/{partition}:{sent.offset}")
    assert (answer.status, answer.body["seq"], answer.body["min_offset"]) == (200, 1, "finished"), answer
    neighbour = next(f"n{n}" for n in range(100) if made.partition(f"n{n}") == partition)
    answer = made.gateway.slate("twice", f"min_offset={made.post(neighbour)}")
    assert (answer.status, answer.body["min_offset"]) == (200, "finished"), answer


def test_a_batch_says_which_event_is_bad_and_sends_the_others(made: Made) -> None:
    good = {"type": "rating", "user": "batch", "item": "item-4", "time": now(), "value": 4.5}
    bad = good | {"value": 99}
    answer = made.gateway.ask("POST", "/v1/events", [good, bad, good | {"item": "item-5"}])
    assert (answer.status, answer.body["written"], answer.body["refused"]) == (207, 2, 1)
    assert [one["result"] for one in answer.body["events"]] == ["written", "refused", "written"]
    problem = answer.body["events"][1]["problem"]
    assert (problem["status"], problem["field"], problem["reason"]) == (422, "value", "rating_out_of_scale")
    lines = json.dumps(good | {"item": "item-6"}).encode() + b"\n{oops\n\n"
    answer = made.gateway.ask("POST", "/v1/events", lines, media="application/x-ndjson")
    assert (answer.status, answer.body["written"], answer.body["refused"]) == (207, 1, 1)
    last = answer.body["events"][0]["min_offset"]
    assert made.gateway.slate("batch", f"min_offset={last}").body["seq"] == 3
    alone = made.gateway.ask("POST", "/v1/events", bad)
    assert (alone.status, alone.body["field"]) == (422, "value")
    records = [one for one in read_all(made.settings, made.settings.sources[1]) if one.key == b"batch"]
    assert json.loads(records[0].value) == {k: v for k, v in good.items() if k != "type"}


def test_a_session_is_folded_from_zero_and_nothing_is_kept(made: Made) -> None:
    clicks = [("item-7", now() - 5000), ("item-8", now())]
    for item, when in clicks:
        place = made.post("as-session", item, time=when)
    kept = made.gateway.slate("as-session", f"min_offset={place}").body
    body = {"events": [{"type": "click", "item": item, "time": when} for item, when in clicks]}
    answer = made.gateway.ask("POST", "/v1/sessions/recommendations", body)
    assert answer.status == 200, answer
    assert answer.body["seq"] == 2
    near(answer.body["items"], kept["items"])
    assert made.gateway.ask("POST", "/v1/sessions/recommendations", {"events": []}).body["strategy"] == "popularity"
    comment = {"type": "comment", "item": "item-9", "time": now(), "text": "lovely"}
    assert made.gateway.ask("POST", "/v1/sessions/recommendations", {"events": [comment]}).status == 200
    wrong = made.gateway.ask("POST", "/v1/sessions/recommendations", {"events": [comment | {"time": 1}]})
    assert (wrong.status, wrong.body["field"]) == (400, "events[0].time")


def test_candidates_are_put_in_the_order_of_the_slate(made: Made) -> None:
    place = made.post("searcher", "item-20")
    slate = made.gateway.slate("searcher", f"min_offset={place}&n=30").body
    some = [one for number, one in enumerate(slate["items"]) if number % 3 == 0]
    candidates = sorted(one["item"] for one in some)
    answer = made.gateway.ask("POST", "/v1/rerank", {"user": "searcher", "candidates": [*candidates, "nothing"]})
    assert answer.status == 200, answer
    assert answer.body["left_out"] == ["nothing"]
    near(answer.body["items"], some)


def test_a_users_state_has_the_last_events(made: Made) -> None:
    place = made.post("person", "item-11", scene="home", action="like", id="x-1")
    answer = made.gateway.ask("GET", f"/v1/users/person?min_offset={place}")
    assert answer.status == 200
    assert (answer.body["seq"], answer.body["current"], answer.body["seen"]) == (1, True, 1)
    (event,) = answer.body["recent"]
    assert (event["type"], event["item"], event["scene"], event["action"], event["id"]) == (
        "click", "item-11", "home", "like", "x-1",
    )  # fmt: skip


def test_items_are_written_shown_and_removed(made: Made) -> None:
    item = {"item": "new/1", "title": "New", "text": "quite new", "scenes": ["cellar"]}
    answer = made.gateway.ask("PUT", "/v1/items/new%2F1", item)
    assert answer.status == 200, answer
    place = answer.body["min_offset"]
    shown = made.gateway.ask("GET", f"/v1/items/new%2F1?min_offset={place}").body
    assert (shown["item"]["title"], shown["live"], shown["trained"]) == ("New", True, False)
    assert made.gateway.ask("GET", f"/v1/items/item-4/similar?n=3&min_offset={place}").status == 200
    everywhere = [one["item"] for one in made.gateway.slate("nobody", "n=100").body["items"]]
    cellar = [one["item"] for one in made.gateway.slate("nobody", "n=100&scene=cellar").body["items"]]
    attic = [one["item"] for one in made.gateway.slate("nobody", "n=100&scene=attic").body["items"]]
    assert "new/1" in everywhere
    assert "new/1" in cellar
    assert "new/1" not in attic
    wrong = made.gateway.ask("PUT", "/v1/items/new%2F1", item | {"title": 5})
    assert (wrong.status, wrong.body["field"]) == (422, "title")
    gone = made.gateway.ask("DELETE", "/v1/items/new%2F1").body["min_offset"]
    assert made.gateway.ask("GET", f"/v1/items/new%2F1?min_offset={gone}").status == 404
    assert made.gateway.ask("GET", "/v1/items/new%2F1/similar").status == 404


def test_items_are_found_by_words_of_their_titles(made: Made) -> None:
    titles = {"s/1": "Crème Brûlée", "s/2": "The creme of it", "s/3": "Creme"}
    for item, title in titles.items():
        body = {"item": item, "title": title, "categories": ["sweets"], "available": item != "s/2"}
        put = made.gateway.ask("PUT", f"/v1/items/{quote(item, safe='')}", body)
        assert put.status == 200, put
    place = put.body["min_offset"]

    def found(query: str) -> list[str]:
        answer = made.gateway.ask("GET", f"/v1/items?{query}&min_offset={place}")
        assert answer.status == 200, answer
        return [one["item"] for one in answer.body["items"]]

    assert found("query=CREME") == ["s/3", "s/1"]  # the whole title first; what cannot be recommended is not found
    assert found("query=brulee+cr%C3%A8me") == ["s/1"]
    assert found("query=creme&n=1") == ["s/3"]
    assert found(f"query=creme&filter={quote(json.dumps({'not': {'item': 's/3'}}))}") == ["s/1"]
    assert found("query=nothing+has+this") == []
    assert found("n=4") == [one["item"] for one in made.gateway.ask("GET", "/v1/popular?n=4").body["items"]]
    assert found("item=s/2&item=s/1&item=nowhere&item=s/2") == ["s/2", "s/1"]
    named = made.gateway.ask("GET", "/v1/items?item=s/2&item=s/1").body["items"]
    assert [(one["title"], one["categories"], one["live"]) for one in named] == [
        ("The creme of it", ["sweets"], False), ("Crème Brûlée", ["sweets"], True),
    ]  # fmt: skip
    for query, field in (
        ("query=", "query"),
        ("query=a&item=b", "item"),
        ("title=a", "title"),
        ("&".join(["item=a"] * 101), "item"),
    ):
        wrong = made.gateway.ask("GET", f"/v1/items?{query}")
        assert (wrong.status, wrong.body["field"]) == (400, field), query

    catalogue = made.gateway.ask("GET", f"/v1/catalogue?min_offset={place}").body
    assert "sweets" in catalogue["categories"]
    assert (catalogue["rating_scale"], catalogue["slate_size"], catalogue["key"]) == ([0.5, 5.0], 10, "utf8")
    assert catalogue["live"] >= 2

    blocked = {"rule": "no-sweets", "kind": "block", "filter": {"item": "s/3"}}
    put = made.gateway.ask("PUT", "/v1/rules/no-sweets", blocked)
    answer = made.gateway.ask("GET", f"/v1/items?query=creme&min_offset={put.body['min_offset']}")
    assert [one["item"] for one in answer.body["items"]] == ["s/1"]
    removed = made.gateway.ask("DELETE", "/v1/rules/no-sweets").body["min_offset"]
    for item in titles:
        gone = made.gateway.ask("DELETE", f"/v1/items/{quote(item, safe='')}").body["min_offset"]
    answer = made.gateway.ask("GET", f"/v1/items?query=creme&min_offset={removed},{gone}")
    assert answer.body["items"] == []


def test_figures_are_counted_while_a_client_follows_slates(made: Made) -> None:
    assert made.gateway.ask("GET", "/v1/figures").body["counted_seconds"] == 0
    connection = http.client.HTTPConnection("127.0.0.1", made.gateway.port(), timeout=30)
    connection.request("GET", "/v1/users/figures/stream")
    answer = connection.getresponse()
    next_slate(answer)
    for number in range(1, 6):
        made.post("somebody", f"item-{number}")

    def counted() -> Any:
        found = made.gateway.ask("GET", "/v1/figures").body
        return found if found.get("p99_ms") is not None else None

    found = until(counted, 30, "figures")
    assert found["events_per_second"] > 0
    assert 0 <= found["p50_ms"] <= found["p99_ms"]
    assert "hit_rate" not in found
    connection.close()
    until(lambda: made.gateway.ask("GET", "/v1/figures").body["counted_seconds"] == 0, 30, "nobody follows")


def test_the_demo_page_and_its_files_have_a_strict_policy(made: Made) -> None:
    for path, media in (("/demo", "text/html"), ("/demo/main.js", "text/javascript"), ("/demo/page.css", "text/css")):
        answer = made.gateway.ask("GET", path)
        assert (answer.status, answer.headers["content-type"]) == (200, f"{media}; charset=utf-8")
        policy = answer.headers["content-security-policy"]
        assert policy.startswith("default-src 'none'; script-src 'self'; style-src 'self'")
        assert "unsafe" not in policy
        assert answer.headers["x-content-type-options"] == "nosniff"
        assert made.gateway.ask("HEAD", path).status == 200
    for path in ("/demo/index.html", "/demo/api.py", "/demo/..%2Fapi.py", "/demo/"):
        assert made.gateway.ask("GET", path).status == 404, path
    assert made.gateway.ask("GET", "/demo", headers={"Host": "evil.example"}).status == 421


def test_a_browser_at_the_root_comes_to_the_description(made: Made) -> None:
    for method in ("GET", "HEAD"):
        answer = made.gateway.ask(method, "/")
        assert (answer.status, answer.headers["location"]) == (307, "docs")
        icon = made.gateway.ask(method, "/favicon.ico")
        assert (icon.status, icon.headers["content-type"]) == (200, "image/svg+xml")
    assert made.gateway.ask("POST", "/", {}).status == 405
    assert not {"/", "/favicon.ico"} & set(made.gateway.ask("GET", "/openapi.json").body["paths"])


def test_each_new_slate_is_streamed(made: Made) -> None:
    first = made.post("watcher", "item-1")
    assert made.gateway.slate("watcher", f"min_offset={first}").status == 200
    connection = http.client.HTTPConnection("127.0.0.1", made.gateway.port(), timeout=30)
    connection.request("GET", "/v1/users/watcher/stream")
    answer = connection.getresponse()
    assert answer.headers["Content-Type"].startswith("text/event-stream")
    assert next_slate(answer)["seq"] == 1
    topic, partition = made.settings.recommendations_topic, made.partition("watcher")
    slate = next(one for one in slates(made.settings, "watcher"))
    for forged in ({"seq": 10**9}, slate | {"user": "another", "seq": 10**9}, slate | {"seq": 10**9, "items": 5}):
        made.events.producer.send(topic, key=b"watcher", value=json.dumps(forged).encode(), partition=partition).get(20)
    lines = json.dumps(slate | {"bundle": "\n\nevent: evil"}, indent=2).replace("\n", "\r\n").encode()
    made.events.producer.send(topic, key=b"watcher", value=lines, partition=partition).get(20)
    assert next_slate(answer)["bundle"] == "\n\nevent: evil"
    for number in (2, 3):
        made.post("watcher", f"item-{number}")
        slate = next_slate(answer)
        assert slate["user"] == "watcher"
        assert slate["seq"] == number
    connection.close()
    until(lambda: made.gateway.metric("freshet_api_listeners") == 0, 30, "the listener is gone")


def next_slate(answer: http.client.HTTPResponse) -> dict[str, Any]:
    event = b""
    while True:
        line = answer.readline()
        assert line, "the stream ended"
        if line.startswith(b"event: "):
            event = line
        if line.startswith(b"data: "):
            assert event == b"event: slate\n"
            found: dict[str, Any] = json.loads(line[6:])
            return found


def test_fenced_and_forged_records_change_no_answer(made: Made) -> None:
    place = made.post("fenced", "item-30")
    before = made.gateway.slate("fenced", f"min_offset={place}").body
    victim = next(one for one in read_all(made.settings, made.settings.changelog_topic) if one.key == b"fenced")
    stale = next(one.value for one in read_all(made.settings, made.settings.changelog_topic) if one.key == b"reader")
    left_out = made.gateway.metric("freshet_api_replica_left_out_records_total")
    for key, value, epoch in ((b"fenced", stale, b"0"), (b"fenced", stale, b"9" * 17), (CLAIM_KEY, b"{}", b"7")):
        made.events.producer.send(
            made.settings.changelog_topic, key=key, value=value, headers=[(WRITER, epoch)], partition=victim.partition
        ).get(20)
    until(
        lambda: made.gateway.metric("freshet_api_replica_left_out_records_total") == left_out + 3, 20, "three left out"
    )
    after = made.gateway.slate("fenced").body
    assert after["chain"] == before["chain"]
    near(after["items"], before["items"])


def test_a_killed_gateway_goes_on_from_its_folder(made: Made) -> None:
    place = made.post("survivor", "item-12")
    before = made.gateway.slate("survivor", f"min_offset={place}").body
    made.gateway.kill()
    later = made.events.put(*made.events.one(user="survivor", kind="click", item="item-13")).get(20)
    began = time.monotonic()
    made.gateway.start().wait_ready()
    assert time.monotonic() - began < 60
    loaded = next(line for line in made.gateway.lines() if line["message"] == "replica loaded")
    states = sum(one.value is not None for one in read_all(made.settings, made.settings.changelog_topic))
    assert loaded["records"] < states / 2
    answer = made.gateway.slate("survivor", f"min_offset={later.topic}/{later.partition}:{later.offset}")
    assert answer.body["seq"] == before["seq"] + 1
    made.gateway.kill()
    shutil.rmtree(made.gateway.replica_dir)
    made.gateway.start().wait_ready()
    assert made.gateway.slate("survivor").body["chain"] == answer.body["chain"]


def test_another_step_models_states_are_folded_again(made: Made, tmp_path: Path) -> None:
    place = made.post("refolded", "item-14")
    assert made.gateway.slate("refolded", f"min_offset={place}").status == 200
    publish(build(tiny_run(seed=8), text=text_onnx()), tmp_path / "other")
    other = GatewayProcess(
        made.settings, tmp_path, bundles=tmp_path / "other", serve_partitions=[made.partition("refolded")]
    )
    try:
        other.start().wait_ready()
        answer = other.slate("refolded").body
        assert (answer["seq"], answer["refolded"], answer["strategy"]) == (1, True, "interest")
        body = {"events": [{"type": "click", "item": "item-14", "time": now()}]}
        near(answer["items"], other.ask("POST", "/v1/sessions/recommendations", body).body["items"])
        assert other.ask("GET", "/v1/users/refolded").body["current"] is False
        elsewhere = next(f"e{n}" for n in range(100) if made.partition(f"e{n}") != made.partition("refolded"))
        wrong = other.slate(elsewhere)
        assert (wrong.status, wrong.body["type"]) == (421, "urn:freshet:problem:misdirected")
    finally:
        other.close()


def test_tokens_and_limits(made: Made, tmp_path: Path) -> None:
    tokens = tmp_path / "tokens"
    tokens.write_text(f"shop read,write {LONG}\nops admin {LONG}-ops\nslow read {LONG}-slow\n")
    guarded = GatewayProcess(
        made.settings, tmp_path, bundles=made.bundles, serve_tokens=tokens, serve_body=2048, serve_rate=200,
        serve_hosts=["127.0.0.1"], serve_origins=["https://shop.example"],
    )  # fmt: skip
    try:
        guarded.start().wait_ready()
        shop, ops = {"Authorization": f"Bearer {LONG}"}, {"Authorization": f"Bearer {LONG}-ops"}
        path = "/v1/users/nobody/recommendations"
        assert guarded.ask("GET", path).status == 401
        assert guarded.ask("GET", path, headers=shop).status == 200
        assert guarded.ask("GET", path, headers=ops).status == 403
        assert guarded.ask("GET", "/v1/users/nobody", headers=shop).status == 403
        assert guarded.ask("GET", "/v1/users/nobody", headers=ops).status == 404
        assert guarded.ask("GET", path, headers=shop | {"Host": "evil.example"}).status == 421
        assert guarded.ask("GET", path, headers=shop | {"Origin": "https://evil.example"}).status == 403
        read = guarded.ask("GET", path, headers=shop | {"Origin": "https://shop.example"})
        assert read.headers["access-control-allow-origin"] == "https://shop.example"
        asked = guarded.ask("OPTIONS", path, headers={"Origin": "https://shop.example"})
        assert (asked.status, asked.headers["access-control-allow-methods"]) == (204, "GET, POST, PUT, DELETE")
        large = guarded.ask("POST", "/v1/events", b" " * 3000, headers=shop)
        assert (large.status, large.body["type"]) == (413, "urn:freshet:problem:too-large")
        slow = {"Authorization": f"Bearer {LONG}-slow"}
        statuses = {guarded.ask("GET", path + "?n=0", headers=slow).status for _ in range(30)}
        assert statuses == {400}
        assert {"security"} <= guarded.ask("GET", "/openapi.json").body["paths"][path.replace("nobody", "{user}")][
            "get"
        ].keys()
        assert LONG not in guarded.log.read_text()
    finally:
        guarded.close()


def test_it_does_not_listen_for_others_without_tokens(made: Made, tmp_path: Path) -> None:
    open_to_all = GatewayProcess(made.settings, tmp_path, bundles=made.bundles, serve_host="0.0.0.0")  # noqa: S104
    assert open_to_all.start().wait(60) == 78
    assert "set FRESHET_SERVE_TOKENS" in open_to_all.lines()[-1]["message"]


BAD = (
    b"\x00\x01\x02\r\n\r\n",
    b"GET / HTTP/9.9\r\n\r\n",
    b"GET /v1/popular HTTP/1.1\r\n\r\n",
    b"GET /v1/popular HTTP/1.1\r\nHost: evil\r\n\r\n",
    b"GET /v1/popular HTTP/1.1\r\nHost: localhost\r\nHost: localhost\r\n\r\n",
    b"GET /../../etc/passwd HTTP/1.1\r\nHost: localhost\r\n\r\n",
    b"GET /v1/users/%2e%2e%2f%2e%2e/recommendations?n=%00 HTTP/1.1\r\nHost: localhost\r\n\r\n",
    b"GET /v1/users/%c0%af/recommendations HTTP/1.1\r\nHost: localhost\r\n\r\n",
    b"GET /v1/popular?" + b"a" * 9000 + b" HTTP/1.1\r\nHost: localhost\r\n\r\n",
    b"GET /v1/popular HTTP/1.1\r\nHost: localhost\r\nX: " + b"a" * 40_000 + b"\r\n\r\n",
    b"GET /v1/popular HTTP/1.1\r\nHost: localhost\r\n" + b"X: a\r\n" * 5000 + b"\r\n",
    b"POST /v1/events HTTP/1.1\r\nHost: localhost\r\nContent-Length: 5\r\n\r\n12345",
    b"POST /v1/events HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\nContent-Length: 99999999999\r\n\r\n",
    b"POST /v1/events HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\nContent-Length: -1\r\n\r\n",
    b"POST /v1/events HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n",
    b"POST /v1/rerank HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\nContent-Length: 80\r\n\r\n"
    + b"[" * 80,
    b"POST /v1/rerank HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\nContent-Encoding: gzip\r\n"
    b"Content-Length: 2\r\n\r\n{}",
    b"TRACE /v1/popular HTTP/1.1\r\nHost: localhost\r\n\r\n",
    b"GET http://evil.example/v1/popular HTTP/1.1\r\nHost: evil.example\r\n\r\n",
    b"GET /v1/popular HTTP/1.1\r\nHost: localhost\r\nUpgrade: websocket\r\nConnection: Upgrade\r\nOrigin: http://evil\r\n\r\n",
)


def test_malformed_requests_are_problems_and_never_tracebacks(made: Made) -> None:
    errors = made.gateway.log.read_text().count('"level": "ERROR"')
    for raw in BAD:
        with socket.create_connection(("127.0.0.1", made.gateway.port()), timeout=20) as client:
            client.sendall(raw)
            answer = http.client.HTTPResponse(client)
            answer.begin()
            body = answer.read()
        assert 400 <= answer.status < 500, (raw[:80], answer.status, body)
        if answer.headers["Content-Length"] != "0":
            assert answer.headers["Content-Type"] == "application/problem+json"
            assert json.loads(body)["detail"]
    assert made.gateway.log.read_text().count('"level": "ERROR"') == errors
    assert made.gateway.slate("nobody").status == 200


def test_a_sigterm_ends_streams_and_answers_what_has_begun(made: Made) -> None:
    connection = http.client.HTTPConnection("127.0.0.1", made.gateway.port(), timeout=30)
    connection.request("GET", "/v1/users/someone/stream")
    stream = connection.getresponse()
    assert next_slate(stream)["strategy"] == "popularity"
    answers: list[int] = []
    topic = made.settings.sources[0]
    place = f"min_offset={topic}/{made.partition('waits')}:1000000"
    waiting = threading.Thread(target=lambda: answers.append(made.gateway.slate("waits", place).status))
    waiting.start()
    time.sleep(0.5)
    assert made.gateway.terminate() == 0
    waiting.join(20)
    assert answers == [503]
    assert stream.read().strip() == b""  # the end of the stream, and not of the connection alone
    output = [line["message"] for line in made.gateway.lines()]
    assert output[-2:] == ["gateway stops", "gateway stopped"]
    made.gateway.start().wait_ready()


def test_the_worker_goes_away_and_answers_stay(made: Made) -> None:
    place = made.post("alone", "item-15")
    assert made.gateway.slate("alone", f"min_offset={place}").status == 200
    made.worker.kill()
    place = made.post("alone", "item-16")
    answer = made.gateway.slate("alone", f"min_offset={place}")
    assert (answer.status, answer.body["type"]) == (503, "urn:freshet:problem:late")
    assert made.gateway.slate("alone").body["seq"] == 1
    made.worker.start().wait_ready()
    until(lambda: made.gateway.slate("alone", f"min_offset={place}").status == 200, 30, "the event is applied")
    assert made.gateway.slate("alone").body["seq"] == 2


@pytest.mark.parametrize("seconds", [20, pytest.param(300, marks=(pytest.mark.slow, pytest.mark.timeout(1200)))])
def test_requests_made_from_the_description_find_nothing(made: Made, tmp_path: Path, seconds: int) -> None:
    """By schemathesis, for a bounded time, with all checks but three. What a server may refuse beyond its schema (a user of
    another partition, a time in the future, an offset that is not there) is not checked; what it accepts and answers is. An item
    that was just written or removed is shown so only with `min_offset`: two checks that follow a PUT or DELETE by a GET cannot
    know that. A stream does not end by itself."""
    config = tmp_path / "schemathesis.toml"
    config.write_text(  # 207: of several events, those that are acceptable are written
        '[checks.not_a_server_error]\nexpected-statuses = ["2xx", "4xx", "503"]\n'
        '[checks.negative_data_rejection]\nexpected-statuses = ["207", "4xx", "503"]\n'
    )
    asked = GatewayProcess(made.settings, tmp_path, bundles=made.bundles, serve_wait=0.02)
    command: list[str | Path] = [
        Path(sys.executable).with_name("schemathesis"), "--config-file", config, "run", "POSITION", "--max-time", str(seconds),
        "--exclude-checks", "positive_data_acceptance,use_after_free,ensure_resource_availability",
        "--exclude-path-regex", "stream$", "--request-timeout", "20", "--seed", "7", "--max-examples", str(seconds), "--no-color",
    ]  # fmt: skip
    try:
        asked.start().wait_ready()
        command[command.index("POSITION")] = f"http://127.0.0.1:{asked.port()}/openapi.json"
        done = subprocess.run(
            command, cwd=tmp_path, capture_output=True, text=True, timeout=3 * seconds + 140, check=False
        )
        assert done.returncode == 0, shown(done.stdout) + done.stderr[-2000:]
        assert asked.runs()
        lines = [json.loads(line) for line in asked.log.read_text().splitlines()]
        errors = [line for line in lines if line["level"] == "ERROR" and line["logger"] != "freshet.claims"]
        assert not errors  # the forged claim of another test stays in the changelog
    finally:
        asked.close()
        without_rules(made)


def shown(report: str) -> str:
    """A report's sections of failures and errors, and its summary; the rest is long."""
    heads = [at for word in ("= FAILURES =", "= ERRORS =", "= SUMMARY =") if (at := report.find(word)) >= 0]
    return "\n".join(report[at : at + 6000] for at in heads)


def without_rules(made: Made) -> None:
    """Remove the rules that others have written: one of them may hide every item."""
    for found in made.gateway.ask("GET", "/v1/rules").body["rules"]:
        gone = made.gateway.ask("DELETE", f"/v1/rules/{quote(found['rule'], safe='')}")
        assert gone.status == 200, gone
        assert made.gateway.ask("GET", f"/v1/rules?min_offset={gone.body['min_offset']}").status == 200


EXAMPLES = {
    "Python": [sys.executable, "examples/api_client.py"],
    "JavaScript": ["node", "examples/api_client.mjs"],
    "Go": ["go", "run", "examples/api_client.go"],
}


@pytest.mark.parametrize(
    "language", ["Python", "JavaScript", pytest.param("Go", marks=pytest.mark.long)]
)  # it is compiled
def test_a_client_example_runs(made: Made, language: str) -> None:
    program = shutil.which(EXAMPLES[language][0])
    if program is None:
        pytest.skip(f"{EXAMPLES[language][0]} is not installed")
    environment = dict(os.environ) | {
        "FRESHET_API": f"http://127.0.0.1:{made.gateway.port()}", "GOCACHE": str(ROOT / ".cache" / "go"), "GO111MODULE": "off",
    }  # fmt: skip
    done = subprocess.run(
        [program, *EXAMPLES[language][1:], f"a client in {language}", "item-2"],
        cwd=ROOT, env=environment, capture_output=True, text=True, timeout=280, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    lines = done.stdout.splitlines()
    assert lines[0] == "interest after 1 event:"
    assert len(lines) == 4
