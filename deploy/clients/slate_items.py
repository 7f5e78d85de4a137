"""Reads the current state of a slate's items from the topic `items`. The slate may be older than a change."""

from __future__ import annotations

import threading
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Final

from kafka.errors import KafkaError

from deploy.clients.log_reader import KafkaLog, Log
from deploy.clients.missing_items import MOST, WAIT, Open
from deploy.clients.published_items import REMOVED, UNAVAILABLE, catalogued
from stream.core.errors import FreshetError
from stream.core.messages import Item
from stream.settings import Settings

LIVE: Final = ""


@dataclass(frozen=True)
class ItemsNow:
    """The items as they are now.

    Attributes:
        items: Item id -> its newest acceptable record, from deploy.clients.published_items.
        end: The offset after the last record that was read.
    """

    items: Mapping[str, Item | None]
    end: int

    def mark(self, item: str) -> str:
        """Return REMOVED, UNAVAILABLE or LIVE.

        If the topic does not have an item of a slate, the item was removed and compaction has deleted its tombstone: workers
        recommend only items that were there.
        """
        found = self.items.get(item)
        if found is None:
            return REMOVED
        return LIVE if found.available else UNAVAILABLE

    def title(self, item: str) -> str:
        """Return the item's title; "" if the item is not there."""
        found = self.items.get(item)
        return found.title if found else ""

    def newer_than(self, catalogue: int) -> bool:
        """Return whether this is newer than a slate that was made with the topic up to this offset."""
        return catalogue < self.end - 1


def opened(settings: Settings) -> Open:
    return KafkaLog(settings)


def whole(settings: Settings) -> ItemsNow:
    """Read the whole topic, however large it is. Raises BrokerError, TopologyError."""
    log = opened(settings)
    try:
        return _read(log, settings.items_topic)
    finally:
        log.close()


class Look:
    """Reads the items. It starts immediately, in a thread that does not delay the end of the command.

    It does not read a topic of more than MOST offsets.
    """

    def __init__(self, settings: Settings, open_log: Callable[[Settings], Open] | None = None) -> None:
        self._settings = settings
        self._open = open_log or opened
        self._found: ItemsNow | None = None
        self.why = ""
        """Why nothing was found, as a line for the terminal."""
        self._thread = threading.Thread(target=self._look, name="items", daemon=True)
        self._thread.start()

    def found(self, seconds: float = WAIT) -> ItemsNow | None:
        """Return the items; None if they are not known within `seconds`."""
        self._thread.join(seconds)
        if self._thread.is_alive():
            self.why = (
                f"the topic {self._settings.items_topic} was not read within {seconds:g} s; --titles waits for it"
            )
            return None
        return self._found

    def _look(self) -> None:
        topic = self._settings.items_topic
        try:
            log = self._open(self._settings)
            try:
                if sum(span.end - span.start for span in log.spans([topic]).values()) > MOST:
                    self.why = f"the topic {topic} has more than {MOST:,} offsets; --titles reads all of it"
                else:
                    self._found = _read(log, topic)
            finally:
                log.close()
        except (FreshetError, KafkaError, OSError) as error:
            self.why = str(error)  # a user who may read only slates still gets the slates


def _read(log: Log, topic: str) -> ItemsNow:
    spans = log.spans([topic])
    return ItemsNow(catalogued(log, topic, spans), max((span.end for span in spans.values()), default=0))
