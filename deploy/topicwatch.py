"""Watching, beside a worker at work, that its source topics stay the ones that it started with.

A topic that is deleted and made anew under a running worker has the same name and partitions; its offsets begin again, and
where it is filled fast enough a consumer reads on in it as if nothing had happened. Only the topic's id tells.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Final

from deploy import topics
from stream.errors import BrokerError, FreshetError, LossError, TopologyError
from stream.fatal import fatal
from stream.settings import Settings

EVERY: Final = 5.0  # seconds between two looks
TWICE: Final = 2  # looks that a topic must be missing: a broker that has just started may not know it yet


class TopicWatch(threading.Thread):
    """ids: source topic -> its id at the start. Ends the process as a worker does, with LossError or TopologyError."""

    def __init__(self, settings: Settings, ids: dict[str, str], end: Callable[[FreshetError], object] = fatal) -> None:
        super().__init__(name="topics", daemon=True)
        self._settings = settings
        self._ids = ids
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

    def look(self) -> None:
        """Raises LossError where a topic was made anew, TopologyError where one is gone, BrokerError where no broker answers."""
        now = topics.ids(self._settings)
        for topic, known in self._ids.items():
            if topic in now and now[topic] != known:
                raise LossError(
                    f"topic {topic} was made anew: it has the id {now[topic]}, and had {known} when this worker started; "
                    "offsets of the two cannot be compared; use another app_id, or bring the old topic back"
                )
        gone = sorted(self._ids.keys() - now.keys())
        self._missing = self._missing + 1 if gone else 0
        if self._missing >= TWICE:
            raise TopologyError(f"topic {', '.join(gone)} is missing: `freshet topics create` makes it")

    def stop(self) -> None:
        self._over.set()
