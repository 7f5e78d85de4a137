"""An activation in the topic decides what is served, before CURRENT; publishing writes one and leaves CURRENT alone."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from deploy.learning import activation
from deploy.learning.activation import ByTopic
from stream.core import bundle_log
from stream.settings import load
from tests.unit.synthetic import Lists

OLD, NEW = "a" * 64, "b" * 64


class Kafka(Lists):
    """The topic, and a producer that writes to it."""

    def close(self) -> None:
        pass


@pytest.fixture
def topic(monkeypatch: pytest.MonkeyPatch) -> Kafka:
    settings = load()
    log = Kafka([settings.bundles_topic], partitions=1)

    class Producer:
        def __init__(self, _: Any) -> None:
            self.acknowledged = False

        def __enter__(self) -> Producer:
            return self

        def __exit__(self, *_: object) -> None:
            assert self.acknowledged, "it must be known that the record is there"

        def send(self, name: str, key: bytes, value: bytes) -> int:
            return log.append(name, 0, key, value)

        def position(self, sent: int) -> int:
            self.acknowledged = True
            return sent

    monkeypatch.setattr(activation, "KafkaLog", lambda _: log)
    monkeypatch.setattr(activation, "Producer", Producer)
    return log


def test_the_newest_activation_is_served_and_current_without_one(topic: Kafka, tmp_path: Path) -> None:
    settings = load()
    serving = ByTopic(settings, tmp_path)
    assert serving.bundle() == ""
    (tmp_path / "CURRENT").write_text(OLD + "\n")
    assert serving.bundle() == OLD
    serving.switch(NEW, "freshet learn:\nhead update")
    assert serving.bundle() == NEW
    assert (tmp_path / "CURRENT").read_text() == OLD + "\n"
    (row,) = topic.all(settings.bundles_topic)
    record = bundle_log.decode(row.key, row.value)
    assert isinstance(record, bundle_log.Activate)
    assert (record.bundle, record.reason) == (NEW, "freshet learn: head update")
    assert not serving.by_current
