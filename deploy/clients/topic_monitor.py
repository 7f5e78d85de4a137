"""Watching, beside a worker at work, that its topics stay the ones that it started with, and as it needs them.

A topic that is deleted and created again under a running worker has the same name and partitions. A source's offsets begin
again, and where it is filled fast enough a consumer reads on in it as if nothing had happened; a producer does so in any case.
Only the topic's id tells.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Mapping
from typing import Final

from deploy.clients import admin
from stream.core.errors import BrokerError, FreshetError, LossError
from stream.process.fatal import fatal
from stream.settings import Settings

log = logging.getLogger("freshet.topics")

EVERY: Final = 4.0  # seconds between two looks: with the second look at what is missing, 10 s at most
TWICE: Final = 2  # looks that a topic must be missing: a broker that has just started may not know it yet


class TopicWatch(threading.Thread):
    """ids: topic -> its id at the start. Ends the process as a worker does, with LossError or TopologyError."""

    def __init__(
        self, settings: Settings, ids: Mapping[str, str], end: Callable[[FreshetError], object] = fatal
    ) -> None:
        super().__init__(name="topics", daemon=True)
        self._settings = settings
        self._ids = dict(ids)
        self._end = end
        self._missing = 0
        self._over = threading.Event()

    def run(self) -> None:
        while not self._over.wait(EVERY):
            try:
                self.look()
            except BrokerError:
                pass  # the worker's own clients wait for the broker, and say so
            except FreshetError as error:
                self._end(error)
                return
            except (
                Exception
            ):  # a client that fell over its broker's end, say: a watch that ended would see nothing more
                log.warning("the topics could not be looked at", exc_info=True)

    def look(self) -> None:
        """Raises LossError where a topic was recreated, TopologyError where one is gone or no longer as it must be, BrokerError
        where no broker answers."""
        now = admin.look(self._settings)
        for topic, known in self._ids.items():
            if now.ids.get(topic, known) != known:
                raise LossError(
                    f"topic {topic} was recreated: it has the id {now.ids[topic]}, and had {known} when this worker started; "
                    + _meaning(self._settings, topic)
                )
        self._missing = self._missing + 1 if now.missing else 0
        if self._missing >= TWICE:
            admin.refuse_missing(now.missing)
        admin.refuse_wrong(now.wrong)

    def stop(self) -> None:
        self._over.set()


def _meaning(settings: Settings, topic: str) -> str:
    """What is gone with the old topic, and what comes next."""
    if topic in settings.sources:
        return "offsets of the two cannot be compared; use another app_id, or bring the old topic back"
    return {
        settings.changelog_topic: "the states are gone; see --accept-loss, or bring the old topic back",
        settings.items_topic: "the items of before are in no topic; the next start reads the new one alone",
        settings.recommendations_topic: "the slates of before are gone; after the next start each event brings a new one",
        settings.dead_letters_topic: "the dead letters of before are gone; the next start goes on",
    }[topic]
