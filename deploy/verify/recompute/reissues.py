"""Whether the items that a re-issued slate names as withdrawn could indeed no longer be shown."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from deploy.verify.recompute.items import LiveItems
from deploy.verify.recompute.rules import Effect, Rules
from stream.core.features import UNKNOWN


def without_reason(
    slate: dict[str, Any],
    live: LiveItems,
    row: Callable[[LiveItems, str], int],
    moments: Sequence[Rules],
    effect: Callable[[Rules], Effect],
) -> str:
    """Return which item was named without a reason; "" if there is none.

    Args:
        slate: The slate.
        live: The items under which it was made.
        row: Returns the row of an item; UNKNOWN if there is none.
        moments: The rules that may have applied, by when they were looked up.
        effect: What rules do to the items.
    """
    for item in slate.get("withdrawn", ()):
        at = row(live, item)
        if at == UNKNOWN or live.bias[at] != 0:
            continue
        if all(effect(rules).added[at] is not None for rules in moments):
            return f"it was re-issued without a reason: {item[:100]!r} is live, and no rule leaves it out"
    return ""
