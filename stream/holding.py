"""Which partitions a worker fetches no more of while events wait behind comments: see docs/decisions/0009.

A text takes longer to encode than all else that an event needs, so comments are what is held back first, and where one user alone
has sent too many, those of that user's partition only. Clicks and ratings go on: only users that have a comment waiting wait.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Sequence
from typing import Final

from faust.types import TP

from stream.events import COMMENT, SourceEvent

SHARE: Final = 10
"""One user's waiting comments may be this part of `limit`."""

MOST: Final = 2
"""So many times `limit` may wait, whatever it is; beyond, nothing is fetched."""


def partitions(
    queues: Iterable[Collection[SourceEvent]], held: int, limit: int, topics: Sequence[str], assigned: Iterable[TP]
) -> set[TP]:
    """Of which topic-partitions to fetch no more for now.

    queues: the waiting events of each user; held: all events that wait; limit: the setting `held_events`; topics: the source
    topics; assigned: their partitions that are ours. Two micro-batches more than the limits may be under way.
    """
    if held > MOST * limit:
        return set(assigned)
    found = {tp for tp in assigned if tp.topic == topics[COMMENT]} if held > limit else set()
    share = limit // SHARE
    for queue in queues:
        if len(queue) <= share:
            continue
        partition = next(iter(queue)).partition
        if len(queue) > limit:
            found.update(TP(topic, partition) for topic in topics)
        elif sum(event.behaviour == COMMENT for event in queue) > share:
            found.add(TP(topics[COMMENT], partition))
    return found
