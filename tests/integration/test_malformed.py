"""5,000 malformed requests, slow clients and clients that never read, against a live gateway: each is refused with its reason,
nothing is logged as an error, memory stays flat, and good requests are answered meanwhile."""

from __future__ import annotations

import http.client
import json
import socket
import threading
import time
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, NamedTuple

import pytest

from stream.gateway.connections import MOST_WAITING, SPARE
from tests.bench.processes import resident_mib
from tests.chaos.web import slow_clients
from tests.gateway_process import GatewayProcess
from tests.malformed_requests import Bad, Malformed, request
from tests.settings import with_own_topics
from tests.worker_process import Events, until

pytestmark = [pytest.mark.integration, pytest.mark.long]

REQUESTS = 5000
SENDERS = 4
CONNECTIONS = 128
PATIENCE = 15.0
MOST_MIB = 32
"""What the process may grow by, from 500 requests on."""
PIPELINED = b"GET /openapi.json HTTP/1.1\r\nHost: localhost\r\n\r\n"
CUT = {"size", "header", "framing"}
"""Kinds whose answer may be lost: the server hangs up while they are still being sent, and the kernel then drops it."""


class Told(NamedTuple):
    """The answer to a malformed request. status: 0 if the connection was cut, -1 if there was no answer in PATIENCE."""

    bad: Bad
    status: int
    body: bytes
    seconds: float


@pytest.fixture(scope="module")
def gateway(kafka: Any, bundles: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[GatewayProcess]:
    settings = with_own_topics(kafka.bootstrap, partitions=2)
    events = Events(settings)
    events.send_items()
    made = GatewayProcess(
        settings, tmp_path_factory.mktemp("malformed"), bundles=bundles, serve_connections=CONNECTIONS, serve_timeout=3.0,
        serve_wait=0.5,
    )  # fmt: skip
    try:
        yield made.start().wait_ready()
    finally:
        made.close()
        events.close()


def told(address: tuple[str, int], bad: Bad) -> Told:
    began = time.monotonic()
    status, body = 0, b""
    try:
        with socket.create_connection(address, timeout=PATIENCE) as client:
            with suppress(ConnectionError):
                client.sendall(bad.raw)
            answer = http.client.HTTPResponse(client)
            answer.begin()
            status, body = answer.status, answer.read()
    except (ConnectionError, http.client.BadStatusLine):
        pass
    except TimeoutError:
        status = -1
    return Told(bad, status, body, time.monotonic() - began)


def some(address: tuple[str, int], seed: int, count: int) -> list[Told]:
    source = Malformed(seed)
    return [told(address, source.one()) for _ in range(count)]


def wrong(one: Told) -> str:
    """Why this is no good answer to a malformed request; "" if it is one."""
    if one.status <= 0:
        return "" if one.status == 0 and one.bad.kind in CUT else f"no answer in {one.seconds:.1f} s"
    if not 400 <= one.status < 500:
        return f"status {one.status}"
    try:
        problem = json.loads(one.body)
    except ValueError:
        return f"no problem: {one.body[:100]!r}"
    if problem["status"] != one.status or not problem["detail"] or b"Traceback" in one.body:
        return f"{problem}"
    if one.bad.field is not None and not problem.get("field", "").startswith(one.bad.field):
        return f"expected the field {one.bad.field}: {problem}"
    return ""


@contextmanager
def deaf_clients(address: tuple[str, int], count: int) -> Iterator[None]:
    """Clients that read no answer. Half of them send as many requests as they can, half send what a connection may."""
    with ThreadPoolExecutor(count) as pool:
        over = threading.Event()

        def flood() -> None:
            while not over.wait(0.1):
                with suppress(OSError), socket.create_connection(address, timeout=1) as client:
                    while not over.is_set():
                        client.sendall(PIPELINED * 50)

        def hold() -> None:
            while not over.wait(0.1):
                with suppress(OSError), socket.create_connection(address, timeout=1) as client:
                    client.sendall(PIPELINED * MOST_WAITING)
                    over.wait(5)

        for number in range(count):
            pool.submit(hold if number % 2 else flood)
        try:
            yield
        finally:
            over.set()


def errors(gateway: GatewayProcess) -> list[str]:
    text = gateway.log.read_text()
    assert "Traceback" not in text
    return [line for line in text.splitlines() if '"ERROR"' in line or '"CRITICAL"' in line]


@pytest.mark.parametrize("seed", [1])
def test_malformed_requests_are_refused_and_cost_nothing(gateway: GatewayProcess, seed: int) -> None:
    address = ("127.0.0.1", gateway.port())
    found = some(address, seed, 500)
    before = resident_mib(gateway.process.pid)
    began = time.monotonic()
    with ThreadPoolExecutor(SENDERS) as pool, slow_clients(address, 32), deaf_clients(address, 8):
        each = (REQUESTS - len(found)) // SENDERS
        sending = [pool.submit(some, address, 1000 * seed + number, each) for number in range(1, SENDERS + 1)]
        waits = []
        while not all(one.done() for one in sending):
            asked = time.monotonic()
            assert gateway.slate("nobody").status == 200
            waits.append(time.monotonic() - asked)
            time.sleep(0.2)
        for one in sending:
            found += one.result()
    took = time.monotonic() - began
    faults = [f"{one.bad.kind}: {reason}; {one.bad.raw[:200]!r}" for one in found if (reason := wrong(one))]
    assert not faults, f"{len(faults)}:\n" + "\n".join(faults[:10])
    assert len(found) == REQUESTS
    statuses, cut = Counter(one.status for one in found), Counter(one.bad.kind for one in found if one.status <= 0)
    grown = resident_mib(gateway.process.pid) - before
    print(f"{REQUESTS} malformed requests in {took:.0f} s: {dict(statuses)}; cut {dict(cut)}; {before:.0f} MiB {grown:+.1f}; "
          f"slowest {max(one.seconds for one in found):.1f} s; "
          f"good requests meanwhile {len(waits)}, at most {max(waits) * 1000:.0f} ms")  # fmt: skip
    assert sum(cut.values()) < REQUESTS / 100
    assert grown < MOST_MIB
    assert errors(gateway) == []
    until(lambda: gateway.metric("freshet_api_in_flight_requests") == 1, 20, "nothing is left")  # the question itself


def test_a_client_may_not_send_any_number_of_requests_before_it_has_answers(gateway: GatewayProcess) -> None:
    assert answers(gateway, MOST_WAITING + 1, until_closed=False) == MOST_WAITING + 1  # the first one does not wait
    assert answers(gateway, 5000, until_closed=True) <= MOST_WAITING + 1


def answers(gateway: GatewayProcess, count: int, until_closed: bool) -> int:
    """How many answers come to some requests that are sent at once."""
    received = b""
    with socket.create_connection(("127.0.0.1", gateway.port()), timeout=30) as client, suppress(ConnectionError):
        with suppress(ConnectionError):
            client.sendall(PIPELINED * count)
        while until_closed or received.count(b'{"openapi":') < count:
            if not (chunk := client.recv(1 << 20)):
                break
            received += chunk
    return received.count(b'{"openapi":')


def test_connections_beyond_the_limit_are_closed_and_the_others_answered(gateway: GatewayProcess) -> None:
    address = ("127.0.0.1", gateway.port())
    until(lambda: gateway.metric("freshet_api_connections") <= 2, 30, "the connections of other tests are closed")
    held = [socket.create_connection(address, timeout=10) for _ in range(3 * CONNECTIONS)]
    try:
        closed = 0
        for client in held:
            client.settimeout(2)
        time.sleep(1)  # within it, those that are too many are closed; the others have 10 s for a head
        kept = []
        for client in held:
            client.setblocking(False)
            try:
                closed += client.recv(1) == b""
            except BlockingIOError:
                kept.append(client)
            except ConnectionError:
                closed += 1
        assert closed == 2 * CONNECTIONS - SPARE
        assert len(kept) == CONNECTIONS + SPARE  # the newest ones, for health and metrics
        assert gateway.ask("GET", "/healthz").status == 200
        assert gateway.ask("GET", "/readyz").status == 200
        for client in kept:
            client.setblocking(True)
            client.settimeout(10)
        kept[0].sendall(request("GET", "/v1/popular"))
        assert kept[0].recv(100).startswith(b"HTTP/1.1 200")
        kept[-1].sendall(request("GET", "/v1/popular"))
        assert kept[-1].recv(100).startswith(b"HTTP/1.1 503")
        late = kept[1].recv(1000)  # it sends no head
        assert late.startswith(b"HTTP/1.1 408")
    finally:
        for client in held:
            client.close()
    until(lambda: gateway.slate("nobody").status == 200, 10, "others are answered")
    assert errors(gateway) == []
    print(f"{3 * CONNECTIONS} connections at once, {CONNECTIONS} allowed: {closed} closed, {len(kept)} kept")
