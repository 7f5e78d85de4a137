"""Changing an item: the newest record of the items topic, with what is given in it changed and all else as it is."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from deploy.clients.log_reader import Log, Record, Span
from deploy.clients.schema import parse
from stream.core.errors import BrokerError, DataError, RecordError
from stream.core.json_body import JsonDecoder
from stream.core.messages import Item
from stream.settings import Settings

CHUNK = 10_000  # offsets read first, from the topic's end; then twice as many, and so on

Body = dict[str, Any]


def changed(settings: Settings, log: Log, given: Mapping[str, Any]) -> Body | None:
    """The whole item after the change -> its JSON object; None where the catalogue has no such item.

    given: `item`, and the fields to be set; a field of None is dropped. What the newest record holds besides stays, fields that
    are none of ours too. Raises DataError where that record is no acceptable item, BrokerError, TopologyError.
    """
    topic, item = settings.items_topic, str(given["item"])
    try:
        record = _newest(log, topic, item.encode())
    except BrokerError as error:
        raise BrokerError(
            f"{error}; nothing is sent, for what {item!r} holds is not known: --replace sends it whole without reading"
        ) from None
    if record is None or record.value is None:
        return None
    try:
        body = _body(record.value, item)
    except RecordError as error:
        said = f"{error.field}: {error}" if error.field else f"{error}"
        raise DataError(
            f"the newest record of {item!r}, {topic}/{record.partition}/{record.offset}, is no item: {said}; nothing is sent: "
            "--replace sends it whole"
        ) from None
    return cleared({**body, **given})


def cleared(body: Mapping[str, Any]) -> Body:
    """Without the fields that are None."""
    return {name: value for name, value in body.items() if value is not None}


def _newest(log: Log, topic: str, key: bytes) -> Record | None:
    """The last record under a key, among those that were there at the call; one record in memory. Read from the end."""
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
    """Parts of a span, the last one first, each twice as long as the one before."""
    end, size = whole.end, CHUNK
    while end > whole.start:
        start = max(whole.start, end - size)
        yield Span(start, end)
        end, size = start, 2 * size


def _body(value: bytes, item: str) -> Body:
    """The record's JSON object. Raises RecordError where a worker would not take it."""
    decoder: JsonDecoder[Item] = JsonDecoder(Item)
    if decoder.decode(value).item != item:
        raise RecordError("key", "key_mismatch", "item", f"item: expected {item!r}, the record's key")
    body: Body = parse(value)
    return body
