"""What ends a block of sends: everything acknowledged, or the error that is the block's own."""

from __future__ import annotations

import pytest
from kafka.errors import KafkaTimeoutError

from deploy.clients import producer
from stream.core.errors import BrokerError
from stream.settings import Settings, load


class NeverAcknowledges:
    """kafka-python's producer where the broker has gone."""

    def __init__(self, **arguments: object) -> None:
        self.closed = 0

    def flush(self) -> None:
        raise KafkaTimeoutError("records are still on their way")

    def close(self, timeout: float | None = None) -> None:
        self.closed += 1


@pytest.fixture
def settings(monkeypatch: pytest.MonkeyPatch) -> Settings:
    monkeypatch.setattr(producer, "KafkaProducer", NeverAcknowledges)
    return load()


def test_a_block_that_ends_waits_for_all_acknowledgements(settings: Settings) -> None:
    with pytest.raises(BrokerError, match="did not acknowledge"), producer.Producer(settings):
        pass


def test_an_interrupted_block_keeps_its_own_error(settings: Settings) -> None:
    with pytest.raises(KeyboardInterrupt), producer.Producer(settings):
        raise KeyboardInterrupt
