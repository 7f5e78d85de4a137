"""Hashes by which a record is found again: in a dead letter, which may hold only a part of it, or in a copy."""

from __future__ import annotations

from collections.abc import Sequence
from hashlib import blake2b

from deploy.clients.dead_letter_headers import HEADER

ORIGINAL_RECORD = "original-record"
"""Header of a redriven dead letter: topic/partition/offset of the first record."""

WHOLE = 4 << 20
"""Bytes of key and value that a dead letter holds."""

HEADERS_ROOM = 32 << 10
LONGEST_POSITION = 300


def fingerprint(key: bytes | None, value: bytes | None) -> bytes:
    """Return 16 bytes that identify key and value of a record. Null and empty give different bytes."""
    size = b"-" if key is None else str(len(key)).encode()
    return blake2b(b"%b:%b%b" % (size, key or b"", b"-" if value is None else b"+" + value), digest_size=16).digest()


def cut(key: bytes | None, value: bytes | None) -> tuple[bytes | None, bytes | None]:
    """Return what a dead letter holds of key and value: WHOLE bytes in total, those of the key first."""
    room = WHOLE - len(key or b"")
    return key and key[:WHOLE], value and value[: max(0, room)]


def dead_letter_headers_mark(headers: Sequence[tuple[str, bytes | None]]) -> int:
    """Return a mark of those received headers that a dead letter holds; 0 if it holds none.

    It does not hold headers with the worker's own names. It holds the first `original-record`, unless that is too long for a
    position. It holds the others that fit into 32 KiB, each with 10 bytes for its frame.
    """
    found: list[tuple[str, bytes | None]] = []
    room = HEADERS_ROOM
    named_one = False
    for name, value in headers:
        size = len(value or b"")
        if name.startswith(HEADER):
            continue
        if name == ORIGINAL_RECORD:
            if not named_one and size <= LONGEST_POSITION:
                found.append((name, value))
            named_one = True
            continue
        room -= 10 + len(name.encode()) + size
        if room >= 0:
            found.append((name, value))
    return headers_mark(found)


def headers_mark(headers: Sequence[tuple[str, bytes | None]]) -> int:
    return hash(tuple((name, value) for name, value in headers)) if headers else 0
