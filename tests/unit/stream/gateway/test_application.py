"""What every request goes through, at the level of ASGI: limits, errors, and streams that clean up after themselves."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncGenerator, MutableMapping
from pathlib import Path
from typing import Any

import msgspec
import pytest

from stream.core.errors import DiskError
from stream.core.keys import JSON as JSON_KEY
from stream.core.keys import LONG, UTF8
from stream.core.messages import Recommendation, Scored
from stream.gateway.application import Application
from stream.gateway.auth import Tokens
from stream.gateway.messages import RerankQuery
from stream.gateway.metrics import GatewayMetrics
from stream.gateway.problems import ProblemError
from stream.gateway.routing import JSON, Answer, Call, Route, Router
from stream.gateway.slates import MOST_PLACEMENTS, Listener, slate_of
from stream.settings import Settings, load

SETTINGS = load(serve_timeout=0.2, serve_wait=0.1, serve_body=1024, serve_origins=["https://shop.example"])
Message = MutableMapping[str, Any]


class Server:
    """An application whose handlers answer, fail, wait or stream."""

    def __init__(self, settings: Settings = SETTINGS, scope: str = "") -> None:
        self.ended: list[BaseException] = []
        self.closed = 0
        routes = tuple(
            Route(method, path, handler, scope, "It.", {200: (JSON, "it")}, body=body, media=media, streams=streams)
            for method, path, handler, body, media, streams in (
                ("GET", "/good", self.good, None, (), False),
                ("GET", "/bug", self.bug, None, (), False),
                ("GET", "/problem", self.problem, None, (), False),
                ("GET", "/disk", self.disk, None, (), False),
                ("GET", "/slow", self.slow, None, (), False),
                ("POST", "/body", self.good, RerankQuery, (JSON,), False),
                ("GET", "/stream", self.stream, None, (), True),
            )
        )
        routes += (
            Route("GET", "/openapi.json", self.good, "", "It.", {200: (JSON, "it")}),
            Route("GET", "/healthz", self.good, "", "It.", {200: (JSON, "it")}, unlimited=True),
        )
        self.metrics = GatewayMetrics([route.path for route in routes])
        tokens = Tokens(settings.serve_tokens)
        self.application = Application(settings, Router(routes), tokens, self.metrics, self.ended.append)

    async def good(self, call: Call) -> Answer:
        return Answer(b'{"good":true}')

    async def bug(self, call: Call) -> Answer:
        raise ZeroDivisionError("a secret")

    async def problem(self, call: Call) -> Answer:
        raise ProblemError("late", "not yet", headers={"Retry-After": "1"})

    async def disk(self, call: Call) -> Answer:
        raise DiskError("the disk is gone")

    async def slow(self, call: Call) -> Answer:
        await asyncio.sleep(5)
        return Answer()

    async def stream(self, call: Call) -> AsyncGenerator[bytes, None]:
        return self._parts()

    async def _parts(self) -> AsyncGenerator[bytes, None]:
        try:
            for number in range(1000):
                yield b"data: %d\n\n" % number
                await asyncio.sleep(0.01)
        finally:
            self.closed += 1

    def ask(
        self,
        path: str,
        method: str = "GET",
        body: list[bytes] | None = None,
        gone_after: float | None = None,
        **headers: str,
    ) -> tuple[int, dict[str, str], bytes]:
        """Send one request. body: its parts; the client goes away after some seconds."""
        found: list[Message] = []
        parts = list(body or [b""])

        async def receive() -> Message:
            if parts:
                return {"type": "http.request", "body": parts.pop(0), "more_body": bool(parts)}
            await asyncio.sleep(5 if gone_after is None else gone_after)
            return {"type": "http.disconnect"}

        async def send(message: Message) -> None:
            found.append(message)

        address, _, query = path.partition("?")
        scope = {
            "type": "http", "method": method, "raw_path": address.encode(), "query_string": query.encode(),
            "client": ("127.0.0.1", 1), "headers": [(b"host", b"localhost"), *(
                (name.replace("_", "-").encode(), value.encode()) for name, value in headers.items())],
        }  # fmt: skip
        asyncio.run(self.application(scope, receive, send))
        if not found:
            return 0, {}, b""
        start, *rest = found
        reported = {name.decode(): value.decode() for name, value in start["headers"]}
        return start["status"], reported, b"".join(one["body"] for one in rest)

    def count(self, route: str, status: int) -> float:
        return self.metrics.registry.get_sample_value(
            "freshet_api_requests_total", {"route": route, "status": str(status)}
        ) or 0.0  # fmt: skip


@pytest.fixture
def server() -> Server:
    return Server()


def test_an_answer_and_its_head(server: Server) -> None:
    status, headers, body = server.ask("/good")
    assert (status, body, headers["content-type"], headers["content-length"]) == (200, b'{"good":true}', JSON, "13")
    assert headers["cache-control"] == "no-store"
    status, headers, body = server.ask("/good", "HEAD")
    assert (status, body, headers["content-length"]) == (200, b"", "13")
    assert server.count("/good", 200) == 2


@pytest.mark.parametrize(
    ("path", "status", "kind"),
    [
        ("/nowhere", 404, "not-found"),
        ("/good?x=1", 400, "invalid"),
        ("/good?" + "a" * 9000, 414, "address-too-long"),
        ("/problem", 503, "late"),
        ("/slow", 503, "late"),
        ("/bug", 500, "internal"),
    ],
)
def test_every_error_is_a_problem(server: Server, path: str, status: int, kind: str) -> None:
    found, headers, body = server.ask(path)
    assert (found, headers["content-type"]) == (status, "application/problem+json")
    problem = json.loads(body)
    assert problem["type"] == f"urn:freshet:problem:{kind}"
    assert b"secret" not in body
    assert server.ended == []


def test_an_error_of_the_store_ends_the_process(server: Server) -> None:
    assert server.ask("/disk")[0] == 0
    assert [str(error) for error in server.ended] == ["the disk is gone"]


def test_bodies_have_a_type_a_size_and_a_time(server: Server) -> None:
    good = b'{"user":"u","candidates":["a"]}'
    assert server.ask("/body", "POST", [good[:5], good[5:]], content_type="application/json; charset=utf-8")[0] == 200
    assert server.ask("/body", "POST", [good])[0] == 415
    assert server.ask("/body", "POST", [good], content_type="text/plain")[0] == 415
    assert server.ask("/body", "POST", [good], content_type=JSON, content_encoding="gzip")[0] == 415
    assert server.ask("/body", "POST", [b" " * 600, b" " * 600], content_type=JSON)[0] == 413
    status, headers, _ = server.ask("/body", "POST", [b"{}"], content_type=JSON, content_length="5000")
    assert (status, headers["connection"]) == (413, "close")
    assert server.ask("/good", body=[b"x"])[0] == 413


def test_a_body_that_does_not_come_is_408_and_one_whose_sender_has_gone_is_nothing(server: Server) -> None:
    async def slow() -> int:
        found: list[Message] = []

        async def receive() -> Message:
            await asyncio.sleep(5)
            return {"type": "http.request", "body": b"", "more_body": True}

        async def send(message: Message) -> None:
            found.append(message)

        scope = {
            "type": "http", "method": "POST", "raw_path": b"/body", "query_string": b"", "client": None,
            "headers": [(b"host", b"localhost"), (b"content-type", b"application/json")],
        }  # fmt: skip
        await server.application(scope, receive, send)
        return int(found[0]["status"])

    assert asyncio.run(slow()) == 408


def test_a_client_without_a_valid_token_is_limited_by_address(tmp_path: Path) -> None:
    token = "a-token-of-at-least-thirty-two-characters"
    (tmp_path / "tokens").write_text(f"shop read {token}\n")
    settings = load(serve_rate=0.01, serve_tokens=tmp_path / "tokens")
    valid = {"authorization": f"Bearer {token}"}
    for path, method, headers, first in (
        ("/good", "GET", {"authorization": "Bearer wrong"}, 401),
        ("/good", "GET", {}, 401),
        ("/openapi.json", "GET", {}, 200),
        ("/nowhere", "GET", {}, 404),
        ("/good", "PUT", {}, 405),
        ("/good", "OPTIONS", {}, 204),
        ("/good", "GET", {"origin": "https://evil.example"}, 403),
    ):
        server = Server(settings, scope="read")  # without the requests before: 100 s would have to pass
        statuses = [server.ask(path, method, None, None, **headers)[0] for _ in range(5)]
        assert statuses == [first, 429, 429, 429, 429], path
        assert [server.ask("/good", "GET", None, None, **valid)[0] for _ in range(2)] == [
            200,
            429,
        ]  # the token has a bucket of its own
        assert {server.ask("/healthz")[0] for _ in range(5)} == {200}


def test_a_page_that_may_read_is_told_so(server: Server) -> None:
    status, headers, body = server.ask("/good", "OPTIONS", origin="https://shop.example")
    assert (status, body, headers["access-control-allow-origin"]) == (204, b"", "https://shop.example")
    assert server.ask("/good", origin="https://shop.example")[1]["vary"] == "Origin"
    assert server.ask("/good", origin="https://evil.example")[0] == 403
    assert server.ask("/good", "OPTIONS", origin="https://evil.example")[0] == 403


def test_a_stream_ends_with_its_client_and_leaves_nothing_behind(server: Server) -> None:
    status, headers, body = server.ask("/stream", gone_after=0.1)
    assert (status, headers["content-type"]) == (200, "text/event-stream; charset=utf-8")
    assert body.startswith(b"data: 0\n\ndata: 1\n\n")
    assert server.closed == 1
    assert server.ask("/stream", "HEAD")[2] == b""
    assert server.closed == 2


SLATE = Recommendation(
    user="ann", slate="s", seq=7, chain="00", items=[Scored("a", 0.5)], time=1, latency_ms=-1, events=[("clicks", 0, 1)],
    applied={"clicks/0": 1}, catalogue=3, bundle="b", strategy="interest", replay=False,
)  # fmt: skip


def test_only_a_recommendation_of_the_user_is_a_slate() -> None:
    plain = msgspec.json.encode(SLATE)
    assert slate_of(plain, b"ann", UTF8) == plain
    assert slate_of(msgspec.json.format(plain, indent=2).replace(b"\n", b"\r\n"), b"ann", UTF8) == plain
    assert slate_of(plain, b'"ann"', JSON_KEY) == plain
    deep = plain[:-1] + b',"x":' + b"[" * 5000 + b"]" * 5000 + b"}"
    assert slate_of(deep, b"ann", UTF8) is None
    for value, key, form in (
        (b'{"seq":1000000000}', b"ann", UTF8),
        (b"not JSON", b"ann", UTF8),
        (b"", b"ann", UTF8),
        (b"[]", b"ann", UTF8),
        (plain.replace(b'"s"', b'"\xff"'), b"ann", UTF8),
        (plain.replace(b"0.5", b'"0.5"'), b"ann", UTF8),
        (plain.replace(b'"seq":7', b'"seq":-1'), b"ann", UTF8),
        (plain, b"bob", UTF8),
        (plain, b'"ann"', UTF8),
        (plain, b"ann", LONG),
    ):
        assert slate_of(value, key, form) is None, value


def test_a_listener_has_the_newest_slate_only_and_never_an_older_one() -> None:
    async def check() -> None:
        listener = Listener()
        for value in (b'{"seq":3}', b'{"seq":5}', b'{"seq":4}'):
            listener.put(value)
        assert await listener.next(1) == b'{"seq":5}'
        assert await listener.next(0.01) is None
        listener.put(b'{"seq":4}')
        assert await listener.next(0.01) is None
        listener.put(b'{"seq":5,"replay":true}')
        assert await listener.next(1) == b'{"seq":5,"replay":true}'
        listener.wake()
        assert await listener.next(1) is None

    asyncio.run(check())


def test_a_listener_has_the_newest_slate_of_each_placement() -> None:
    async def check() -> None:
        listener = Listener()
        for value in (b'{"seq":3}', b'{"seq":3,"placement":"cart"}', b'{"seq":4}', b'{"seq":2,"placement":"cart"}'):
            listener.put(value)
        assert await listener.next(1) == b'{"seq":3,"placement":"cart"}'
        assert await listener.next(1) == b'{"seq":4}'
        assert await listener.next(0.01) is None
        listener.forget()
        listener.put(b'{"seq":1,"placement":"cart"}')
        assert await listener.next(1) == b'{"seq":1,"placement":"cart"}'
        for number in range(1000):
            listener.put(b'{"seq":1,"placement":"%d"}' % number)
        taken = 0
        while await listener.next(0.01) is not None:
            taken += 1
        assert taken < MOST_PLACEMENTS

    asyncio.run(check())
