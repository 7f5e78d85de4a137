"""Fault 27: everything that a client may do to a worker's HTTP endpoints; good requests are answered meanwhile."""

from __future__ import annotations

import http.client
import json
import random
import resource
import socket
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from stream.observability.health import CONNECTIONS, TIMEOUT
from stream.settings import Settings
from tests.bench.processes import resident_mib
from tests.chaos.trial import Trial
from tests.worker_process import WorkerProcess, until

PATIENCE = 4 * TIMEOUT  # seconds within which a good request is answered, whatever others do
VERBS = ("POST", "PUT", "DELETE", "PATCH", "OPTIONS", "TRACE", "CONNECT", "BREW", "get", "G" * 200, "GET\x00")
PATHS = (
    "/../../etc/passwd", "/%2e%2e/%2e%2e/etc/passwd", "//etc/passwd", "/..\\..\\x", "/metrics/../../x", "/./", "/%00", "/\xff",
    "http://127.0.0.1/etc/passwd", "/state?user=user1", "/users/user1", "/metrics%2f..%2f", "*", "/?" + "q" * 4000,
)  # fmt: skip


def abuse(settings: Settings, bundles: Path, folder: Path, seed: int, connections: int, megabytes: int) -> None:
    """All kinds of abuse in one random order, under traffic; between them, and during them, /healthz answers."""
    with Trial(27, "HTTP abuse", seed, settings, bundles, folder, workers=1, rate=200, users=60, allowed=()) as trial:
        worker = trial.workers[0]
        address = ("127.0.0.1", worker.port())
        before = resident_mib(worker.process.pid)
        kinds: list[Callable[[], None]] = [
            lambda: bodies(address, megabytes),
            lambda: long_heads(address),
            lambda: verbs_and_paths(address, trial.draw),
            lambda: garbage(address, trial.draw),
            lambda: many(address, connections),
        ]
        trial.draw.shuffle(kinds)
        with slow_clients(address, CONNECTIONS // 2):
            for kind in kinds:
                kind()
                answered(address)
            with slow_clients(address, 2 * CONNECTIONS):  # every slot is taken, again and again
                answered(address)
        trial.wait_ready()
        threads = int(status(worker)["Threads"])
        grown = resident_mib(worker.process.pid) - before
        assert grown < 200, f"{grown:.0f} MB more than before"
        assert all(line.startswith("{") and json.loads(line) for line in worker.log.read_text().splitlines())
        trial.note = (
            f"{connections} connections, {megabytes} MB body; memory +{max(0.0, grown):.0f} MB, {threads} threads"
        )


def status(worker: WorkerProcess) -> dict[str, str]:
    lines = Path(f"/proc/{worker.process.pid}/status").read_text().splitlines()
    return {name: value.strip() for name, _, value in (line.partition(":") for line in lines)}


def answered(address: tuple[str, int]) -> None:
    """A good request is answered within PATIENCE, however often it must knock: a server at its limit hangs up at once."""

    def asked() -> bool:
        connection = http.client.HTTPConnection(*address, timeout=TIMEOUT)
        try:
            connection.request("GET", "/healthz")
            return connection.getresponse().status == 200
        except (OSError, http.client.HTTPException):
            return False
        finally:
            connection.close()

    until(asked, PATIENCE, "a good request is answered")


def send(address: tuple[str, int], *parts: bytes) -> bytes:
    """All that comes back until the server hangs up."""
    answer = b""
    with socket.create_connection(address, timeout=2 * TIMEOUT) as connection:
        with suppress(OSError):
            for part in parts:
                connection.sendall(part)
            connection.shutdown(socket.SHUT_WR)
        with suppress(OSError):
            while chunk := connection.recv(1 << 16):
                answer += chunk
    return answer


def bodies(address: tuple[str, int], megabytes: int) -> None:
    part = b"x" * (1 << 20)
    for verb in ("POST", "GET"):
        began = time.monotonic()
        head = f"{verb} /healthz HTTP/1.1\r\nContent-Length: {megabytes << 20}\r\n\r\n".encode()
        answer = send(address, head, *[part] * megabytes)
        assert b" 200 " not in answer.split(b"\r\n", 1)[0] or verb == "GET"
        assert time.monotonic() - began < 3 * TIMEOUT
    send(address, b"GET /healthz HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\nffffffff\r\n", part)


def long_heads(address: tuple[str, int]) -> None:
    for head in (
        b"GET /" + b"a" * (1 << 20) + b" HTTP/1.1\r\n\r\n",
        b"GET /healthz HTTP/1.1\r\nx: " + b"a" * (1 << 20) + b"\r\n\r\n",
        b"GET /healthz HTTP/1.1\r\n" + b"x: y\r\n" * 100_000 + b"\r\n",
    ):
        assert b" 200 " not in send(address, head).split(b"\r\n", 1)[0]


def verbs_and_paths(address: tuple[str, int], draw: random.Random) -> None:
    for verb in draw.sample(VERBS, len(VERBS)):
        first = send(address, f"{verb} /metrics HTTP/1.1\r\n\r\n".encode("latin-1")).split(b"\r\n", 1)[0]
        assert b" 200 " not in first, (verb, first)
    for path in draw.sample(PATHS, len(PATHS)):
        answer = send(address, f"GET {path} HTTP/1.1\r\n\r\n".encode("latin-1"))
        first = answer.split(b"\r\n", 1)[0]
        assert b" 200 " not in first or path.startswith("/?"), (path, first)
        assert b"root:" not in answer
        assert b"user1" not in answer, f"{path}: what was asked for comes back, or a user's state"


def garbage(address: tuple[str, int], draw: random.Random) -> None:
    for _ in range(50):
        send(address, draw.randbytes(draw.randrange(1, 2000)))


def many(address: tuple[str, int], count: int) -> None:
    """`count` connections that say nothing, as many at once as the descriptors allow."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    at_once = min(count, hard - 200, 10_000)
    try:
        done = 0
        while done < count:
            held: list[socket.socket] = []
            try:
                for _ in range(min(at_once, count - done)):
                    done += 1
                    connection = socket.socket()
                    held.append(connection)
                    connection.setblocking(False)
                    connection.connect_ex(address)  # whether or not there is room: a full queue is the kernel's answer
                    if done % 2500 == 0:
                        answered(address)
            finally:
                for connection in held:
                    connection.close()
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


@contextmanager
def slow_clients(address: tuple[str, int], count: int) -> Iterator[None]:
    """`count` clients that send a byte now and then, each connecting again when it is cut off."""
    over = threading.Event()

    def trickle() -> None:
        while not over.is_set():
            with suppress(OSError), socket.create_connection(address, timeout=TIMEOUT) as connection:
                connection.sendall(b"GET /healthz HTTP/1.1\r\nX: ")
                while not over.wait(0.5):
                    connection.sendall(b"a")
            over.wait(0.2)

    threads = [threading.Thread(target=trickle) for _ in range(count)]
    for thread in threads:
        thread.start()
    try:
        yield
    finally:
        over.set()
        for thread in threads:
            thread.join()
