"""Control records that ask for a user to be forgotten. Pure.

A control record is in a source topic. Its key is the user's, it has no value, and its header `freshet-control` is
`forget`. It erases the user's state, with every event that the worker has applied to it. Later events of the same user
start from zero. `freshet forget` writes one into each source topic, so that no earlier event is applied after all of
them.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from hashlib import blake2b
from typing import Final

import msgspec

from stream.core.messages import Forgotten, SourceEvent

CONTROL_HEADER: Final = "freshet-control"
FORGET: Final = b"forget"
BY_HEADER: Final = "freshet-by"
"""Header that names who asked; it is copied into the audit record."""

MAX_BY: Final = 256  # bytes of it that are kept

Headers = Iterable[tuple[str, bytes | None]]


def control(by: str = "") -> list[tuple[str, bytes]]:
    """Return the headers of a control record."""
    return [(CONTROL_HEADER, FORGET), (BY_HEADER, by.encode()[:MAX_BY])]


def asks_to_forget(value: bytes | None, headers: Headers) -> bool:
    """Check whether a record is a control record. A record with a value never is."""
    return not value and any(name == CONTROL_HEADER and content == FORGET for name, content in headers)


def asked_by(headers: Headers) -> str:
    """Return who asked, at most MAX_BY bytes; "" if the record does not say."""
    for name, content in headers:
        if name == BY_HEADER:
            return (content or b"")[:MAX_BY].decode("utf-8", "replace")
    return ""


def user_hash(key: bytes, app_id: str) -> str:
    """Return what an audit record names in place of the user: 32 hex digits.

    It lets someone who knows a user's key find the record. Whoever can guess keys and knows `app_id` can check a guess,
    so this is a pseudonym and not anonymous.
    """
    return blake2b(key, digest_size=16, key=app_id.encode()[:64]).hexdigest()


def audit(
    event: SourceEvent, applied: Sequence[int], topics: Sequence[str], app_id: str, now: int
) -> tuple[bytes, bytes]:
    """Return key and value of the audit record of a control record.

    Args:
        event: The control record.
        applied: The user's last applied offset of each source topic.
        topics: The source topics.
        app_id: The setting `app_id`.
        now: Epoch ms.
    """
    place = f"{topics[event.behaviour]}/{event.partition}/{event.offset}"
    record = Forgotten(
        user_hash=user_hash(event.user, app_id),
        by=asked_by(event.headers),
        requested=event.append_ms,
        erased=now,
        record=place,
        applied={
            f"{topic}/{event.partition}": offset for topic, offset in zip(topics, applied, strict=True) if offset >= 0
        },
    )
    return place.encode(), msgspec.json.encode(record)
