"""Has published bundles served by an activation: workers take them while they run (docs/swap.md)."""

from __future__ import annotations

import time
from pathlib import Path

from deploy.clients import activations
from deploy.clients.log_reader import KafkaLog
from deploy.clients.producer import Producer
from deploy.learning.learn import ByCurrent
from stream.core import bundle_log
from stream.settings import Settings


class ByTopic:
    """The newest activation in the topic `bundles` decides which bundle is served; without one, the file CURRENT."""

    by_current = False

    def __init__(self, settings: Settings, bundles: Path) -> None:
        self._settings = settings
        self._current = ByCurrent(bundles)

    def bundle(self) -> str:
        """See deploy.learning.learn.Serving. Raises BrokerError, TopologyError."""
        log = KafkaLog(self._settings)
        try:
            newest = activations.followed(log, self._settings).newest
        finally:
            log.close()
        return newest.bundle if newest else self._current.bundle()

    def switch(self, bundle: str, reason: str) -> None:
        """Write the activation and wait until Kafka has it. Raises BrokerError."""
        record = bundle_log.Activate(bundle, int(time.time() * 1000), bundle_log.sentence(reason))
        with Producer(self._settings) as producer:
            sent = producer.send(self._settings.bundles_topic, bundle_log.key_of(record), bundle_log.encode(record))
            producer.position(sent)
