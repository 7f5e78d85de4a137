"""Where a dead letter that was sent back came from: the place of its first record, in the header `original-record`. Pure.

The place is the event's id where the producer gave none, so that however often a letter is sent back, it is one event. The
header is as trustworthy as the body's `id`, and no more: both are compared within one user's state only, so a forged one can
make a record pass for another of the same user, never for somebody else's.

Places are ours, all other ids are the producer's. An `id` that has the form of a place is remembered with OWN before it: it
is an id like any other, equal to itself and to no place, so that it never stands in the way of a letter that is sent back.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from typing import Final

from stream.core.messages import SOURCE_TOPICS

ORIGINAL_RECORD_HEADER: Final = "original-record"
"""Header of a record that was sent back; value: topic/partition/offset of the first record that became a dead letter."""

MAX_ORIGIN: Final = 300
"""Bytes that hold every well-formed value: a topic's name has at most 249."""

OWN: Final = "id:"
"""Before a producer's `id` in a state's memory where the id has the form of a place."""

Headers = Sequence[tuple[str, bytes | None]]

_PLACE = re.compile(rb"([A-Za-z0-9._-]{1,249})/(0|[1-9][0-9]{0,9})/(0|[1-9][0-9]{0,18})")


def origin(headers: Iterable[tuple[str, bytes | None]], topics: Sequence[str] = SOURCE_TOPICS) -> str:
    """The place that the first `original-record` header names, as text; "" where there is none, where it is malformed, or where
    it names none of `topics`. Numbers are plain decimals without leading zeros: one place has one spelling."""
    for name, value in headers:
        if name == ORIGINAL_RECORD_HEADER:
            found = _PLACE.fullmatch(value or b"")
            return found[0].decode("ascii") if found and found[1].decode("ascii") in topics else ""
    return ""


def mark(identity: str, topics: Sequence[str] = SOURCE_TOPICS) -> str:
    """What a state remembers of a producer's `id` that is a place in one of `topics`, with OWN before it any number of times:
    one OWN more, so that no two ids and no id and place become one. "" for any other id: it is remembered as it is."""
    if "/" not in identity:
        return ""
    bare = identity
    while bare.startswith(OWN):
        bare = bare[len(OWN) :]
    found = _PLACE.fullmatch(bare.encode())
    return OWN + identity if found and found[1].decode("ascii") in topics else ""
