"""What the topic `items` says now of the items in a slate, which may be older than a change."""

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
    """items: as deploy.clients.published_items gives them; end: the offset behind the last one that was looked at."""

    items: Mapping[str, Item | None]
    end: int

    def mark(self, item: str) -> str:
        """REMOVED, UNAVAILABLE or LIVE. An item of a slate that the topic does not have was removed, and compaction has taken its
        tombstone away: workers recommend only what was there."""
        found = self.items.get(item)
        if found is None:
            return REMOVED
        return LIVE if found.available else UNAVAILABLE

    def title(self, item: str) -> str:
        """Its title; "" for an item that is not there."""
        found = self.items.get(item)
        return found.title if found else ""

    def newer_than(self, catalogue: int) -> bool:
        """Whether it has seen more than a slate that took in the topic up to this offset."""
        return catalogue < self.end - 1


def opened(settings: Settings) -> Open:
    return KafkaLog(settings)


def whole(settings: Settings) -> ItemsNow:
    """The topic, however large it is. Raises BrokerError, TopologyError."""
    log = opened(settings)
    try:
        return _read(log, settings.items_topic)
    finally:
        log.close()


class Look:
    """Begins at once, in a thread that never holds the command's end up; reads no topic of more than MOST offsets."""

    def __init__(self, settings: Settings, open_log: Callable[[Settings], Open] | None = None) -> None:
        self._settings = settings
        self._open = open_log or opened
        self._found: ItemsNow | None = None
        self.why = ""
        """Why nothing was found, for a person."""
        self._thread = threading.Thread(target=self._look, name="items", daemon=True)
        self._thread.start()

    def found(self, seconds: float = WAIT) -> ItemsNow | None:
        """What the topic says; None where that is not known within `seconds`."""
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
                    self.why = f"the topic {topic} has more than {MOST:,} offsets; --titles reads it whole"
                else:
                    self._found = _read(log, topic)
            finally:
                log.close()
        except (FreshetError, KafkaError, OSError) as error:
            self.why = str(error)  # who may read slates alone is shown slates


def _read(log: Log, topic: str) -> ItemsNow:
    spans = log.spans([topic])
    return ItemsNow(catalogued(log, topic, spans), max((span.end for span in spans.values()), default=0))
