"""The health server, spoken to over real sockets on loopback."""

from __future__ import annotations

import http.client
import json
import socket
import threading
import time
from collections.abc import Iterator
from contextlib import suppress

import pytest

import stream.observability.health
from stream.core.errors import FreshetError
from stream.observability.health import PORTS, Health
from stream.observability.metrics import Metrics


@pytest.fixture
def health() -> Iterator[Health]:
    health = Health(Metrics(), port=0)
    health.start()
    yield health
    health.stop()


def ask(health: Health, path: str, verb: str = "GET") -> tuple[int, bytes, http.client.HTTPMessage]:
    connection = http.client.HTTPConnection("127.0.0.1", health.port, timeout=5)
    try:
        connection.request(verb, path)
        response = connection.getresponse()
        return response.status, response.read(), response.headers
    finally:
        connection.close()


def raw(health: Health, request: bytes) -> bytes:
    with socket.create_connection(("127.0.0.1", health.port), timeout=10) as connection:
        answer = b""
        with suppress(OSError):  # the server may hang up while too long a request is still being sent
            connection.sendall(request)
            connection.shutdown(socket.SHUT_WR)
        with suppress(OSError):
            while chunk := connection.recv(65536):
                answer += chunk
        return answer


def test_ready_names_what_is_missing(health: Health) -> None:
    status, body, _ = ask(health, "/readyz")
    assert (status, json.loads(body)["missing"]) == (503, ["joined", "recovered", "catalogue", "bundle"])
    health.set(joined=True, bundle=True)
    status, body, _ = ask(health, "/readyz")
    assert (status, json.loads(body)) == (503, {"ready": False, "missing": ["recovered", "catalogue"]})
    health.set(recovered=True, catalogue=True)
    status, body, _ = ask(health, "/readyz")
    assert (status, json.loads(body)) == (200, {"ready": True, "missing": []})
    health.set(joined=False)
    assert ask(health, "/readyz")[0] == 503


def test_a_loop_that_stands_still_is_neither_alive_nor_ready() -> None:
    health = Health(Metrics(), stale=0.05)
    health.set(joined=True, recovered=True, catalogue=True, bundle=True)
    health.start()
    try:
        deadline = time.monotonic() + 5
        while ask(health, "/healthz")[0] == 200 and time.monotonic() < deadline:
            pass
        assert ask(health, "/healthz")[0] == 503
        assert json.loads(ask(health, "/readyz")[1])["missing"] == ["heartbeat"]
        health._stale = 10.0
        health.beat()
        assert ask(health, "/healthz")[0] == 200
        assert ask(health, "/readyz")[0] == 200
    finally:
        health.stop()


def test_metrics_page(health: Health) -> None:
    status, body, headers = ask(health, "/metrics")
    assert status == 200
    assert headers["Content-Type"].startswith("text/plain; version=")
    assert b"\nfreshet_ready 0.0\n" in body
    health.set(joined=True, recovered=True, catalogue=True, bundle=True)
    assert b"\nfreshet_ready 1.0\n" in ask(health, "/metrics")[1]
    assert b"\nfreshet_heartbeat_age_seconds 0." in ask(health, "/metrics?name=x")[1]


@pytest.mark.parametrize("path", ["/", "/metrics/", "/../etc/passwd", "/%2e%2e/", "/healthz/x"])
def test_other_paths_are_not_found(health: Health, path: str) -> None:
    assert ask(health, path)[0] == 404


@pytest.mark.parametrize("path", ["/", "/status", "/?x"])
def test_the_status_page_says_what_is_missing(health: Health, path: str) -> None:
    health.page = lambda missing: " ".join(missing).encode()
    health.set(joined=True)
    status, body, headers = ask(health, path)
    assert (status, body) == (200, b"recovered catalogue bundle")
    assert headers["Content-Type"] == "text/html; charset=utf-8"


@pytest.mark.parametrize("verb", ["POST", "PUT", "DELETE", "OPTIONS", "TRACE", "PATCH", "BREW", "CONNECT"])
def test_other_verbs_are_refused(health: Health, verb: str) -> None:
    status, _, headers = ask(health, "/metrics", verb)
    assert (status, headers["Allow"]) == (405, "GET, HEAD")


def test_head_has_headers_and_no_body(health: Health) -> None:
    status, body, headers = ask(health, "/healthz", "HEAD")
    assert (status, body) == (200, b"")
    assert int(headers["Content-Length"]) > 0


@pytest.mark.parametrize(
    "request_",
    [
        b"",
        b"\r\n",
        b"\x16\x03\x01\x02\x00",
        b"GET\r\n\r\n",
        b"GET /healthz HTTP/9.9\r\n\r\n",
        b"GET /" + b"a" * 100_000 + b" HTTP/1.0\r\n\r\n",
        b"GET / HTTP/1.0\r\n" + b"x: y\r\n" * 100_000 + b"\r\n",
        b"GET / HTTP/1.0\r\n" + b"x" * 100_000,
        b"POST / HTTP/1.0\r\nContent-Length: 100000000\r\n\r\n",
    ],
)
def test_broken_requests_do_no_harm(health: Health, request_: bytes) -> None:
    assert b" 200 " not in raw(health, request_).split(b"\r\n", 1)[0]
    assert ask(health, "/healthz")[0] == 200


@pytest.mark.parametrize("path", ["/metrics", "/healthz", "/readyz", "/"])
def test_a_page_of_another_host_or_origin_cannot_read(health: Health, path: str) -> None:
    """DNS rebinding: the browser names the page's own host. Who scrapes names an address, or a name of this network."""
    health.page = lambda missing: b"page"

    def asked(*headers: bytes) -> bytes:
        return raw(health, b"\r\n".join([f"GET {path} HTTP/1.1".encode(), *headers, b"", b""])).split(b" ", 2)[1]

    good = asked()  # no Host: no browser
    assert good in (b"200", b"503")
    for host in (b"127.0.0.1:9464", b"10.0.0.7:9464", b"worker:9464", b"a.b.svc", socket.gethostname().encode()):
        assert asked(b"Host: " + host) == good, host
    assert asked(b"Host: worker", b"Origin: http://worker") == good
    for host in (b"evil.example", b"evil.example:9464", b"127.0.0.1.evil.example", b"\xff"):
        assert asked(b"Host: " + host) == b"421", host
    assert asked(b"Host: evil.example", b"Origin: http://evil.example") == b"421"
    assert asked(b"Host: worker", b"Origin: http://evil.example") == b"403"
    assert asked(b"Host: worker", b"Origin: null") == b"403"
    assert asked(b"Host: worker", b"Host: worker") == b"400"


def test_names_that_are_set_are_accepted() -> None:
    health = Health(Metrics(), hosts=("metrics.example.org",))
    assert health.refuse(["metrics.example.org:9464"], []) is None
    assert health.refuse(["10.0.0.7"], []) is None
    found = health.refuse(["evil.example"], [])
    assert found is not None
    assert "web_hosts" in found[1]
    assert Health(Metrics(), hosts=("*",)).refuse(["any.example"], []) is None


def test_a_client_that_trickles_is_cut_off(health: Health, monkeypatch: pytest.MonkeyPatch) -> None:
    """One deadline for the whole request: a byte now and then does not extend it."""
    monkeypatch.setattr(stream.observability.health, "TIMEOUT", 0.3)
    began = time.monotonic()
    with socket.create_connection(("127.0.0.1", health.port), timeout=10) as connection:
        cut = threading.Event()

        def trickle() -> None:
            try:
                while not cut.wait(0.05):
                    connection.sendall(b"a")
            except OSError:
                pass

        thread = threading.Thread(target=trickle)
        thread.start()
        try:
            assert connection.recv(100) == b""
        except ConnectionResetError:
            pass
        finally:
            cut.set()
            thread.join()
    assert time.monotonic() - began < 5
    assert ask(health, "/healthz")[0] == 200


def test_many_idle_clients_do_not_keep_others_out(health: Health, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(stream.observability.health, "TIMEOUT", 0.5)
    before = threading.active_count()
    idle = [
        socket.create_connection(("127.0.0.1", health.port)) for _ in range(4 * stream.observability.health.CONNECTIONS)
    ]
    assert threading.active_count() - before <= stream.observability.health.CONNECTIONS + 1
    deadline = time.monotonic() + 10
    while True:
        try:
            assert ask(health, "/healthz")[0] == 200
            break
        except (OSError, http.client.HTTPException):
            assert time.monotonic() < deadline
    for connection in idle:
        connection.close()


def test_a_taken_port_is_a_clear_error(health: Health) -> None:
    with pytest.raises(FreshetError, match=rf"cannot listen on 127\.0\.0\.1:{health.port}.*FRESHET_WEB_PORT"):
        Health(Metrics(), port=health.port).start()


def test_where_any_port_will_do_the_next_free_one_is_taken(health: Health, caplog: pytest.LogCaptureFixture) -> None:
    second = Health(Metrics(), port=health.port, others=True)
    second.start()
    try:
        assert health.port < second.port < health.port + PORTS
        assert f"web_port: {health.port} is taken; this worker answers at {second.port}" in caplog.text
    finally:
        second.stop()


def test_an_unknown_host_is_a_clear_error() -> None:
    with pytest.raises(FreshetError, match="cannot listen on"):
        Health(Metrics(), host="192.0.2.1", port=0).start()


def test_stop_frees_the_port_and_can_be_repeated(health: Health) -> None:
    port = health.port
    health.stop()
    health.stop()
    again = Health(Metrics(), port=port)
    again.start()
    assert again.port == port
    again.stop()


def test_a_thread_that_cannot_be_had_costs_no_slot(health: Health, monkeypatch: pytest.MonkeyPatch) -> None:
    """Without memory for threads a client is turned away; the server answers again as soon as there is some."""
    asked = 0

    class NoThread(threading.Thread):
        def start(self) -> None:
            nonlocal asked
            asked += 1
            raise RuntimeError("can't start new thread")

    with monkeypatch.context() as without:
        without.setattr(threading, "Thread", NoThread)
        for _ in range(stream.observability.health.CONNECTIONS + 3):
            assert raw(health, b"GET /healthz HTTP/1.0\r\n\r\n") == b""
    assert asked == stream.observability.health.CONNECTIONS + 3
    assert ask(health, "/healthz")[0] == 200


def test_another_process_has_conditions_of_its_own() -> None:
    health = Health(Metrics(), conditions=("bundle", "sums"))
    health.set(bundle=True)
    assert health.missing() == ["sums"]
    with pytest.raises(KeyError, match="joined"):
        health.set(joined=True)
