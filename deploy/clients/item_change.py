"""Changes an item: takes its newest record from the items topic, and changes only the given fields."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from deploy.clients.log_reader import Log, Record, Span
from deploy.clients.schema import parse
from stream.core.errors import BrokerError, DataError, RecordError
from stream.core.json_body import JsonDecoder
from stream.core.messages import Item
from stream.settings import Settings

CHUNK = 10_000  # offsets read first, from the topic's end; then twice as many each time

Body = dict[str, Any]


def changed(settings: Settings, log: Log, given: Mapping[str, Any]) -> Body | None:
    """Return the JSON object of the whole item after the change; None if the catalogue does not have the item.

    Args:
        settings: Settings of the deployment.
        log: Where the records come from.
        given: `item`, and the fields to set. A field of None is dropped. All other fields of the newest record stay, also those
            that freshet does not know.

    Raises:
        DataError: The newest record is not an acceptable item.
        BrokerError: The topic cannot be read.
        TopologyError: The topic is missing.
    """
    topic, item = settings.items_topic, str(given["item"])
    try:
        record = _newest(log, topic, item.encode())
    except BrokerError as error:
        raise BrokerError(
            f"{error}; nothing was sent, because the current fields of {item!r} are not known: --replace sends the whole item "
            "without reading it first"
        ) from None
    if record is None or record.value is None:
        return None
    try:
        body = _body(record.value, item)
    except RecordError as error:
        reason = f"{error.field}: {error}" if error.field else f"{error}"
        raise DataError(
            f"the newest record of {item!r}, {topic}/{record.partition}/{record.offset}, is not an item: {reason}; nothing was "
            "sent: --replace sends the whole item"
        ) from None
    return cleared({**body, **given})


def cleared(body: Mapping[str, Any]) -> Body:
    """Return the body without the fields that are None."""
    return {name: value for name, value in body.items() if value is not None}


def _newest(log: Log, topic: str, key: bytes) -> Record | None:
    """Return the last record with a key, among those that are there at the call.

    It reads from the end, and keeps one record in memory.
    """
    for (name, partition), whole in log.spans([topic]).items():
        for span in _backwards(whole):
            found = None
            for record in log.records(name, {(name, partition): span}):
                if record.key == key:
                    found = record
            if found is not None:
                return found
    return None


def _backwards(whole: Span) -> Iterator[Span]:
    """Yield parts of a span, the last one first, each twice as long as the one before."""
    end, size = whole.end, CHUNK
    while end > whole.start:
        start = max(whole.start, end - size)
        yield Span(start, end)
        end, size = start, 2 * size


def _body(value: bytes, item: str) -> Body:
    """Return the record's JSON object. Raises RecordError if a worker would not accept it."""
    decoder: JsonDecoder[Item] = JsonDecoder(Item)
    if decoder.decode(value).item != item:
        raise RecordError("key", "key_mismatch", "item", f"item: expected {item!r}, the record's key")
    body: Body = parse(value)
    return body
