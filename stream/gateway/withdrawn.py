"""Slates that must not be forwarded any more: they show an item that must no longer be shown, as far as the gateway knows."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Final

import msgspec

from stream.core.messages import Scored
from stream.core.recommendable import Recommendable
from stream.core.rules import RuleSet
from stream.gateway.items import ItemCatalogue
from stream.settings import DEFAULT_PLACEMENT


class Head(msgspec.Struct):
    """What is read of a slate."""

    seq: int
    items: list[Scored]
    placement: str = DEFAULT_PLACEMENT


_HEAD: Final = msgspec.json.Decoder(Head)


class Withdrawn:
    """Knows what slates may show now.

    Args:
        catalogue: The items.
        rules: Returns the rules in force.
    """

    def __init__(self, catalogue: ItemCatalogue, rules: Callable[[], RuleSet]) -> None:
        self._catalogue = catalogue
        self._rules = rules
        self._may: Recommendable | None = None

    def found(self, user: bytes, value: bytes) -> Head | None:
        """Return the head of a slate if it shows an item that must no longer be shown; else None.

        Args:
            user: The user's key.
            value: The slate, as `stream.gateway.slates.slate_of` returns it.
        """
        snapshot, rules, now = self._catalogue.snapshot, self._rules(), int(time.time() * 1000)
        if self._may is None or not self._may.is_now(snapshot, rules, now):
            self._may = Recommendable(snapshot, rules, now)
        head = _HEAD.decode(value)
        return head if self._may.withdrawn(user, head.seq, [one.item for one in head.items]) else None
