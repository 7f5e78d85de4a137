"""A state's recent events as bytes: read one by one, hashed, and written again."""

from __future__ import annotations

from array import array
from struct import Struct
from types import SimpleNamespace

from stream.core.errors import StateError
from stream.core.state import Interest, Recent

_BEFORE_TEXTS = Struct("<Bfq")  # behaviour, value, time


def entry(behaviour: int, value: float, time: int, item: str, scene: str, given: str, action: str = "") -> bytes:
    """Return an event as a state's recent events hold it, without the length before it."""
    texts = [text.encode() for text in (item, scene, given, *([action] if action else []))]
    return _BEFORE_TEXTS.pack(behaviour, value, time) + b"".join(len(raw).to_bytes(2, "little") + raw for raw in texts)


def recents(raw: bytes) -> list[Recent]:
    """Return a state's recent events; none if they cannot be read."""
    try:
        return list(Interest.recents(SimpleNamespace(recent=raw)))  # type: ignore[arg-type]
    except StateError:
        return []


def hashes(raw: bytes) -> array[int] | None:
    """Return a hash of each of a state's recent events, without its length; None if the lengths lead beyond the end. Cheap."""
    found = array("q")
    at, size = 0, len(raw)
    while at + 1 < size:
        end = at + 2 + raw[at] + 256 * raw[at + 1]
        found.append(hash(raw[at + 2 : end]))
        at = end
    return found if at == size else None


def split(raw: bytes) -> list[bytes] | None:
    """Return a state's recent events, each as its bytes after the length; None if one is malformed.

    A well-formed event has one of three behaviours, three texts in UTF-8, and perhaps an action. Together they fill the length.
    """
    found = []
    at = 0
    while at < len(raw):
        end = at + 2 + int.from_bytes(raw[at : at + 2], "little")
        if end > len(raw) or not _formed(raw, at + 2, end):
            return None
        found.append(raw[at + 2 : end])
        at = end
    return found


def _formed(raw: bytes, at: int, end: int) -> bool:
    if at >= end or raw[at] > 2:
        return False
    at += _BEFORE_TEXTS.size
    for number in range(4):
        start = at + 2
        at = start + int.from_bytes(raw[at:start], "little")
        if at > end or (number == 3 and at == start):  # an event without an action has no text for it
            return False
        try:
            raw[start:at].decode()
        except UnicodeDecodeError:
            return False
        if number >= 2 and at == end:
            return True
    return False
