"""`min_offset`: what an answer must contain. Parsing only; stream.gateway.positions waits for it. Pure."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Final

from stream.gateway.problems import ProblemError

NAME: Final = "min_offset"
MOST: Final = 16
"""Positions in one value."""

_POSITION = re.compile(r"([A-Za-z0-9._-]{1,249})/([0-9]{1,9})[:/]([0-9]{1,18})")


@dataclass(frozen=True, slots=True)
class Wanted:
    """What an answer must contain.

    Attributes:
        sources: Behaviour (index of the source topic) -> offset in the user's partition.
        items: Offset in the items topic; -1: any.
        rules: Offset in the rules topic; -1: any.
    """

    sources: Mapping[int, int] = field(default_factory=dict)
    items: int = -1
    rules: int = -1


NOTHING: Final = Wanted()


def written(topic: str, partition: int, offset: int) -> str:
    """Return the value that asks for a record."""
    return f"{topic}/{partition}:{offset}"


def parse(
    text: str | None, topics: Sequence[str], items_topic: str, partition: int | None, rules_topic: str = "rules"
) -> Wanted:
    """Return what is asked for.

    Args:
        text: topic/partition:offset, or several with commas; None: nothing. As commands print it, topic/partition/offset, is
            read, too.
        topics: The source topics, in the order of the behaviours.
        items_topic: The items topic.
        partition: The user's partition; None: the answer is about no user, so only items and rules can be asked for.
        rules_topic: The rules topic.

    Raises:
        ProblemError: It is malformed, or the user has no events there.
    """
    if text is None:
        return NOTHING
    sources: dict[int, int] = {}
    items = rules = -1
    positions = text.split(",")
    if len(positions) > MOST:
        raise _invalid(f"found {len(positions)} positions, expected at most {MOST}")
    for position in positions:
        found = _POSITION.fullmatch(position)
        if found is None:
            raise _invalid(f"found {position[:60]!r}, expected topic/partition:offset, like {topics[0]}/2:41")
        topic, number, offset = found[1], int(found[2]), int(found[3])
        if topic in (items_topic, rules_topic):
            if number != 0:
                raise _invalid(f"found {position}, expected partition 0: {topic} has one partition")
            if topic == items_topic:
                items = max(items, offset)
            else:
                rules = max(rules, offset)
        elif partition is not None and topic in topics:
            if number != partition:
                raise _invalid(f"found {position}, expected partition {partition}, which has the events of this user")
            behaviour = topics.index(topic)
            sources[behaviour] = max(sources.get(behaviour, -1), offset)
        else:
            known = [*(topics if partition is not None else ()), items_topic, rules_topic]
            raise _invalid(f"found topic {topic[:60]!r}, expected {' or '.join(known)}")
    return Wanted(sources, items, rules)


def _invalid(detail: str) -> ProblemError:
    return ProblemError("invalid", detail, field=NAME)
