"""Addresses in settings: what is none is told at once, where a client would only try it again and again."""

from __future__ import annotations

import re
from ipaddress import IPv6Address
from typing import Final

BROKERS: Final = "host:port[,host:port...], a port from 1 to 65535, an IPv6 address in brackets"
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
