"""What is probably wrong with a rule that is acceptable: it is put all the same. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Final

import numpy as np
from numpy.typing import NDArray

from stream.core.filters import ATTRIBUTE, CATEGORY, ITEM, SCENE, Available, Columns, Named
from stream.core.rules import BLOCK, EXPIRED, ONLY, PIN, Active
from stream.core.times import date

NAMED: Final = 3
"""Names that one warning has."""
EMPTY: Final = "each slate that it applies to is empty"

_LACKING: Final = {
    ITEM: "the catalogue has no item {}",
    CATEGORY: "no item has the category {}",
    SCENE: "no item names the scene {}",
    ATTRIBUTE: "no item has the attribute {}",
}


def of_times(rule: Active, now_ms: int) -> list[str]:
    """Return the warnings about a rule's times, for people."""
    if rule.state(now_ms) != EXPIRED:
        return []
    return [f"until: {date(rule.until)} is past: the rule does not apply"]


def of_items(rule: Active, others: Iterable[Active], columns: Columns) -> list[str]:
    """Return the warnings about the items that a rule names, for people.

    Args:
        rule: The rule.
        others: The rules in force. It may be among them.
        columns: The items as they are now.
    """
    if rule.kind == PIN:
        return [] if columns.live(rule.item) else [_of_pin(rule.item, columns)]
    if rule.filtered is None:
        named = None if rule.category is None else Named(CATEGORY, (rule.category,))
        return (
            [] if named is None else [f"{text}: the cap changes nothing" for text in _unknown(columns.unknown(named))]
        )
    found = [f"filter: {text}" for text in _unknown(columns.unknown(rule.filtered))]
    live = columns.mask(Available(True))
    count = int(live.sum())
    if not (live & columns.mask(rule.filtered)).any():
        effect = EMPTY if rule.kind == ONLY else "the rule changes nothing now"
        return [*found, f"filter: it matches none of the {count:,} live items: {effect}"]
    if rule.kind not in (BLOCK, ONLY):
        return found
    left = live & _allowed(rule, columns)
    if not left.any():
        return [*found, f"filter: it leaves none of the {count:,} live items: {EMPTY}"]
    for other in others:
        if other.rule != rule.rule and other.kind in (BLOCK, ONLY) and other.meets(rule):
            allowed = live & _allowed(other, columns)
            if allowed.any() and not (left & allowed).any():
                found.append(
                    f"with the rule {other.rule!r}, it leaves no live item: slates to which both apply are empty"
                )
    return found


def _of_pin(item: str, columns: Columns) -> str:
    lacking = _unknown(columns.unknown(Named(ITEM, (item,))))
    why = lacking[0] if lacking else f"the item {item!r} is not live"
    return f"item: {why}: it is not shown until it is live"


def _allowed(rule: Active, columns: Columns) -> NDArray[np.bool_]:
    if rule.filtered is None:
        return columns.mask(Available(True))
    mask = columns.mask(rule.filtered)
    return mask if rule.kind == ONLY else ~mask


def _unknown(found: dict[str, list[str]]) -> list[str]:
    return [_LACKING[member].format(_names(names)) for member, names in found.items()]


def _names(names: Sequence[str]) -> str:
    more = f" and {len(names) - NAMED:,} more" if len(names) > NAMED else ""
    return f"{', '.join(repr(name) for name in names[:NAMED])}{more}"
