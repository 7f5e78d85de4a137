"""Which items a slate may show at one moment, and which items of a slate it may show no longer. Pure.

An item can be recommended if it is live and no rule of kind `block` or `only` leaves it out. Rules with a scene are not
considered: published slates have no scene.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from stream.core.features import UNKNOWN
from stream.core.fold import Catalogue
from stream.core.rules import BLOCK, EVERYBODY, ONLY, Active, RuleSet

Mask = NDArray[np.bool_]


class Recommendable:
    """The items that can be recommended, for everybody and for single users.

    Args:
        catalogue: The items.
        rules: The rules in force.
        now_ms: Epoch ms: rules hold from a time and until a time.
    """

    def __init__(self, catalogue: Catalogue, rules: RuleSet, now_ms: int) -> None:
        self.catalogue = catalogue
        self.rules = rules
        self._applying = applying(rules, now_ms)
        self._allowed = catalogue.bias == 0
        self._particular: list[tuple[Active, Mask]] = []
        for rule in self._applying:
            left_out = _left_out(rule, catalogue)
            if rule.audience == EVERYBODY:
                self._allowed &= ~left_out
            else:
                self._particular.append((rule, left_out))
        self._flags = self._allowed.tobytes()  # one byte a row: a lookup is faster than in an array

    def is_now(self, catalogue: Catalogue, rules: RuleSet, now_ms: int) -> bool:
        """Return whether it would be the same of this catalogue, these rules and this time."""
        if catalogue is not self.catalogue:
            return False
        return rules is self.rules and applying(rules, now_ms) == self._applying

    def withdrawn(self, user: bytes, seq: int, items: Sequence[str]) -> list[str]:
        """Return those of the items that a user's slate may not show, in their order.

        Args:
            user: The user's key.
            seq: The number of the user's events.
            items: The items of a slate.
        """
        flags, rows = self._flags, self.catalogue.rows_of(items)
        masks = [left_out for rule, left_out in self._particular if rule.audience.has(user, seq)]
        if not masks:
            if all(map(flags.__getitem__, rows)):
                return []
            return [item for item, row in zip(items, rows, strict=True) if not flags[row]]
        return [
            item
            for item, row in zip(items, rows, strict=True)
            if not flags[row] or any(left_out[row] for left_out in masks)
        ]  # fmt: skip

    def lost_since(self, before: Recommendable) -> bool:
        """Return whether an item that somebody's slate could show before must no longer be shown.

        It may be true without a reason when the catalogue was copied to a larger matrix.
        """
        known = {rule for rule, _ in before._particular}
        if any(rule not in known for rule, _ in self._particular):
            return True
        if not np.may_share_memory(before.catalogue.items, self.catalogue.items):
            return True
        size = len(before._allowed)
        gone = np.flatnonzero(before._allowed & ~self._allowed[:size])
        if any(not self._may_show(before.catalogue.item(row)) for row in gone.tolist()):  # a new text has a new row
            return True
        if self.catalogue is before.catalogue:
            return False
        masks = dict(before._particular)
        return any(
            bool((left_out[:size] & ~masks[rule]).any() or left_out[size:].any()) for rule, left_out in self._particular
        )

    def _may_show(self, item: str) -> bool:
        row = self.catalogue.row(item)
        return row != UNKNOWN and bool(self._allowed[row])


def applying(rules: RuleSet, now_ms: int) -> tuple[Active, ...]:
    """Return the rules of kind block and only that hold now, for some or all users, in slates without a scene."""
    return tuple(
        rule
        for rule in rules.rules
        if rule.kind in (BLOCK, ONLY) and rule.scene is None and rule.since <= now_ms < rule.until
    )


def _left_out(rule: Active, catalogue: Catalogue) -> Mask:
    if rule.filtered is None:
        return np.zeros(len(catalogue.bias), np.bool_)
    mask = catalogue.columns.mask(rule.filtered)
    return mask if rule.kind == BLOCK else ~mask
