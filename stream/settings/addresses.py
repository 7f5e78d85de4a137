"""Addresses in settings. A malformed one is reported immediately; a client would only retry it again and again."""

from __future__ import annotations

import re
import socket
from ipaddress import AddressValueError, IPv4Address, IPv6Address
from typing import Final

BROKERS: Final = "host:port[,host:port...], with a port from 1 to 65535, and an IPv6 address in brackets"
ALL: Final = "0.0.0.0 or :: for all addresses of this machine"
SHOWN: Final = 60  # characters of what was found

_NAME: Final = re.compile(r"[\w.-]+")
_PORT: Final = re.compile(r"[0-9]{1,5}")


def brokers(text: str) -> str:
    """Return host:port[,host:port...] without spaces. Raises ValueError with the address that is malformed, and why."""
    addresses = [address.strip() for address in text.split(",")]
    for address in addresses:
        if reason := _wrong(address):
            raise ValueError(f"found {shown(address)} ({reason}), expected {BROKERS}")
    return ",".join(addresses)


def _wrong(address: str) -> str:
    """Return why this is not host:port; "" if it is."""
    host, colon, port = address.rpartition(":")
    if not address:
        return "no address"
    if not colon or host.startswith("[") != host.endswith("]"):  # [::1]
        return "no port"
    if not host.strip("[]"):
        return "no host"
    if not _is_host(host):
        return "not a host name or address"
    if not _PORT.fullmatch(port) or not 1 <= int(port) <= 65535:
        return "the port is not from 1 to 65535"
    return ""


def interface(text: str) -> str:
    """Return the host or address on which a server listens.

    Raises ValueError if it is not a host, or if it stands for all of this machine's addresses without showing it: an
    empty text, and short forms of 0.0.0.0.
    """
    if not _is_host(f"[{text}]" if ":" in text else text) or _is_short_for_all(text):
        raise ValueError(f"found {shown(text)}, expected a host name or address; {ALL}")
    return text


def _is_short_for_all(text: str) -> bool:
    """Check for 0, 0x0 or 0.0. The system reads them as 0.0.0.0, IPv4Address does not."""
    try:
        zeros = not any(socket.inet_aton(text))
        IPv4Address(text)
    except AddressValueError:
        return zeros
    except OSError:
        pass
    return False


def _is_host(host: str) -> bool:
    try:
        if host.startswith("["):
            IPv6Address(host[1:-1])
            return True
        host.encode("idna")  # as every lookup of a name does: an empty part, or one that is too long, is an error
    except ValueError:
        return False
    return _NAME.fullmatch(host) is not None


def shown(text: str) -> str:
    """Return a text for a message: in quotes, on one line, not too long, and without what may be a password."""
    _, at, rest = text.rpartition("@")
    text = f"...@{rest}" if at else text
    return ascii(text if len(text) <= SHOWN else text[:SHOWN] + "...")
