"""Finds items that are not on the topic `items`. The look-up runs in parallel with a send, in bounded time."""

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
"""Seconds that a send waits for the look-up after its own acknowledgement."""

MOST: Final = 100_000
"""The most offsets of the topic that are read. Kafka cannot find a record by its key, so all must be read, some 50,000 per
second."""

NAMED: Final = 3


class Open(Log, Protocol):
    """A log that must be closed."""

    def close(self) -> None: ...


def opened(settings: Settings) -> Open:
    return KafkaLog(settings)


def missing(log: Log, topic: str, items: Collection[str]) -> set[str]:
    """Return those of `items` that have no acceptable record in the topic; none if the topic has more than MOST records.

    Raises TopologyError if the topic is missing, BrokerError.
    """
    spans = log.spans([topic])
    if sum(span.end - span.start for span in spans.values()) > MOST:
        return set()
    found = catalogued(log, topic, spans, {item.encode() for item in items})
    return {item for item in items if found.get(item) is None}


class Reading:
    """Reads a topic for warnings. It starts immediately, in a thread that does not delay the end of the command.

    Args:
        settings: The settings.
        find: Returns the warnings, a line each.
        open_log: Opens the topics.
    """

    def __init__(
        self,
        settings: Settings,
        find: Callable[[Log], list[str]],
        open_log: Callable[[Settings], Open] | None = None,
    ) -> None:
        self._settings = settings
        self._find = find
        self._open = open_log or opened
        self._lines: list[str] = []
        self._thread = threading.Thread(target=self._read, name="items", daemon=True)
        self._thread.start()

    def lines(self, seconds: float = WAIT) -> list[str]:
        """Return the warnings; none if they are not known within `seconds`."""
        self._thread.join(seconds)
        return [] if self._thread.is_alive() else self._lines

    def _read(self) -> None:
        try:
            log = self._open(self._settings)
            try:
                self._lines = self._find(log)
            finally:
                log.close()
        except TopologyError as error:
            self._lines = [str(error)]
        except (FreshetError, KafkaError, OSError):
            return  # the send itself reports a broker's error, and a sender needs no right to read


class Look:
    """Looks up missing items while a command sends."""

    def __init__(
        self, settings: Settings, items: Collection[str], open_log: Callable[[Settings], Open] | None = None
    ) -> None:
        def find(log: Log) -> list[str]:
            lacking = missing(log, settings.items_topic, items)
            return [_warning_text(settings.items_topic, sorted(lacking))] if lacking else []

        self._reading = Reading(settings, find, open_log)

    def warning(self, seconds: float = WAIT) -> str:
        """Return one line for the terminal; "" if all items are there, or if this is not known within `seconds`."""
        return next(iter(self._reading.lines(seconds)), "")


def _warning_text(topic: str, lacking: list[str]) -> str:
    names = ", ".join(f"'{printable(name)}'" for name in lacking[:NAMED])
    more = f" and {len(lacking) - NAMED:,} more" if len(lacking) > NAMED else ""
    return (
        f"the topic {topic} has no item{'s' if len(lacking) > 1 else ''} {names}{more}: the event was accepted, but such an item "
        "is never recommended, and if the bundle does not know it either, the event has next to no effect; add it with "
        "freshet send item --item ID --title TITLE"
    )
