"""The ASGI application: what every request goes through before its handler, and every answer after it.

In this order: size of the head, Host and Origin, route, token, rate, body (type, size, time), parameters, handler (time).
Any error is a problem (stream.gateway.problems), and one that nobody foresaw is logged, too. An answer that is given
before the whole body has come ends the connection: nothing waits for the rest.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable, MutableMapping
from typing import Any, Final

import msgspec

from stream.core.errors import FreshetError, StateError
from stream.gateway.auth import Tokens
from stream.gateway.connections import SPARE_KEY
from stream.gateway.hosts import Hosts, preflight, shared_with
from stream.gateway.metrics import GatewayMetrics
from stream.gateway.problems import MEDIA, ProblemError, encode
from stream.gateway.rates import Rates
from stream.gateway.routing import Answer, Call, Prepared, Router
from stream.settings import Settings

Scope = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[MutableMapping[str, Any]]]
Send = Callable[[MutableMapping[str, Any]], Awaitable[None]]

MAX_ADDRESS: Final = 8 << 10
"""Bytes of path and query."""
MAX_HEADERS: Final = 16 << 10
"""Bytes of headers, as they are sent."""
DISCARD_SECONDS: Final = 0.5
"""Seconds that the rest of a body may take which a refused request has announced. If it comes in this time, the
connection stays open."""

log = logging.getLogger("freshet.gateway")


class Gone(Exception):
    """The client went away before its request was complete."""


class Application:
    """Answers requests.

    Args:
        settings: The settings.
        router: The routes.
        tokens: Who may do what.
        metrics: Counts answers.
        fatal: Called with an error after which nothing can be trusted: it ends the process.
    """

    def __init__(
        self,
        settings: Settings,
        router: Router,
        tokens: Tokens,
        metrics: GatewayMetrics,
        fatal: Callable[[BaseException], object],
    ) -> None:
        self._settings = settings
        self._router = router
        self._tokens = tokens
        self._metrics = metrics
        self._fatal = fatal
        self._hosts = Hosts(settings)
        self._rates = Rates(settings.serve_rate)
        self._encoder = msgspec.json.Encoder()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            return
        began = time.perf_counter()
        request = _Request(scope, receive, send)
        self._metrics.in_flight.inc()
        try:
            await self._answer(request)
        except ProblemError as error:
            await self._refuse(request, error)
        except Gone:
            request.status = 0
        except StateError as error:
            log.error("a state cannot be used: %s", error)
            await self._refuse(request, ProblemError("internal", "the user's state cannot be used; see the log"))
        except FreshetError as error:  # RocksDB: nothing that this process has can be trusted any more
            self._fatal(error)
        except Exception as error:
            log.error("a request failed", exc_info=error, extra={"route": request.route})
            await self._refuse(request, ProblemError("internal", "an error of this server; see its log"))
        finally:
            self._metrics.in_flight.dec()
            if request.status:
                self._metrics.answered(request.route, request.status, time.perf_counter() - began)

    async def _answer(self, request: _Request) -> None:
        try:
            admitted = self._admit(request)
        except ProblemError:
            self._rates.take(request.address)  # no valid token says who asks
            raise
        if admitted is None:
            self._rates.take(request.address)
            await request.discard(self._settings.serve_body)
            await request.send(Answer(status=204), self._encoder, preflight(request.origin))
            return
        prepared, parameters, client = admitted
        route = prepared.route
        if not route.unlimited:
            self._rates.take(client)
        call = Call(parameters, None)
        limit = self._settings.serve_timeout
        arrived = False
        try:
            async with asyncio.timeout(limit):
                call.raw = await self._body(request, prepared)
                arrived = True
                call.media = request.media()
                call.query = prepared.parameters.read(request.scope["query_string"])
                if prepared.body is not None:
                    call.body = prepared.body.read(call.raw)
                answer = await route.handler(call)
        except TimeoutError:
            if not arrived:
                raise ProblemError("timeout", f"expected the whole body within {limit:g} s") from None
            raise ProblemError("late", f"not answered within {limit:g} s", headers={"Retry-After": "1"}) from None
        if route.streams:
            await request.stream(answer)
        else:
            await request.send(answer, self._encoder)

    def _admit(self, request: _Request) -> tuple[Prepared, dict[str, str], str] | None:
        """Return the route, the parameters of the path and the client's name; None for a request with OPTIONS.

        Raises ProblemError.
        """
        request.check_size()
        request.origin = self._hosts.check(request.all(b"host"), request.all(b"origin"))
        method, path = request.method, request.scope["raw_path"]
        if method == "OPTIONS":
            if not request.origin:
                self._router.find("GET", path)  # a path that does not exist is not found
            return None
        prepared, parameters = self._router.find(method, path)
        route = prepared.route
        request.route = route.path
        if request.spare and not route.unlimited:
            raise ProblemError(
                "overloaded", f"expected at most {self._settings.serve_connections} connections (serve_connections)",
                headers={"Retry-After": "1"},
            )  # fmt: skip
        caller = self._tokens.caller(request.one(b"authorization"), request.address, route.scope)
        return prepared, parameters, caller.name

    async def _body(self, request: _Request, prepared: Prepared) -> bytes:
        """Return the body. Raises ProblemError if it is too large, too slow, or of another type."""
        route = prepared.route
        if route.media:
            if request.media() not in route.media:
                found = request.media() or "none"
                raise ProblemError(
                    "media-type", f"found {found[:60]!r}, expected {' or '.join(route.media)}", field="Content-Type",
                    headers={"Accept": ", ".join(route.media)},
                )  # fmt: skip
            if request.one(b"content-encoding") not in (None, b"identity"):
                raise ProblemError("media-type", "expected a body without an encoding", field="Content-Encoding")
        most = self._settings.serve_body if route.media else 0
        length = request.one(b"content-length")
        if length is not None and length.isdigit() and int(length) > most:
            raise _too_large(most)
        parts: list[bytes] = []
        size = 0
        while True:
            message = await request.receive()
            if message["type"] == "http.disconnect":
                raise Gone
            parts.append(message.get("body", b""))
            size += len(parts[-1])
            if size > most:
                raise _too_large(most)
            if not message.get("more_body"):
                request.unread = False
                return b"".join(parts)

    async def _refuse(self, request: _Request, error: ProblemError) -> None:
        if request.started:
            request.status = 0  # the answer has begun: only the connection can end
            return
        problem = error.problem
        if problem.status in (408, 413):
            request.closes = True
        else:
            await request.discard(self._settings.serve_body)
        await request.send(Answer(encode(problem), problem.status, MEDIA, error.headers), self._encoder)


def _too_large(most: int) -> ProblemError:
    expectation = f"expected a body of at most {most} bytes (serve_body)" if most else "expected no body"
    return ProblemError("too-large", expectation)


class _Request:
    """One request and its answer, at the level of ASGI.

    Attributes:
        address: The client's address; "" if it is not known.
        unread: Whether it has a body that was not read to its end.
        spare: Whether it came on a spare connection (stream.gateway.connections).
        closes: Whether the answer ends the connection in any case.
    """

    def __init__(self, scope: Scope, receive: Receive, send: Send) -> None:
        self.scope = scope
        self.receive = receive
        self.address: str = scope["client"][0] if scope.get("client") else ""
        self.method: str = scope["method"]
        self.route = "other"
        self.origin = ""
        self.status = 0
        self.started = False
        self.spare = self.closes = bool(scope.get(SPARE_KEY))
        self._headers: list[tuple[bytes, bytes]] = scope["headers"]
        self._send = send
        self.unread = any(
            name == b"transfer-encoding" or (name == b"content-length" and value.strip(b"0 "))
            for name, value in self._headers
        )

    def check_size(self) -> None:
        """Raise ProblemError if the address or the headers are too large."""
        if len(self.scope["raw_path"]) + len(self.scope["query_string"]) > MAX_ADDRESS:
            raise ProblemError("address-too-long", f"expected at most {MAX_ADDRESS} bytes of path and query")
        if sum(len(name) + len(value) + 4 for name, value in self._headers) > MAX_HEADERS:
            raise ProblemError("headers-too-large", f"expected at most {MAX_HEADERS} bytes of headers")

    def all(self, name: bytes) -> list[bytes]:
        return [value for one, value in self._headers if one == name]

    def one(self, name: bytes) -> bytes | None:
        """Return the only header of a name; None if there is none. Raises ProblemError if there are several."""
        found = self.all(name)
        if len(found) > 1:
            header = name.decode()
            raise ProblemError("bad-request", f"found {len(found)} headers {header}, expected one", field=header)
        return found[0] if found else None

    def media(self) -> str:
        """Return the body's media type without parameters, "" if none is given."""
        found = self.one(b"content-type")
        return "" if found is None else found.partition(b";")[0].strip().lower().decode("latin-1")

    async def discard(self, most: int) -> None:
        """Read what is left of the body if it is at most `most` bytes and comes in time."""
        if not self.unread or self.started or self.all(b"expect"):
            return
        if any(not length.isdigit() or int(length) > most for length in self.all(b"content-length")):
            return
        size = 0
        try:
            async with asyncio.timeout(DISCARD_SECONDS):
                while size <= most:
                    message = await self.receive()
                    if message["type"] == "http.disconnect":
                        return
                    size += len(message.get("body", b""))
                    if not message.get("more_body"):
                        self.unread = False
                        return
        except TimeoutError:
            return

    async def send(
        self, answer: Answer, encoder: msgspec.json.Encoder, more: list[tuple[bytes, bytes]] | None = None
    ) -> None:
        """Send an answer."""
        body = answer.body if isinstance(answer.body, bytes) else encoder.encode(answer.body)
        headers = [(b"content-length", b"%d" % len(body)), *self._common(), *(more or shared_with(self.origin))]
        if answer.status != 204:
            headers.append((b"content-type", answer.media.encode()))
        headers += [
            (name.lower().encode(), value.encode("latin-1", "replace")) for name, value in answer.headers.items()
        ]
        if self.unread or self.closes:
            headers.append((b"connection", b"close"))
        await self._start(answer.status, headers)
        await self._send(
            {"type": "http.response.body", "body": b"" if self.method == "HEAD" or answer.status == 204 else body}
        )

    async def stream(self, parts: AsyncGenerator[bytes, None]) -> None:
        """Send parts until there are no more or the client goes away."""
        headers = [*self._common(), *shared_with(self.origin), (b"content-type", b"text/event-stream; charset=utf-8")]
        headers.append((b"x-accel-buffering", b"no"))  # a proxy must not hold events back
        first = await anext(parts, b"")  # one that has not begun would not clean up after itself
        if self.method == "HEAD":
            await parts.aclose()
            await self._start(200, headers)
            await self._send({"type": "http.response.body", "body": b""})
            return
        sending = asyncio.ensure_future(self._parts(headers, first, parts))
        gone = asyncio.ensure_future(_gone(self.receive))
        try:
            await asyncio.wait((sending, gone), return_when=asyncio.FIRST_COMPLETED)
        finally:
            for task in (sending, gone):
                task.cancel()
            await asyncio.gather(sending, gone, return_exceptions=True)
            await parts.aclose()

    async def _parts(self, headers: list[tuple[bytes, bytes]], first: bytes, parts: AsyncIterator[bytes]) -> None:
        await self._start(200, headers)
        await self._send({"type": "http.response.body", "body": first, "more_body": True})
        async for part in parts:
            await self._send({"type": "http.response.body", "body": part, "more_body": True})
        await self._send({"type": "http.response.body", "body": b""})

    async def _start(self, status: int, headers: list[tuple[bytes, bytes]]) -> None:
        self.status = status
        self.started = True
        await self._send({"type": "http.response.start", "status": status, "headers": headers})

    def _common(self) -> list[tuple[bytes, bytes]]:
        return [
            (b"cache-control", b"no-store"),
            (b"x-content-type-options", b"nosniff"),
            (b"referrer-policy", b"no-referrer"),
        ]


async def _gone(receive: Receive) -> None:
    while (await receive())["type"] != "http.disconnect":
        pass
