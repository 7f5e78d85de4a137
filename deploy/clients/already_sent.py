"""Finds which events of a data set are in the source topics already, so that a repeated replay sends only the rest.

An event is there if a record of its user has its id: its own, or the one that is derived from its content. It is also there if a
record without an id of its own has the same content in every field that a data set holds. Earlier versions derived ids from the
whole data set, so a record with such an id is recognized by its content. Only records that a worker with these settings accepts
count.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from hashlib import blake2b
from typing import TYPE_CHECKING, Final

import numpy as np
from numpy.typing import NDArray

from deploy.clients.log_reader import Log, Record
from stream.core.decoder import EventDecoder
from stream.core.errors import RecordError
from stream.core.keys import FORMS
from stream.kafka.decoding import decoder_of
from stream.settings import Settings

if TYPE_CHECKING:
    import polars as pl

EARLIER: Final = re.compile(r"[0-9a-f]{16}-[0-9]+")
"""Ids that earlier versions made: part of the data set's fingerprint, and the event's number."""


def already_there(log: Log, settings: Settings, events: pl.DataFrame) -> set[int]:
    """Return the numbers of the events (of a data set, in its order) that the source topics hold now.

    It reads these topics as a whole. It needs 8 bytes of memory per event, or 16 if the event has an id of its own, and memory
    for what it finds. Raises BrokerError, TopologyError.
    """
    spans = log.spans(settings.sources)
    if all(span.start >= span.end for span in spans.values()):
        return set()
    wanted = np.unique(np.fromiter((_short(name) for names in _names(events) for name in names), np.uint64))
    decoder, read = decoder_of(settings), FORMS[settings.key].read
    found: set[bytes] = set()
    for behaviour, topic in enumerate(settings.sources):
        for record in log.records(topic, spans):
            name = _name_of(record, behaviour, decoder, read)
            if name and _is_in(wanted, _short(name)):
                found.add(name)
    return {number for number, names in enumerate(_names(events)) if not found.isdisjoint(names)} if found else set()


def _is_in(sorted_numbers: NDArray[np.uint64], number: int) -> bool:
    at = int(sorted_numbers.searchsorted(np.uint64(number)))
    return at < len(sorted_numbers) and int(sorted_numbers[at]) == number


def _names(events: pl.DataFrame) -> Iterator[tuple[bytes, ...]]:
    """Yield for each event the names under which a topic may hold it."""
    from models.data.dataset import Event, event_id

    for row in events.iter_rows():
        event = Event(*row)
        name = _name(event.user, event_id(event))
        yield (name, _name(event.user, event.id)) if event.id else (name,)


def _name_of(record: Record, behaviour: int, decoder: EventDecoder, read: Callable[[bytes], str]) -> bytes | None:
    """Return the name under which the topic holds the event of a record; None if no worker accepts the record."""
    from models.data.dataset import Event, event_id

    try:
        # The record's partition does not matter here: a worker forwards what lies on the wrong one. Without the headers, the id
        # is the producer's.
        partition = decoder.partition(record.key or b"")
        found = decoder.decode(behaviour, partition, record.offset, record.timestamp, record.key, record.value)
        user = read(found.user)
    except (RecordError, ValueError):
        return None
    if found.id and not EARLIER.fullmatch(found.id):
        return _name(user, found.id)
    event = Event(user, found.item, behaviour, found.time, found.value, found.text, found.scene, found.action)
    return _name(user, event_id(event))


def _name(user: str, event: str) -> bytes:
    """Return a hash of user and id: like workers, compare ids only within one user."""
    return blake2b(f"{user}\0{event}".encode(), digest_size=16).digest()


def _short(name: bytes) -> int:
    """Return the part of a name that is enough to skip most records that are not wanted."""
    return int.from_bytes(name[:8], "big")
