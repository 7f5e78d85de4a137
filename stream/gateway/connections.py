"""uvicorn with limits that it lacks: on the number of connections, on the time and size of a request's head, on the
requests that a client sends before it has its answers (pipelining), and on the time for which an answer waits for its
client to read it.

Beyond `serve_connections` there are SPARE connections, so that health checks are answered on a server that is full: only
routes without limits are answered there, and each connection answers once. If more arrive, the oldest one is closed.
"""

from __future__ import annotations

import asyncio
import logging
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, Final

import uvicorn
from uvicorn.protocols.http.httptools_impl import STATUS_LINE, HttpToolsProtocol, RequestResponseCycle

from stream.core.errors import SettingsError
from stream.gateway.problems import MEDIA, encode, problem
from stream.settings import Settings

HEAD_SECONDS: Final = 10.0
"""Seconds that a client has to send a request line and headers."""
MAX_HEAD: Final = 32 << 10
"""Bytes of a request line and headers."""
MOST_WAITING: Final = 32
"""Requests of one connection that wait for the answer to the one before them. uvicorn reads any number, each of which costs
memory, and time in which nobody else is answered."""
WRITE_SECONDS: Final = 30.0
"""Seconds for which bytes may wait for a client that does not read them. Then the connection is ended."""
LOOK_TICKS: Final = 10
"""Ticks of 0.1 s between two looks at the bytes that wait."""
SPARE: Final = 32
"""Connections beyond serve_connections, for routes without limits (health, metrics)."""
SPARE_KEY: Final = "freshet.spare"
"""Key in the ASGI scope of a request on a spare connection."""
KEEP_ALIVE: Final = 60
BACKLOG: Final = 512


class Config(uvicorn.Config):
    """uvicorn's configuration, and the spare connections, oldest first."""

    most = 0
    """Connections at the same time, without the spare ones."""

    def __init__(self, *given: Any, most: int, **more: Any) -> None:
        super().__init__(*given, **more)
        self.most = most
        self.spare: dict[Connection, None] = {}


class TooManyError(Exception):
    """A client sends more requests than it waits for."""


class Connection(HttpToolsProtocol):
    """One connection. uvicorn's own have no limit for a head, and none for an answer that the client does not read."""

    config: Config

    def __init__(self, *given: Any, **more: Any) -> None:
        super().__init__(*given, **more)
        self._size = 0
        self._in_head = True
        self._late: asyncio.TimerHandle | None = None
        self._flooded = False
        self._unread_since: float | None = None
        self._answering: list[RequestResponseCycle] = []

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        super().connection_made(transport)  # type: ignore[arg-type]
        self.transport.set_write_buffer_limits(low=0)  # so that resume_writing means that the client has read all
        spare = self.config.spare
        if len(self.connections) - len(spare) > self.config.most:
            spare[self] = None
            if len(spare) > SPARE:
                next(iter(spare)).end()
        self._wait_for_head()

    def connection_lost(self, exc: Exception | None) -> None:
        self._have_head()
        self._forget()
        super().connection_lost(exc)

    def resume_writing(self) -> None:
        self._unread_since = None
        super().resume_writing()

    def look(self, now: float) -> None:
        """End the connection if bytes have waited for too long. `now`: a time of the loop."""
        if not self.transport.get_write_buffer_size():
            self._unread_since = None
        elif self._unread_since is None:
            self._unread_since = now
        elif now - self._unread_since > WRITE_SECONDS:
            self.end()

    def end(self) -> None:
        """End the connection at once. What waits to be written is lost."""
        self._forget()
        self.transport.abort()

    def _forget(self) -> None:
        """Let requests in progress know that the client is gone, also those before the newest; forget those that wait."""
        self.config.spare.pop(self, None)
        self.pipeline.clear()
        for cycle in self._answering:
            if not cycle.response_complete:
                cycle.disconnected = True
                cycle.message_event.set()
        self._answering.clear()

    def _start_asgi_task(self, cycle: RequestResponseCycle, app: Any) -> None:
        self._answering = [cycle]
        super()._start_asgi_task(cycle, app)

    def data_received(self, data: bytes) -> None:
        if self._in_head:
            self._size += len(data)
            if self._late is None:
                self._wait_for_head()
        super().data_received(data)
        if self._in_head and self._size > MAX_HEAD and not self.transport.is_closing():
            self._refuse("headers-too-large", f"expected at most {MAX_HEAD} bytes of request line and headers")

    def on_message_begin(self) -> None:
        if len(self.pipeline) >= MOST_WAITING:
            self._flooded = True
            raise TooManyError  # ends the parser: what else has arrived is not read
        super().on_message_begin()
        self._in_head = True
        if self in self.config.spare:
            self.scope[SPARE_KEY] = True  # type: ignore[typeddict-unknown-key]

    def on_headers_complete(self) -> None:
        self._in_head = False
        self._size = 0
        self._have_head()
        super().on_headers_complete()

    def on_message_complete(self) -> None:
        super().on_message_complete()
        self._in_head = True

    def send_400_response(self, msg: str) -> None:
        """Answer what is no HTTP request, or one too many."""
        self._refuse(
            "bad-request",
            f"expected at most {MOST_WAITING} requests that wait for answers of this connection"
            if self._flooded
            else "this is not an HTTP/1.1 request",
        )

    def _wait_for_head(self) -> None:
        self._late = self.loop.call_later(HEAD_SECONDS, self._too_late)

    def _have_head(self) -> None:
        if self._late is not None:
            self._late.cancel()
            self._late = None

    def _too_late(self) -> None:
        if not self.transport.is_closing():
            self._refuse("timeout", f"expected a request line and headers within {HEAD_SECONDS:g} s")

    def _refuse(self, kind: str, detail: str) -> None:
        found = problem(kind, detail)
        body = encode(found)
        head = b"content-type: %s\r\ncontent-length: %d\r\nconnection: close\r\n\r\n" % (MEDIA.encode(), len(body))
        self.transport.write(STATUS_LINE[found.status] + head + body)
        self._forget()
        self.transport.close()


class Server(uvicorn.Server):
    """uvicorn's server without its signal handlers: stream.process.stopping has them."""

    @contextmanager
    def capture_signals(self) -> Iterator[None]:
        yield

    async def on_tick(self, counter: int) -> bool:
        if counter % LOOK_TICKS == 0:
            now = asyncio.get_running_loop().time()
            for connection in list(self.server_state.connections):
                connection.look(now)  # type: ignore[union-attr]
        return await super().on_tick(counter)


def listen(settings: Settings) -> socket.socket:
    """Return a socket that listens. Raises SettingsError."""
    host, port = settings.serve_host, settings.serve_port
    try:
        family = socket.AF_INET6 if ":" in host else socket.AF_INET
        found = socket.socket(family, socket.SOCK_STREAM)
        found.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        found.bind((host, port))
        found.listen(BACKLOG)
        found.setblocking(False)
    except (OSError, OverflowError) as error:
        raise SettingsError(
            f"serve_host, serve_port: cannot listen on {host}:{port}: {error}; set FRESHET_SERVE_PORT to a free port, "
            "or 0 for any"
        ) from None
    return found


def server(app: Any, settings: Settings, drain: float) -> Server:
    """Return a server for an ASGI application. `drain`: seconds that requests get when it stops."""
    for name in ("uvicorn", "uvicorn.error", "uvicorn.access"):
        logging.getLogger(name).setLevel(logging.ERROR)  # what strangers send is no line of this log
    config = Config(
        app,
        most=settings.serve_connections,
        http=Connection,
        ws="none",
        loop="none",
        lifespan="off",
        log_config=None,
        access_log=False,
        proxy_headers=False,
        server_header=False,
        timeout_keep_alive=KEEP_ALIVE,
        timeout_graceful_shutdown=int(drain),
    )
    return Server(config)
