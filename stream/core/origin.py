"""The origin of a redriven dead letter: the place of its first record, in the header `original-record`. Pure.

If the producer gave no id, the place is the event's id. So a letter stays one event, however often it is sent back. The
header is as trustworthy as the body's `id`, and no more. Both are compared within one user's state only, so a forged
header can make a record pass for another record of the same user, but never for one of another user.

Places belong to freshet, all other ids to the producer. An `id` that has the form of a place is remembered with OWN
before it. It is an id like any other: it equals itself and no place, so it never blocks a letter that is sent back.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from typing import Final

from stream.core.messages import SOURCE_TOPICS

ORIGINAL_RECORD_HEADER: Final = "original-record"
"""Header of a record that was sent back: topic/partition/offset of the first record that became a dead letter."""

MAX_ORIGIN: Final = 300
"""Bytes that are enough for every well-formed value: a topic's name has at most 249."""

OWN: Final = "id:"
"""Prefix of a producer's `id` in a state's memory if the id has the form of a place."""

Headers = Sequence[tuple[str, bytes | None]]

_PLACE = re.compile(rb"([A-Za-z0-9._-]{1,249})/(0|[1-9][0-9]{0,9})/(0|[1-9][0-9]{0,18})")


def origin(headers: Iterable[tuple[str, bytes | None]], topics: Sequence[str] = SOURCE_TOPICS) -> str:
    """Return the place that the first `original-record` header names, as text.

    Return "" if there is no such header, if it is malformed, or if it names none of `topics`. Numbers are plain
    decimals without leading zeros, so one place has one spelling.
    """
    for name, value in headers:
        if name == ORIGINAL_RECORD_HEADER:
            found = _PLACE.fullmatch(value or b"")
            return found[0].decode("ascii") if found and found[1].decode("ascii") in topics else ""
    return ""


def mark(identity: str, topics: Sequence[str] = SOURCE_TOPICS) -> str:
    """Return what a state remembers of a producer's `id`, or "" if it remembers the id as it is.

    An id that spells a place in one of `topics`, after any number of OWN, gets one more OWN. So no two ids, and no id
    and place, become the same.
    """
    if "/" not in identity:
        return ""
    bare = identity
    while bare.startswith(OWN):
        bare = bare[len(OWN) :]
    found = _PLACE.fullmatch(bare.encode())
    return OWN + identity if found and found[1].decode("ascii") in topics else ""
