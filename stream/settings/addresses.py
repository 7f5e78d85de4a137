"""Addresses in settings: what is none is told at once, where a client would only try it again and again."""

from __future__ import annotations

import re
import socket
from ipaddress import AddressValueError, IPv4Address, IPv6Address
from typing import Final

BROKERS: Final = "host:port[,host:port...], a port from 1 to 65535, an IPv6 address in brackets"
ALL: Final = "0.0.0.0 or :: for all of this machine's"
SHOWN: Final = 60  # characters of what was found

_NAME: Final = re.compile(r"[\w.-]+")
_PORT: Final = re.compile(r"[0-9]{1,5}")


def brokers(text: str) -> str:
    """host:port[,host:port...] without spaces. Raises ValueError naming the address that is none, and why."""
    addresses = [address.strip() for address in text.split(",")]
    for address in addresses:
        if reason := _wrong(address):
            raise ValueError(f"found {shown(address)} ({reason}), expected {BROKERS}")
    return ",".join(addresses)


def _wrong(address: str) -> str:
    """Why this is not host:port; "" where it is."""
    host, colon, port = address.rpartition(":")
    if not address:
        return "no address"
    if not colon or host.startswith("[") != host.endswith("]"):  # [::1]
        return "no port"
    if not host.strip("[]"):
        return "no host"
    if not _is_host(host):
        return "no host's name or address"
    if not _PORT.fullmatch(port) or not 1 <= int(port) <= 65535:
        return "no port from 1 to 65535"
    return ""


def interface(text: str) -> str:
    """Where a server listens. Raises ValueError for what is no host, and for what means all of this machine's addresses without
    saying so: nothing at all, and short forms of 0.0.0.0."""
    if not _is_host(f"[{text}]" if ":" in text else text) or _is_short_for_all(text):
        raise ValueError(f"found {shown(text)}, expected a host's name or address; {ALL}")
    return text


def _is_short_for_all(text: str) -> bool:
    """0, 0x0, 0.0: the system takes them for 0.0.0.0, which IPv4Address does not."""
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
        host.encode("idna")  # as every look-up of a name does: an empty or a too long part of it is an error there
    except ValueError:
        return False
    return _NAME.fullmatch(host) is not None


def shown(text: str) -> str:
    """As a message shows it: in quotes, on one line, not too long, and without what may be a password."""
    _, at, rest = text.rpartition("@")
    text = f"...@{rest}" if at else text
    return ascii(text if len(text) <= SHOWN else text[:SHOWN] + "...")
