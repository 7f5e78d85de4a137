"""Which partitions a worker stops fetching while events wait behind comments: see docs/decisions/0009.

Encoding a text takes longer than everything else that an event needs, so comments are held back first. If a single user
has sent too many, only the comments of that user's partition are held back. Clicks and ratings go on: only users with a
waiting comment have to wait.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Sequence
from typing import Final

from faust.types import TP

from stream.core.messages import COMMENT, SourceEvent

SHARE: Final = 10
"""One user's waiting comments may be one part in SHARE of `limit`."""

AHEAD: Final = 2
"""Micro-batches that may be in progress when a partition is held."""


def partitions(
    queues: Iterable[Collection[SourceEvent]],
    held: int,
    limit: int,
    batch: int,
    topics: Sequence[str],
    assigned: Iterable[TP],
) -> set[TP]:
    """Return the topic-partitions that must not be fetched for now.

    Args:
        queues: The waiting events of each user.
        held: Number of all waiting events.
        limit: The setting `held_events`.
        batch: The setting `micro_batch`.
        topics: The source topics.
        assigned: Their partitions that are ours.
    """
    if held > 2 * limit + AHEAD * batch:  # more than comments alone can reach: clicks and ratings wait behind them
        return set(assigned)
    found = {tp for tp in assigned if tp.topic == topics[COMMENT]} if held > limit else set()
    share = limit // SHARE
    for queue in queues:
        if len(queue) <= share:
            continue
        comments = sum(event.behaviour == COMMENT for event in queue)
        partition = next(iter(queue)).partition
        if len(queue) - comments > limit:
            found.update(TP(topic, partition) for topic in topics)
        elif comments > share:
            found.add(TP(topics[COMMENT], partition))
    return found
