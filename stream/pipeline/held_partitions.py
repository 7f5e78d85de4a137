"""Which partitions a worker fetches no more of while events wait behind comments: see docs/decisions/0009.

A text takes longer to encode than all else that an event needs, so comments are what is held back first, and where one user alone
has sent too many, those of that user's partition only. Clicks and ratings go on: only users that have a comment waiting wait.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Sequence
from typing import Final

from faust.types import TP

from stream.core.messages import COMMENT, SourceEvent

SHARE: Final = 10
"""One user's waiting comments may be this part of `limit`."""

AHEAD: Final = 2
"""Micro-batches that may be under way when a partition is held."""


def partitions(
    queues: Iterable[Collection[SourceEvent]],
    held: int,
    limit: int,
    batch: int,
    topics: Sequence[str],
    assigned: Iterable[TP],
) -> set[TP]:
    """Of which topic-partitions to fetch no more for now.

    queues: the waiting events of each user; held: all events that wait; limit, batch: the settings `held_events` and
    `micro_batch`; topics: the source topics; assigned: their partitions that are ours.
    """
    if held > 2 * limit + AHEAD * batch:  # more than comments alone can come to: clicks and ratings behind them
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
