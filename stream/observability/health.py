"""The small HTTP server of a worker or a tally: /metrics, /healthz, /readyz, and a status page at /.

It answers from its own threads, so it answers even if the event loop hangs.

/healthz: 200 while the event loop's heartbeat is younger than `stale` seconds and work makes progress, else 503, so
that a supervisor restarts the worker. Its JSON has what the worker waits for, and for how long nothing has moved.

/readyz: 200 once joined, recovered, catalogue and bundle are all true and the heartbeat is young, else 503. The JSON
body names what is missing.

The server binds to loopback unless the setting says otherwise. It cannot change anything. A request must name an accepted
host, so that no page of another site reads it through a browser (stream.core.hosts). One without the header Host comes
from no browser and is answered.
"""

from __future__ import annotations

import errno
import json
import logging
import socket
import time
from collections.abc import Callable, Iterable
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from threading import BoundedSemaphore, Thread
from typing import Any, Final, Protocol

from prometheus_client import CONTENT_TYPE_LATEST, CollectorRegistry, Gauge, generate_latest

from stream.core.errors import SettingsError
from stream.core.hosts import HostError, Names, check
from stream.process.progress import Progress

STALE: Final = 10.0
TIMEOUT: Final = 5.0
"""Seconds that a client has to send its whole request: slow clients do not keep threads."""
CONNECTIONS: Final = 32
"""Connections that are answered at the same time. Further ones are closed immediately."""
MAX_HEADERS: Final = 16_384
"""Bytes of request line and headers."""

PORTS: Final = 64
"""Ports that are tried if any port will do."""

CONDITIONS: Final = ("joined", "recovered", "catalogue", "bundle")
"""Of a worker."""

log = logging.getLogger("freshet.health")


class HealthMetrics(Protocol):
    """What /metrics shows, and the two metrics that this server sets."""

    @property
    def registry(self) -> CollectorRegistry: ...

    @property
    def ready(self) -> Gauge: ...

    @property
    def heartbeat_age(self) -> Gauge: ...


class Health:
    """Heartbeat, readiness, and the server that shows them.

    Use: `health = Health(metrics, host, port)`, `health.start()`, `health.beat()` once per second from the event loop,
    `health.set(joined=True)` as the process comes up and goes down, `health.stop()`. `set` and `beat` only assign plain
    attributes, so they need no lock and cannot block the loop.
    """

    def __init__(
        self,
        metrics: HealthMetrics,
        host: str = "127.0.0.1",
        port: int = 0,
        stale: float = STALE,
        others: bool = False,
        hosts: Iterable[str] = (),
        conditions: Iterable[str] = CONDITIONS,
    ) -> None:
        """Prepare the server.

        With `others`, it uses the next free port if `port` is taken. hosts: see `web_hosts`. conditions: What must hold for
        ready.
        """
        self._metrics = metrics
        self._host = host
        self._asked_port = port
        self._others = others
        self._names = Names((*hosts, host, socket.gethostname()), private=True)
        self._stale = stale
        self._beaten = time.monotonic()
        self._conditions = dict.fromkeys(conditions, False)
        self._server: _Server | None = None
        self.page: Callable[[list[str]], bytes] | None = None
        """Returns the status page for the missing conditions (stream.observability.status). Called from any thread."""
        self.progress: Progress | None = None
        metrics.ready.set_function(lambda: float(not self.missing()))
        metrics.heartbeat_age.set_function(self.age)

    @property
    def port(self) -> int:
        """The port that is really used; 0 before `start`."""
        return self._server.server_address[1] if self._server else 0

    def beat(self) -> None:
        """Note that the event loop has turned."""
        self._beaten = time.monotonic()

    def age(self) -> float:
        """Return the seconds since the last beat."""
        return time.monotonic() - self._beaten

    def set(self, **given: bool) -> None:
        """Change the given conditions. Raises KeyError if one is unknown."""
        for name, value in given.items():
            self._conditions[name]  # a wrong name must not become a condition that nothing ever meets
            self._conditions[name] = value

    def missing(self) -> list[str]:
        """Return the conditions for ready that are not met; empty: ready."""
        return [name for name, value in self._conditions.items() if not value] + ([] if self.alive() else ["heartbeat"])

    def alive(self) -> bool:
        return self.age() < self._stale and not (self.progress is not None and self.progress.stalled)

    def start(self) -> None:
        """Bind, and answer from a daemon thread. Raises SettingsError if it cannot listen on host and port."""
        server = self._server = self._bound()
        if self._asked_port not in (0, self.port):
            log.warning("web_port: %d is taken; this worker answers at %d", self._asked_port, self.port)
        Thread(target=server.serve_forever, args=(0.1,), name="health", daemon=True).start()

    def _bound(self) -> _Server:
        last = min(self._asked_port + PORTS - 1, 65_535) if self._others else self._asked_port
        port = self._asked_port
        while True:
            try:
                return _Server((self._host, port), self)
            except (OSError, OverflowError) as error:
                taken = isinstance(error, OSError) and error.errno == errno.EADDRINUSE
                if not taken or port == last:
                    raise SettingsError(
                        f"web_host, web_port: cannot listen on {self._host}:{port}: {error}; "
                        "set FRESHET_WEB_PORT to a free port, or 0 for any"
                    ) from None
                port += 1

    def stop(self) -> None:
        """Close the port. A second call does nothing."""
        if self._server is not None:
            self._server.shutdown()
            self._server.server_close()
            self._server = None

    def refuse(self, hosts: list[str], origins: list[str]) -> tuple[HTTPStatus, str] | None:
        """Return status and reason for a request with these headers Host and Origin that is not to be answered."""
        if len(hosts) > 1:
            return HTTPStatus.BAD_REQUEST, f"Host: found {len(hosts)}, expected one"
        try:
            if hosts:
                check([hosts[0].encode("latin-1")], [one.encode("latin-1") for one in origins], self._names)
        except HostError as error:
            if error.field == "Host":
                return HTTPStatus.MISDIRECTED_REQUEST, "Host: not accepted; the setting web_hosts lists more names"
            return HTTPStatus.FORBIDDEN, "Origin: pages of other sites may not use this server"
        return None

    def answer(self, path: str) -> tuple[HTTPStatus, str, bytes]:
        """Return (status, content type, body) for a path without its query."""
        if path == "/metrics":
            return HTTPStatus.OK, CONTENT_TYPE_LATEST, generate_latest(self._metrics.registry)
        if path == "/healthz":
            body: dict[str, Any] = {"alive": self.alive(), "heartbeat_age_seconds": round(self.age(), 3)}
            if self.progress is not None:
                body |= {"standing_seconds": round(self.progress.seconds, 1), "waits_for": self.progress.what}
            return _report(body["alive"], body)
        if path == "/readyz":
            missing = self.missing()
            return _report(not missing, {"ready": not missing, "missing": missing})
        if path in ("/", "/status") and self.page is not None:
            return HTTPStatus.OK, "text/html; charset=utf-8", self.page(self.missing())
        return HTTPStatus.NOT_FOUND, "text/plain; charset=utf-8", b"try /, /metrics, /healthz or /readyz\n"


def _report(good: bool, body: dict[str, Any]) -> tuple[HTTPStatus, str, bytes]:
    status = HTTPStatus.OK if good else HTTPStatus.SERVICE_UNAVAILABLE
    return status, "application/json", json.dumps(body).encode() + b"\n"


class _Server(ThreadingHTTPServer):
    daemon_threads = True
    block_on_close = False  # a slow client must not delay the worker's exit
    allow_reuse_address = True
    request_queue_size = CONNECTIONS

    def __init__(self, address: tuple[str, int], health: Health) -> None:
        self.health = health
        self._slots = BoundedSemaphore(CONNECTIONS)
        if ":" in address[0]:
            self.address_family = socket.AF_INET6
        super().__init__(address, _Handler)

    def server_bind(self) -> None:
        """Bind without HTTPServer's reverse lookup of the host name, which can hang for seconds."""
        self.socket.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        self.socket.bind(self.server_address)
        self.server_address = self.socket.getsockname()
        self.server_name, self.server_port = str(self.server_address[0]), int(self.server_address[1])

    def process_request(self, request: Any, client_address: Any) -> None:
        if not self._slots.acquire(blocking=False):
            self.shutdown_request(request)
            return
        try:
            super().process_request(request, client_address)
        except BaseException:  # no thread was started that would release the slot
            self._slots.release()
            raise

    def process_request_thread(self, request: Any, client_address: Any) -> None:
        try:
            super().process_request_thread(request, client_address)
        finally:
            self._slots.release()

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Do nothing: a client that hangs up is not worth a log line."""


class _Deadline:
    """A socket's read file with one deadline for the whole request and a limit on its size.

    A socket timeout alone restarts with every byte, so one byte per second would occupy a thread for hours.
    """

    def __init__(self, connection: socket.socket) -> None:
        self._connection = connection
        self._until = time.monotonic() + TIMEOUT
        self._left = MAX_HEADERS
        self._buffer = b""

    def readline(self, limit: int = -1) -> bytes:
        while b"\n" not in self._buffer:
            left = self._until - time.monotonic()
            if left <= 0 or self._left <= 0:
                raise TimeoutError("request took too long or is too large")
            self._connection.settimeout(left)
            chunk = self._connection.recv(min(4096, self._left))
            if not chunk:
                break
            self._left -= len(chunk)
            self._buffer += chunk
        end = self._buffer.find(b"\n") + 1 or len(self._buffer)
        line, self._buffer = self._buffer[:end], self._buffer[end:]
        self._connection.settimeout(TIMEOUT)
        return line

    def close(self) -> None:
        """Do nothing: the server closes the connection."""

    @property
    def closed(self) -> bool:
        return False


class _Handler(BaseHTTPRequestHandler):
    server: _Server
    server_version = "freshet"
    sys_version = ""
    protocol_version = "HTTP/1.0"  # one request per connection: no idle ones to watch

    def setup(self) -> None:
        super().setup()
        self.rfile = _Deadline(self.connection)  # type: ignore[assignment]

    def do_GET(self) -> None:
        hosts, origins = self.headers.get_all("Host", []), self.headers.get_all("Origin", [])
        if (refused := self.server.health.refuse(hosts, origins)) is not None:
            self._send(refused[0], "text/plain; charset=utf-8", f"{refused[1]}\n".encode())
            return
        self._send(*self.server.health.answer(self.path.partition("?")[0]))

    def do_HEAD(self) -> None:
        self.do_GET()

    def __getattr__(self, name: str) -> Any:
        """Answer every other verb: http.server looks for a method `do_VERB`."""
        if name.startswith("do_"):
            return self._refuse
        raise AttributeError(name)

    def _refuse(self) -> None:
        self._send(
            HTTPStatus.METHOD_NOT_ALLOWED, "text/plain; charset=utf-8", b"GET and HEAD only\n", Allow="GET, HEAD"
        )

    def _send(self, status: HTTPStatus, content_type: str, body: bytes, **headers: str) -> None:
        self.send_response(status)
        for name, value in headers.items():
            self.send_header(name, value)
        self.send_header("Content-Type", content_type)
        self.send_header("Content-Length", str(len(body)))
        self.send_header("Cache-Control", "no-store")
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)

    def log_message(self, format: str, *args: Any) -> None:  # noqa: A002
        """Log nothing: scrapes are not logged, and what clients send never reaches the log."""
