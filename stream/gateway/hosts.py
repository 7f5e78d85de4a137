"""Which hosts and origins a request may name, so that no page of another site can use this server through a browser.

A page can point its own host name at this machine (DNS rebinding), but the browser still sends that name in Host. A
page of another origin can send simple requests, but the browser still names its origin in Origin.
"""

from __future__ import annotations

import socket
from collections.abc import Sequence
from ipaddress import ip_address
from typing import Final

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
        given = tuple(host.lower() for host in settings.serve_hosts)
        self._any = not given and settings.serve_tokens is not None
        self._hosts = frozenset(given or (*LOCAL, settings.serve_host.lower()))
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
        host = hosts[0].decode("latin-1").lower()
        if not self._any and without_port(host) not in self._hosts:
            raise ProblemError(
                "misdirected",
                f"found the host {host[:100]!r}, expected {' or '.join(sorted(self._hosts))}; the setting serve_hosts lists more",
                field="Host",
            )
        if not origins:
            return ""
        origin = origins[0].decode("latin-1").lower()
        if len(origins) == 1 and origin in self._origins:
            return origins[0].decode("latin-1")
        if len(origins) == 1 and origin in (f"http://{host}", f"https://{host}"):
            return ""
        raise ProblemError(
            "forbidden",
            f"pages of the origin {origin[:100]!r} may not use this server; see serve_origins",
            field="Origin",
        )


def without_port(host: str) -> str:
    """Return a Host header's name: `[::1]:8080` -> `[::1]`."""
    name, colon, port = host.rpartition(":")
    return name if colon and port.isdigit() and not (host.startswith("[") and host.endswith("]")) else host


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
