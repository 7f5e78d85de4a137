"""Which hosts and origins a request to the HTTP API may name (stream.core.hosts), and who else can reach the server."""

from __future__ import annotations

import socket
from collections.abc import Sequence
from ipaddress import ip_address
from typing import Final

from stream.core.hosts import ANY, HostError, Names, check
from stream.gateway.problems import ProblemError
from stream.settings import Settings

LOCAL: Final = ("localhost", "127.0.0.1", "[::1]")
METHODS: Final = "GET, POST, PUT, DELETE"
ALLOWED: Final = "authorization, content-type"


def is_local(host: str) -> bool:
    """Return whether only this machine can reach a server that listens on this host or address."""
    try:
        return ip_address(host.strip("[]")).is_loopback
    except ValueError:
        pass
    try:
        found = {entry[4][0] for entry in socket.getaddrinfo(host, None)}
    except OSError:
        return False
    return bool(found) and all(ip_address(str(one).partition("%")[0]).is_loopback for one in found)


class Hosts:
    """Checks the headers Host and Origin.

    Args:
        settings: serve_hosts, serve_origins, serve_host and serve_tokens count.
    """

    def __init__(self, settings: Settings) -> None:
        given = settings.serve_hosts or ((ANY,) if settings.serve_tokens is not None else (*LOCAL, settings.serve_host))
        self._names = Names(given)
        self._origins = frozenset(origin.rstrip("/").lower() for origin in settings.serve_origins)

    def check(self, hosts: Sequence[bytes], origins: Sequence[bytes]) -> str:
        """Return the origin whose page may read the answer; "" if no page of another origin asks.

        Args:
            hosts: All headers Host.
            origins: All headers Origin.
        Raises:
            ProblemError: They are not accepted.
        """
        if len(hosts) != 1:
            raise ProblemError("bad-request", f"found {len(hosts)} headers Host, expected one", field="Host")
        try:
            return check(hosts, origins, self._names, self._origins)
        except HostError as error:
            found = repr(error.found[:100])
            if error.field == "Host":
                raise ProblemError(
                    "misdirected", f"found the host {found}, expected {self._names}; the setting serve_hosts lists more",
                    field="Host",
                ) from None  # fmt: skip
            raise ProblemError(
                "forbidden", f"pages of the origin {found} may not use this server; see serve_origins", field="Origin"
            ) from None


def shared_with(origin: str) -> list[tuple[bytes, bytes]]:
    """Return the headers that let a page of this origin read the answer."""
    value = origin.encode("latin-1")
    return [(b"access-control-allow-origin", value), (b"vary", b"Origin")] if origin else []


def preflight(origin: str) -> list[tuple[bytes, bytes]]:
    """Return the headers of the answer to a browser that asks before it sends a request."""
    return [
        *shared_with(origin),
        (b"access-control-allow-methods", METHODS.encode()),
        (b"access-control-allow-headers", ALLOWED.encode()),
        (b"access-control-max-age", b"600"),
    ]
