"""What the topic `items` says of each item: the newest record that a worker takes, as stream.catalogue.catalogue folds them."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import TYPE_CHECKING, Final

from deploy.clients.log_reader import Log, Place, Span
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
    log: Log, topic: str, spans: Mapping[Place, Span], wanted: Collection[bytes] | None = None
) -> dict[str, Item | None]:
    """Item id -> its newest acceptable record within the spans, None for a tombstone. An item without any is not in it.

    wanted: keys of the items that are meant; None: all. Raises BrokerError.
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
            continue  # no worker takes it in: what was there before stays
        if item is None or item.item == name:
            found[name] = item
    return found


def items_there(log: Log, topic: str, messages: Collection[Message]) -> dict[str, str]:
    """Which items of a data set the topic has in any form -> how each stands there: REMOVED, UNAVAILABLE or CHANGED, "" where it
    is as in the data. messages: of models.data.item_messages. Raises BrokerError, TopologyError."""
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


def told(there: Mapping[str, str]) -> str:
    """One line for a person of what `items_there` found; "" for nothing."""
    if not there:
        return ""
    other = {name: how for name, how in sorted(there.items()) if how}
    line = f"{len(there):,} item{'s were' if len(there) > 1 else ' was'} there already"
    if other:
        names = ", ".join(f"'{printable(name)}' {how}" for name, how in list(other.items())[:NAMED])
        more = f" and {len(other) - NAMED:,} more" if len(other) > NAMED else ""
        line += f"; {len(other):,} of them {'are' if len(other) > 1 else 'is'} removed or otherwise than in DATA ({names}{more})"
    left = "all are left as they are" if len(there) > 1 else "it is left as it is"
    return f"{line}: {left}; --again sends them (with --limit 0 the items alone)"
