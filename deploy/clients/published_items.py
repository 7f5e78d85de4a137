"""Reads the newest record of each item on the topic `items` that a worker accepts, as stream.catalogue.catalogue does."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import TYPE_CHECKING, Final

from deploy.clients.log_reader import Log, Span, TopicPartition
from deploy.clients.printable import printable
from stream.core.errors import RecordError
from stream.core.json_body import JsonDecoder
from stream.core.messages import Item

if TYPE_CHECKING:
    from models.data import Message

NAMED: Final = 3

REMOVED: Final = "removed"
UNAVAILABLE: Final = "unavailable"
CHANGED: Final = "changed"


def catalogued(
    log: Log, topic: str, spans: Mapping[TopicPartition, Span], wanted: Collection[bytes] | None = None
) -> dict[str, Item | None]:
    """Return item id -> its newest acceptable record within the spans, or None if that is a tombstone.

    Items without an acceptable record are left out.

    Args:
        log: Where the records come from.
        topic: The items topic.
        spans: The offsets to read.
        wanted: Keys of the items to look for; None: all items.

    Raises:
        BrokerError: The topic cannot be read.
    """
    decoder: JsonDecoder[Item] = JsonDecoder(Item)
    found: dict[str, Item | None] = {}
    for record in log.records(topic, dict(spans)):
        if not record.key or (wanted is not None and record.key not in wanted):
            continue
        try:
            name = str(record.key, "utf-8")
            item = None if record.value is None else decoder.decode(record.value)
        except (RecordError, UnicodeDecodeError):
            continue  # no worker accepts it: the record before it stays in force
        if item is None or item.item == name:
            found[name] = item
    return found


def items_there(log: Log, topic: str, messages: Collection[Message]) -> dict[str, str]:
    """Return those items of a data set that the topic has in any form, and how each one differs.

    Args:
        log: Where the records come from.
        topic: The items topic.
        messages: The items of the data set, from models.data.item_messages.

    Returns:
        Item id -> REMOVED, UNAVAILABLE or CHANGED; "" if it is as in the data.

    Raises:
        BrokerError: The topic cannot be read.
        TopologyError: The topic is missing.
    """
    expected = {message.key: message.value for message in messages}
    if not expected:
        return {}
    decoder: JsonDecoder[Item] = JsonDecoder(Item)
    found = catalogued(log, topic, log.spans([topic]), expected)
    return {name: _difference(item, decoder.decode(expected[name.encode()])) for name, item in found.items()}


def _difference(found: Item | None, expected: Item) -> str:
    if found is None:
        return REMOVED
    if found == expected:
        return ""
    return UNAVAILABLE if expected.available and not found.available else CHANGED


def notice(there: Mapping[str, str]) -> str:
    """Return one line for the terminal about what `items_there` found; "" if it found nothing."""
    if not there:
        return ""
    other = {name: how for name, how in sorted(there.items()) if how}
    line = f"{len(there):,} item{'s were' if len(there) > 1 else ' was'} there already"
    if other:
        names = ", ".join(f"'{printable(name)}' {how}" for name, how in list(other.items())[:NAMED])
        more = f" and {len(other) - NAMED:,} more" if len(other) > NAMED else ""
        line += f"; {len(other):,} of them {'are' if len(other) > 1 else 'is'} removed or different from DATA ({names}{more})"
    left = "all are left unchanged" if len(there) > 1 else "it is left unchanged"
    return f"{line}: {left}; --again sends them (with --limit 0 only the items)"
