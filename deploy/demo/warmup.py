"""Send every user's history except the last choices through the topics, as fast as the broker and the worker accept it.

Kafka orders a user's events only within a topic. Under such a load a comment may be folded some events earlier or later
than it was written, so the hit rates of two demos with the same bundle may differ in the third digit.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable
from typing import Any, Final

from deploy.demo.client import Feed, Slate
from models.data import Message
from stream.core.errors import FreshetError

STALL: Final = 60.0  # seconds without any slate after which the demo gives up
BURST: Final = 500  # events sent between two reads of slates


def send_all(feed: Feed, messages: Iterable[Message]) -> int:
    """Send the messages and wait until all are acknowledged -> their number."""
    futures = [feed.send_bulk(message) for message in messages]
    for future in futures:
        feed.position(future)
    return len(futures)


def warm_up(
    feed: Feed, messages: Iterable[Message], alive: Callable[[], None], report: Callable[[int, int], None]
) -> dict[str, Slate]:
    """Send everything, then wait until the newest slates show that all of it is applied -> each user's newest slate.

    Args:
        feed: Sends events and reads slates.
        messages: The messages to send.
        alive: Called often. It raises if the worker has ended.
        report: Called with the numbers of events sent and applied.

    Raises:
        FreshetError: No slate arrives for STALL seconds.
    """
    newest: dict[str, Slate] = {}
    futures: list[tuple[str, Any]] = []
    applied = 0

    def look(wait: float) -> bool:
        nonlocal applied
        slates = feed.slates(wait)
        for slate in slates:
            before = newest.get(slate.user)
            if before is None or slate.seq >= before.seq:
                applied += slate.seq - (before.seq if before else 0)
                newest[slate.user] = slate
        report(len(futures), applied)
        return bool(slates)

    for message in messages:
        futures.append((message.key.decode(), feed.send_bulk(message)))
        if len(futures) % BURST == 0:
            alive()
            look(0.0)
    ends: dict[str, dict[str, int]] = {}
    for user, future in futures:
        sent = feed.position(future)
        ends.setdefault(user, {})[f"{sent.topic}/{sent.partition}"] = sent.offset
    moved = time.monotonic()
    while waiting := [user for user, end in ends.items() if not _covers(newest.get(user), end)]:
        alive()
        if look(0.5):
            moved = time.monotonic()
        elif time.monotonic() - moved > STALL:
            raise FreshetError(f"no slate for {STALL:g} s; the histories of {len(waiting)} users are not applied yet")
    return newest


def _covers(slate: Slate | None, end: dict[str, int]) -> bool:
    return slate is not None and all(slate.applied.get(position, -1) >= offset for position, offset in end.items())
