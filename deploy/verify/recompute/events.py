"""What a step reads of one event."""

from __future__ import annotations

import math
from typing import Any, NamedTuple

COMMENT = 2


class Event(NamedTuple):
    """What a step reads of one event.

    Attributes:
        behaviour: Index of the behaviour.
        item: The item's id.
        scene: The scene; "" for none.
        value: The rating; NaN for none.
        time: Epoch ms.
        text: A comment's text; "" for none.
        action: A click's action; "" for none.
    """

    behaviour: int
    item: str
    scene: str
    value: float
    time: int
    text: str
    action: str = ""


def event_of(behaviour: int, body: dict[str, Any]) -> Event:
    """Return the event of an acceptable body."""
    value = body.get("value") if behaviour else None
    text = body.get("text") if behaviour == COMMENT else ""
    action = "" if behaviour else body.get("action")
    rating = math.nan if value is None else float(value)
    return Event(behaviour, body["item"], body.get("scene") or "", rating, int(body["time"]), text or "", action or "")
