"""Rules as they were at an offset of the rules topic, and slates checked under them.

Which records are in force is decided as in a worker (stream.core.rules). What they do to a slate is computed here, from the
JSON of the rules and of the items.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from hashlib import blake2b
from itertools import islice
from typing import Any, Final

import numpy as np

from deploy.clients.log_reader import Log
from deploy.verify.recompute.diversity import Walk
from deploy.verify.recompute.filters import holds
from stream.core.rules import Active, RuleBook

NEAR: Final = 1e-3
"""Scores closer than this, for each unit of the larger one above 1, count as equal."""
CALCULATED: Final = 60_000
"""Milliseconds before a slate's time within which its rules were looked up."""

Body = Mapping[str, Any]
Rules = tuple[Active, ...]


@dataclass(frozen=True)
class Reranking:
    """How a slate was re-ranked.

    Attributes:
        strength: That of the slate.
        pool: How many of the best items a walk must know.
        walk: Returns the walk over the places, for the candidates, best first.
    """

    strength: float
    pool: int
    walk: Callable[[Sequence[str]], Walk]


@dataclass(frozen=True)
class RulesThen:
    """The rules in force at one offset. whole: Whether nothing before was compacted away."""

    rules: Sequence[Active] = ()
    whole: bool = True


@dataclass(frozen=True)
class Viewer:
    """Whose slate it is.

    Attributes:
        user: The id; "" for unknown users.
        key: The key; b"" for unknown users.
        seq: Number of events.
        time: The slate's time, epoch ms.
    """

    user: str
    key: bytes
    seq: int
    time: int


def follow(log: Log, topic: str, wanted: Iterable[int], form: str) -> dict[int, RulesThen]:
    """Read the rules topic. Return the rules at each of the `wanted` offsets. form: The setting `key`."""
    book = RuleBook(form)
    found: dict[int, RulesThen] = {}
    left = sorted(set(wanted), reverse=True)
    if not left:
        return found
    expected, holes = 0, False
    waiting: list[tuple[int, bytes | None, bytes | None]] = []

    def take(whole: bool) -> None:
        book.apply(waiting)
        waiting.clear()
        found[left.pop()] = RulesThen(book.current.rules, whole)

    for record in log.records(topic, log.spans([topic])):
        while left and left[-1] < record.offset:
            take(not (holes or left[-1] >= expected))
        holes = holes or record.offset != expected
        expected = record.offset + 1
        waiting.append((record.offset, record.key, record.value))
    while left:
        take(not (holes or left[-1] >= expected))
    return found


def choices(then: RulesThen, viewer: Viewer) -> list[Rules]:
    """Return the rules that may have applied to a slate, by when they were looked up before it was sent."""
    edges = {edge for rule in then.rules for edge in (rule.message.since, rule.message.until) if edge is not None}
    times = [viewer.time, *(edge - 1 for edge in edges if viewer.time - CALCULATED < edge <= viewer.time)]
    found = [tuple(rule for rule in then.rules if _applies(rule.message, viewer, time)) for time in times]
    return list(dict.fromkeys(found))


def _applies(rule: Any, viewer: Viewer, time: int) -> bool:
    if rule.scene is not None or (rule.since or 0) > time or (rule.until is not None and time >= rule.until):
        return False  # a worker's slates have no scene
    return addresses(rule, viewer)


def addresses(rule: Any, viewer: Viewer) -> bool:
    """Return whether a rule, as it was written, is for a user, whatever its scene and times are."""
    segment = rule.segment
    if segment is None:
        return True
    if viewer.seq < (segment.min_seq or 0) or (segment.max_seq is not None and viewer.seq > segment.max_seq):
        return False
    if segment.users is not None and viewer.user not in segment.users:
        return False
    if segment.share is None:
        return True
    digest = blake2b(segment.salt.encode() + b"\0" + viewer.key, digest_size=8).digest()
    return bool(viewer.key) and segment.share[0] <= int.from_bytes(digest, "big") % 100 < segment.share[1]


@dataclass
class Effect:
    """What rules do to the items of one catalogue.

    Attributes:
        added: Row -> what is added to its score; None: it is left out. Rows that are not live are left out.
        pins: Place -> item.
        caps: (category or None for each one, how many).
    """

    added: list[float | None]
    pins: dict[int, str] = field(default_factory=dict)
    caps: list[tuple[str | None, int]] = field(default_factory=list)


def effect(
    rules: Collection[Active], names: Sequence[str], bodies: Mapping[int, Body], bias: Sequence[float]
) -> Effect:
    """Return what rules do.

    Args:
        rules: The rules that apply.
        names: Item of each row.
        bodies: Row -> message.
        bias: 0 for a live row.
    """
    found = Effect([None if one else 0.0 for one in bias])
    for rule in (one.message for one in rules):
        if rule.kind == "pin":
            found.pins[rule.place or 0] = rule.item or ""
        elif rule.kind == "cap":
            found.caps.append((rule.category, rule.most or 0))
        else:
            for row, added in enumerate(found.added):
                if added is None:
                    continue
                meets = holds(rule.filter or {}, names[row], bodies.get(row, {}), live=True)
                if rule.kind == "boost":
                    found.added[row] = added + (math.log(rule.factor or 1.0) if meets else 0.0)
                elif meets == (rule.kind == "block"):
                    found.added[row] = None
    return found


def misplaced(
    slate: Sequence[Mapping[str, Any]],
    size: int,
    best: Mapping[str, float],
    pins: Mapping[int, str],
    caps: Sequence[tuple[str | None, int]],
    categories: Mapping[str, Collection[str]],
    reranking: Reranking | None = None,
) -> str:
    """Return what is wrong with a slate under pins and caps; "" if nothing is.

    Args:
        slate: Its items with their scores.
        size: Its largest size.
        best: All items that may be in it -> their scores, best first.
        pins: Place below `size` -> item that may be pinned.
        caps: (category or None for each one, how many).
        categories: Item -> its categories.
        reranking: How it was re-ranked; None: its items are in the order of their scores.
    """
    if len(slate) > size:
        return f"it has {len(slate)} items, expected at most {size}"
    pinned = set(pins.values())
    rest = [one for one in slate if one["item"] not in pinned]
    names = [one["item"] for one in rest]
    for place in sorted(pins):
        names.insert(min(place, len(names)), pins[place])
    if [one["item"] for one in slate] != names[:size]:
        return f"a pinned item is not at its place: expected {', '.join(names[:size])[:200]}"
    for place, one in enumerate(slate):
        if one["item"] in pinned:
            after = next((other["score"] for other in slate[place + 1 :] if other["item"] not in pinned), None)
            before = next((other["score"] for other in reversed(slate[:place]) if other["item"] not in pinned), 0.0)
            if one["score"] != (before if after is None else after):
                return f"place {place}: the pinned item has the score {one['score']:g}, not that of the item after it"
    counts: dict[str, int] = {}
    for item in pinned:
        _count(item, counts, categories)
    left = [item for item in best if item not in pinned]
    candidates: list[str] = []
    if reranking is not None:
        fitting = (item for item in left if _fits(item, counts, caps, categories))
        candidates = list(islice(fitting, reranking.pool))
    walk = reranking.walk(candidates) if reranking is not None and candidates else None
    for one in rest:
        wrong = _next(one, left, counts, best, caps, categories, by_score=walk is None)
        if wrong:
            return wrong
        if walk is not None and reranking is not None:
            fits = [_fits(item, counts, caps, categories) for item in candidates]
            misplaced_here = _next_diverse(one["item"], walk, candidates, fits, reranking.strength)
            if misplaced_here is None:  # caps have left no candidate: the next best follow
                misplaced_here = _next(one, left, counts, best, caps, categories)
            if misplaced_here:
                return misplaced_here
        left.remove(one["item"])
        _count(one["item"], counts, categories)
    if len(slate) < size and any(_fits(item, counts, caps, categories) for item in left):
        return f"it has {len(slate)} items, but there are more that fit"
    return ""


def _next(
    one: Mapping[str, Any],
    left: Sequence[str],
    counts: Mapping[str, int],
    best: Mapping[str, float],
    caps: Sequence[tuple[str | None, int]],
    categories: Mapping[str, Collection[str]],
    *,
    by_score: bool = True,
) -> str:
    """Return what is wrong with the next item of a slate that is not pinned; "" if nothing is.

    by_score: Whether it must be the one with the best score, and not only have its own score.
    """
    name, score = one["item"], one["score"]
    mine = best.get(name)
    if mine is None or name not in left:
        return f"item {name[:100]!r} is not live, the user has seen it, or a rule leaves it out"
    if not _fits(name, counts, caps, categories):
        return f"item {name[:100]!r} is beyond a cap"
    expected = next(best[item] for item in left if _fits(item, counts, caps, categories)) if by_score else mine
    near = NEAR * max(1.0, abs(expected))
    if abs(mine - expected) > near or abs(mine - score) > near:
        return f"{name[:100]!r} at {score:g}, but it scores {mine:g} under the rules; expected {expected:g}"
    return ""


def _next_diverse(
    name: str, walk: Walk, candidates: Sequence[str], fits: Sequence[bool], strength: float
) -> str | None:
    """Return what is wrong with the place of the next item of a re-ranked slate; "" if nothing is.

    None: caps leave none of the candidates, and it is none of them. fits: Which of the candidates may still be shown.
    """
    mask = np.array(fits, np.bool_)
    at = candidates.index(name) if name in candidates else -1
    if at < 0 or not walk.possible(at):
        if walk.left(mask):
            return f"item {name[:100]!r} is not among the candidates; the setting diversity_candidates must be the workers'"
        return None
    if short := walk.short(at, mask):
        return (
            f"{name[:100]!r}, but with diversity {strength:g} another item is better there by {short:g}; the setting "
            "diversity_candidates must be the workers'"
        )
    walk.take(at)
    return ""


def _fits(
    item: str,
    counts: Mapping[str, int],
    caps: Sequence[tuple[str | None, int]],
    categories: Mapping[str, Collection[str]],
) -> bool:
    return all(
        counts.get(category, 0) < most
        for category in categories.get(item, ())
        for only, most in caps
        if only is None or only == category
    )


def _count(item: str, counts: dict[str, int], categories: Mapping[str, Collection[str]]) -> None:
    for category in set(categories.get(item, ())):
        counts[category] = counts.get(category, 0) + 1
