"""Which items has nobody put on the topic `items`? Looked up beside a send, in bounded time."""

from __future__ import annotations

import threading
from collections.abc import Callable, Collection
from typing import Final, Protocol

from kafka.errors import KafkaError

from deploy.clients.log_reader import KafkaLog, Log
from deploy.clients.printable import printable
from deploy.clients.published_items import catalogued
from stream.core.errors import FreshetError, TopologyError
from stream.settings import Settings

WAIT: Final = 2.0
"""Seconds that a send waits for the answer after its own acknowledgement."""

MOST: Final = 100_000
"""Offsets of the topic that are read at most: Kafka finds no record by its key, so all have to be read, 50,000 a second or so."""

NAMED: Final = 3


class Open(Log, Protocol):
    """A log that is to be closed."""

    def close(self) -> None: ...


def opened(settings: Settings) -> Open:
    return KafkaLog(settings)


def missing(log: Log, topic: str, items: Collection[str]) -> set[str]:
    """Those of `items` that the topic does not have, by its acceptable records; none where it has more than MOST records.

    Raises TopologyError where the topic is missing, BrokerError.
    """
    spans = log.spans([topic])
    if sum(span.end - span.start for span in spans.values()) > MOST:
        return set()
    found = catalogued(log, topic, spans, {item.encode() for item in items})
    return {item for item in items if found.get(item) is None}


class Look:
    """Begins at once, in a thread that never holds the command's end up."""

    def __init__(
        self, settings: Settings, items: Collection[str], open_log: Callable[[Settings], Open] | None = None
    ) -> None:
        self._settings = settings
        self._items = items
        self._open = open_log or opened
        self._said = ""
        self._thread = threading.Thread(target=self._look, name="items", daemon=True)
        self._thread.start()

    def warning(self, seconds: float = WAIT) -> str:
        """One line for a person; "" where all items are there, or where it is not known within `seconds`."""
        self._thread.join(seconds)
        return "" if self._thread.is_alive() else self._said

    def _look(self) -> None:
        try:
            log = self._open(self._settings)
            try:
                lacking = missing(log, self._settings.items_topic, self._items)
            finally:
                log.close()
        except TopologyError as error:
            self._said = str(error)
        except (FreshetError, KafkaError, OSError):
            return  # the send itself says what the broker fails at; a right to read is not asked of who only sends
        else:
            self._said = _told(self._settings.items_topic, sorted(lacking)) if lacking else ""


def _told(topic: str, lacking: list[str]) -> str:
    names = ", ".join(f"'{printable(name)}'" for name in lacking[:NAMED])
    more = f" and {len(lacking) - NAMED:,} more" if len(lacking) > NAMED else ""
    return (
        f"the topic {topic} has no item{'s' if len(lacking) > 1 else ''} {names}{more}: the event is taken, but such an item is "
        "never recommended, and one that the bundle does not know either says next to nothing about the user; "
        "freshet send item --item ID --title TITLE announces it"
    )
