"""Watches that a running worker's topics stay the same ones that it started with, and as it needs them.

A topic that is deleted and created again under a running worker has the same name and partitions. Offsets of a source topic then
begin at 0 again. If the topic fills fast enough, a consumer reads on in it as if nothing had happened. A producer always goes on.
Only the topic's id shows the change.
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

EVERY: Final = 4.0  # seconds between two checks: a missing topic, which takes two checks, is noticed within 10 s
TWICE: Final = 2  # checks in a row in which a topic must be missing: a broker that has just started may not know it yet


class TopicWatch(threading.Thread):
    """Checks the topics again and again. Ends the process as a worker does, with LossError or TopologyError.

    Args:
        settings: Settings of the deployment.
        ids: Topic -> its id when the worker started.
        end: Ends the process.
    """

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
                pass  # the worker's own clients wait for the broker, and report it
            except FreshetError as error:
                self._end(error)
                return
            except Exception:  # such as a client that fails as its broker stops: the watch must go on
                log.warning("the topics could not be checked", exc_info=True)

    def look(self) -> None:
        """Check the topics once.

        Raises:
            LossError: A topic was recreated.
            TopologyError: A topic is gone, or no longer as it must be.
            BrokerError: No broker answers.
        """
        now = admin.look(self._settings)
        for topic, known in self._ids.items():
            if now.ids.get(topic, known) != known:
                raise LossError(
                    f"topic {topic} was recreated: it has the id {now.ids[topic]}, but had {known} when this worker started; "
                    + _meaning(self._settings, topic)
                )
        self._missing = self._missing + 1 if now.missing else 0
        if self._missing >= TWICE:
            admin.refuse_missing(now.missing)
        admin.refuse_wrong(now.wrong)

    def stop(self) -> None:
        self._over.set()


def _meaning(settings: Settings, topic: str) -> str:
    """Return what is gone with the old topic, and what to do or what comes next."""
    if topic in settings.sources:
        return "the offsets of the two cannot be compared; use another app_id, or bring the old topic back"
    return {
        settings.changelog_topic: "the states are gone; see --accept-loss, or bring the old topic back",
        settings.items_topic: "the earlier items are in no topic; the next start reads only the new one",
        settings.rules_topic: "the earlier rules are in no topic; the next start reads only the new one",
        settings.tables_topic: "the earlier epochs are gone; the next start of the tally writes all rows again",
        settings.bundles_topic: "the earlier activations are gone; the next start serves the bundle that CURRENT names",
        settings.recommendations_topic: "the earlier slates are gone; after the next start each event produces a new one",
        settings.forgotten_topic: "the earlier records of who was forgotten are gone; the next start continues without them",
        settings.dead_letters_topic: "the earlier dead letters are gone; the next start continues without them",
    }[topic]
