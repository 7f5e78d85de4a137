"""Define the data set that every reader produces: a table of events in time order, and the items.

Columns of `events`: user str | item str | behaviour u8 (index in BEHAVIOURS) | time i64 (epoch ms) | value f64 (NaN:
none) | text str ("": none) | scene str ("": none) | action str (what the user did with a click; "": none) | id str (the
event's own id, as in freshet's messages; "": none). Events with the same time are ordered by a fixed hash, never by
file order: files are often sorted by item, and that order would reveal the next item.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from hashlib import blake2b, sha256
from time import time_ns
from typing import Any, Final, NamedTuple

import msgspec
import polars as pl

from models.data.checked import check_items, checked_events
from stream.core.features import ACTIONS, CHOICES
from stream.core.messages import CLICK, COMMENT, RATING, SOURCE_TOPICS, Item
from stream.core.validation import Rules

SCHEMA: Final = {
    "user": pl.String,
    "item": pl.String,
    "behaviour": pl.UInt8,
    "time": pl.Int64,
    "value": pl.Float64,
    "text": pl.String,
    "scene": pl.String,
    "action": pl.String,
    "id": pl.String,
}
LATER: Final = ("action", "id")
"""Columns that the tables of earlier callers lack. They are then filled with ""."""
NAN: Final = math.nan


class Event(NamedTuple):
    """One row of the table of events, as readers build it."""

    user: str
    item: str
    behaviour: int
    time: int
    value: float = NAN
    text: str = ""
    scene: str = ""
    action: str = ""
    id: str = ""


class Message(NamedTuple):
    """A message that a producer sends.

    `topic` has no prefix; `key` and `value` are the bytes of stream.core.messages.
    """

    topic: str
    key: bytes
    value: bytes


@dataclass(frozen=True)
class DataSet:
    """A data set: its events and items.

    Attributes:
        name: Name for people.
        events: Table as above, in time order.
        items: The catalogue.
        rating_scale: (min, max).
        timed: Can times be compared between users?
        choices: Topics whose events count as choices (models/data/choices.py).
        weights: Weights of actions (models/data/choices.py).
        form: The form that it was read as, "" for none.
        notes: Decisions of the reader that people should know about.
        oldest: Where the oldest time is and how it is written there, "" if the reader does not know it.
    """

    name: str
    events: pl.DataFrame
    items: tuple[Item, ...]
    rating_scale: tuple[float, float]
    timed: bool = True
    choices: tuple[str, ...] = CHOICES
    weights: tuple[tuple[str, float], ...] = ACTIONS
    form: str = ""
    notes: tuple[str, ...] = ()
    oldest: str = ""

    @property
    def scenes(self) -> tuple[str, ...]:
        """Return the scenes that occur, sorted. "" means no scene and is left out."""
        return tuple(sorted(set(self.events["scene"].unique().to_list()) - {""}))


def dataset(
    name: str,
    events: Sequence[Event] | pl.DataFrame,
    items: Sequence[Item],
    rating_scale: tuple[float, float],
    *,
    timed: bool = True,
    now_ms: int | None = None,
    notes: tuple[str, ...] = (),
) -> DataSet:
    """Build a data set from rows in any order.

    If no items are given, the items of the events are the catalogue, without titles. A table may lack the columns
    `action` and `id`; its events then have no action and no id. Events and items are checked by the same rules as
    messages in Kafka (stream.core.validation).

    Args:
        now_ms: Epoch ms, by default the current time.

    Raises:
        DataError: An event or an item is not acceptable. The error names the field, what was found and what was
            expected.
    """
    now_ms = time_ns() // 1_000_000 if now_ms is None else now_ms
    if isinstance(events, pl.DataFrame):
        events = events.with_columns(pl.lit("").alias(name) for name in LATER if name not in events.columns)
    table = in_order(checked_events(name, events, SCHEMA, Rules(rating_scale), now_ms))
    check_items(name, items)
    if not items:
        items = [Item(item, "") for item in sorted(set(table["item"].to_list()), key=by_number)]
    return DataSet(name, table, tuple(items), rating_scale, timed, notes=notes)


def in_order(events: pl.DataFrame) -> pl.DataFrame:
    """Return the events sorted by time, then by the fixed hash.

    The rest of the row orders events with the same hash.
    """
    tied = events["time"].is_duplicated()  # for the others a hash would not change the order
    columns = (events[name].filter(tied).to_list() for name in ("user", "item", "behaviour", "time"))
    hashes = pl.Series("hash", [tie(*row) for row in zip(*columns, strict=True)], pl.UInt64)
    last = [name for name in LATER if (events[name] != "").any()]  # if all are "", the order stays as it always was
    column = pl.Series("hash", [0], pl.UInt64).new_from_index(0, len(events)).scatter(tied.arg_true(), hashes)
    return events.with_columns(column).sort("time", "hash", "text", "value", *last).drop("hash")


def tie(user: str, item: str, behaviour: int, time: int) -> int:
    """Return the sort key of an event among those with the same time: 64 bits that say nothing about the item."""
    identity = "\0".join((user, item, str(behaviour), str(time)))
    return int.from_bytes(blake2b(identity.encode(), digest_size=8).digest(), "big")


def fingerprint(events: pl.DataFrame) -> str:
    """Return the sha256 (hex) of the events in their order.

    An event without an action is hashed as it was before actions existed. Ids are left out because models do not learn
    from them.
    """
    digest = sha256()
    for *before, action in events.select(name for name in SCHEMA if name != "id").iter_rows():
        digest.update(repr((*before, action) if action else tuple(before)).encode())
    return digest.hexdigest()


def event_id(event: Event) -> str:
    """Return an id that depends only on the content of the event, not on its own id or on the events around it.

    Topics hold these ids for years, so how they are made must not change.
    """
    content = msgspec.json.encode(event[:-1])  # NaN becomes null
    return f"replay-{blake2b(content, digest_size=16).hexdigest()}"


def event_messages(events: pl.DataFrame, *, ids: bool = False) -> Iterator[Message]:
    """Yield events as the messages of stream.core.messages, in order. Fields without a value are left out.

    Args:
        events: The table of events.
        ids: Give each message an id: the event's own, or else `event_id`. If false, no message has an id.
    """
    for row in events.iter_rows():
        user, item, behaviour, time, value, text, scene, action, own = event = Event(*row)
        body: dict[str, Any] = {"user": user, "item": item, "time": time}
        if ids:
            body["id"] = own or event_id(event)
        if behaviour == COMMENT:
            body["text"] = text
        if behaviour == RATING or (behaviour != CLICK and not math.isnan(value)):
            body["value"] = value
        if scene:
            body["scene"] = scene
        if action:
            body["action"] = action
        yield Message(SOURCE_TOPICS[behaviour], user.encode(), msgspec.json.encode(body))


def item_messages(items: Iterable[Item]) -> Iterator[Message]:
    """Yield items as messages of the topic `items`."""
    for item in items:
        body: dict[str, Any] = {"item": item.item, "title": item.title}
        body |= {"text": item.text} if item.text else {}
        body |= {"categories": item.categories} if item.categories else {}
        body |= {"scenes": item.scenes} if item.scenes else {}
        body |= {} if item.available else {"available": False}
        body |= {"attributes": item.attributes} if item.attributes else {}
        yield Message("items", item.item.encode(), msgspec.json.encode(body))


def by_number(item: str) -> tuple[int, str]:
    """Return a sort key for ids: numbers come first, in numeric order, and the others follow by name."""
    return (int(item), "") if item.isdecimal() else (1 << 62, item)
