"""Which hosts and origins a request may name, so that no page of another site can use a server through a browser.

A page can point its own host name at this machine (DNS rebinding), but the browser still sends that name in Host. A
page of another origin can send simple requests, but the browser still names its origin in Origin.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Sequence
from ipaddress import ip_address
from typing import Final

ANY: Final = "*"
PRIVATE: Final = ("localhost", "local", "internal", "svc")
"""Last labels of names that no public DNS server resolves, so no stranger can point one at this machine."""


class HostError(ValueError):
    """A request names a host or an origin that is not accepted.

    Attributes:
        field: The header, `Host` or `Origin`.
        found: What it says, in lower case; "" if there is not exactly one Host.
    """

    def __init__(self, field: str, found: str) -> None:
        super().__init__(f"{field}: {found[:100]!r} is not accepted")
        self.field = field
        self.found = found


class Names:
    """The names that a server is called by.

    Args:
        names: Names without a port; `*` stands for any.
        private: Whether addresses, names without a dot and names under PRIVATE are accepted, too. A page's own host is
            none of these: an address cannot be pointed elsewhere, and the others are resolved in this network alone.
    """

    def __init__(self, names: Iterable[str], private: bool = False) -> None:
        self._names = frozenset(name.lower() for name in names)
        self._private = private

    def __contains__(self, host: object) -> bool:
        """Return whether a Host header, in lower case, is accepted."""
        if ANY in self._names:
            return True
        name = without_port(str(host))
        return name in self._names or (self._private and _is_private(name))

    def __str__(self) -> str:
        return " or ".join(sorted(self._names))


def check(hosts: Sequence[bytes], origins: Sequence[bytes], names: Names, shared: Collection[str] = ()) -> str:
    """Return the origin whose page may read the answer; "" if no page of another origin asks.

    Args:
        hosts: All headers Host.
        origins: All headers Origin.
        names: The names that are accepted.
        shared: Origins, in lower case, whose pages may use the server.
    Raises:
        HostError: They are not accepted.
    """
    if len(hosts) != 1:
        raise HostError("Host", "")
    host = hosts[0].decode("latin-1").lower()
    if host not in names:
        raise HostError("Host", host)
    if not origins:
        return ""
    origin = origins[0].decode("latin-1").lower()
    if len(origins) == 1 and origin in shared:
        return origins[0].decode("latin-1")
    if len(origins) == 1 and origin in (f"http://{host}", f"https://{host}"):
        return ""
    raise HostError("Origin", origin)


def without_port(host: str) -> str:
    """Return a Host header's name: `[::1]:8080` -> `[::1]`."""
    name, colon, port = host.rpartition(":")
    return name if colon and port.isdigit() and not (host.startswith("[") and host.endswith("]")) else host


def _is_private(name: str) -> bool:
    try:
        ip_address(name[1:-1] if name.startswith("[") and name.endswith("]") else name)
        return True
    except ValueError:
        return bool(name) and ((name.isascii() and "." not in name) or name.rpartition(".")[2] in PRIVATE)
