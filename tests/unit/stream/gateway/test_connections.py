"""The server's own limits, on real sockets: clients that send slowly, do not read, go away, or are too many."""

from __future__ import annotations

import asyncio
import logging
import socket
import time
from collections.abc import Iterator
from contextlib import ExitStack
from threading import Thread

import pytest

from stream.gateway import connections
from stream.gateway.application import Application
from stream.gateway.auth import Tokens
from stream.gateway.connections import listen, server
from stream.gateway.messages import RerankQuery
from stream.gateway.metrics import GatewayMetrics
from stream.gateway.routing import JSON, Answer, Call, Route, Router
from stream.process.startup import loop_factory
from stream.settings import load
from tests.worker_process import until

LARGE = b'"' + b"x" * (1 << 20) + b'"'
MOST = 8


async def small(call: Call) -> Answer:
    return Answer(b"{}")


async def large(call: Call) -> Answer:
    return Answer(LARGE)


ROUTES = (
    Route("GET", "/small", small, "", "It.", {200: (JSON, "it")}),
    Route("POST", "/body", small, "", "It.", {200: (JSON, "it")}, body=RerankQuery, media=(JSON,)),
    Route("GET", "/large", large, "", "It.", {200: (JSON, "it")}),
    Route("GET", "/healthz", small, "", "It.", {200: (JSON, "it")}, open=True, unlimited=True),
)


class Running:
    """A server in a thread of its own."""

    def __init__(self) -> None:
        settings = load(serve_port=0, serve_connections=MOST, serve_body=1024, serve_timeout=1.0, serve_wait=0.5)
        application = Application(
            settings, Router(ROUTES), Tokens(None), GatewayMetrics([one.path for one in ROUTES]), lambda error: None
        )
        self.socket = listen(settings)
        self.port = self.socket.getsockname()[1]
        self.http = server(application, settings, 1)
        self._thread = Thread(target=self._run, daemon=True)
        self._thread.start()
        until(lambda: self.http.started, 10, "the server runs")

    def _run(self) -> None:
        with asyncio.Runner(loop_factory=loop_factory()) as runner:
            runner.run(self.http.serve([self.socket]))

    def stop(self) -> None:
        self.http.should_exit = True
        self._thread.join(20)

    def connect(self, receive: int = 0) -> socket.socket:
        found = socket.socket()
        if receive:
            found.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, receive)
        found.settimeout(10)
        found.connect(("127.0.0.1", self.port))
        return found

    @property
    def count(self) -> int:
        return len(self.http.server_state.connections)


@pytest.fixture
def running(monkeypatch: pytest.MonkeyPatch) -> Iterator[Running]:
    monkeypatch.setattr(connections, "WRITE_SECONDS", 1.0)
    monkeypatch.setattr(connections, "LOOK_TICKS", 1)
    found = Running()
    yield found
    found.stop()


def head(line: str, *headers: str) -> bytes:
    return "\r\n".join((f"{line} HTTP/1.1", "Host: localhost", *headers, "", "")).encode()


def answer(client: socket.socket) -> tuple[int, bytes, bool]:
    """Read one answer -> status, head, and whether the server has then closed the connection."""
    found = b""
    while b"\r\n\r\n" not in found:
        part = client.recv(65536)
        assert part, found
        found += part
    start, _, body = found.partition(b"\r\n\r\n")
    length = next(
        (int(line.split(b":")[1]) for line in start.split(b"\r\n") if line.lower().startswith(b"content-length")), 0
    )
    while len(body) < length:
        body += client.recv(65536)
    client.settimeout(1.5)
    try:
        closed = client.recv(1) == b""
    except TimeoutError:
        closed = False
    client.settimeout(10)
    return int(start.split(b" ")[1]), start.lower(), closed


@pytest.mark.parametrize(
    ("line", "headers", "status"),
    [
        ("POST /nope", ["Content-Length: 1000000000"], 404),
        ("POST /nope", ["Content-Length: 900"], 404),
        ("POST /nope", ["Transfer-Encoding: chunked"], 404),
        ("PUT /small", ["Content-Length: 100"], 405),
        ("POST /body", ["Content-Length: 100"], 415),
        ("POST /body", ["Content-Length: 100", "Content-Type: application/json"], 408),
        ("POST /body", ["Content-Length: 100000", "Content-Type: application/json"], 413),
        ("GET /small", ["Content-Length: 100"], 413),
        ("GET /small", ["Content-Length: 100", "Origin: http://evil.example"], 403),
        ("GET /small?" + "a" * 9000, ["Content-Length: 100"], 414),
        ("OPTIONS /small", ["Content-Length: 100"], 204),
        ("POST /nope", ["Content-Length: 100", "Expect: 100-continue"], 404),
    ],
)
def test_an_answer_before_the_body_ends_the_connection(
    running: Running, line: str, headers: list[str], status: int
) -> None:
    with running.connect() as client:
        client.sendall(head(line, *headers))
        found, start, closed = answer(client)
    assert (found, closed) == (status, True)
    assert b"connection: close" in start
    until(lambda: running.count == 0, 5, "the connection is gone")


def test_a_refusal_of_a_body_that_has_come_keeps_the_connection(running: Running) -> None:
    with running.connect() as client:
        for _ in range(3):
            client.sendall(head("POST /nope", "Content-Length: 900") + b"x" * 900)
            assert answer(client)[::2] == (404, False)
        client.sendall(head("GET /small"))
        assert answer(client)[::2] == (200, False)


def test_a_client_that_does_not_read_its_answers_is_no_error_and_is_not_kept(
    running: Running, caplog: pytest.LogCaptureFixture
) -> None:
    with ExitStack() as held, caplog.at_level(logging.ERROR):
        for _ in range(MOST):
            held.enter_context(running.connect(receive=4096)).sendall(head("GET /large") * 10)
        until(lambda: running.count == MOST, 5, "they are all there")
        until(lambda: running.count == 0, 10, "they are all gone")
    with running.connect() as client:
        client.sendall(head("GET /small"))
        assert answer(client)[0] == 200
    assert not caplog.records


def test_a_client_that_goes_away_before_its_answers_is_no_error(
    running: Running, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.ERROR):
        for _ in range(5):
            with running.connect(receive=4096) as client:
                client.sendall(head("GET /large") * 10)
                time.sleep(0.1)
        until(lambda: running.count == 0, 5, "they are all gone")
    assert not caplog.records


def test_a_client_that_reads_slowly_has_its_whole_answer(running: Running) -> None:
    with running.connect(receive=65536) as client:
        client.sendall(head("GET /large"))
        found = 0
        while found < len(LARGE):
            found += len(client.recv(100_000))
            time.sleep(0.02)


def test_a_full_server_says_so_and_answers_health_checks(running: Running) -> None:
    with ExitStack() as held:
        for _ in range(MOST):
            held.enter_context(running.connect())
        until(lambda: running.count == MOST, 5, "they are all there")
        for _ in range(connections.SPARE + 5):  # beyond that, the oldest one goes
            held.enter_context(running.connect())
        for _ in range(3):
            with running.connect() as client:
                client.sendall(head("GET /healthz"))
                assert answer(client)[::2] == (200, True)
            with running.connect() as client:
                client.sendall(head("GET /small"))
                status, start, closed = answer(client)
                assert (status, closed) == (503, True)
                assert b"retry-after: 1" in start
        assert running.count <= MOST + connections.SPARE
    until(lambda: running.count == 0, 5, "they are all gone")
    with running.connect() as client:
        client.sendall(head("GET /small"))
        assert answer(client)[::2] == (200, False)
