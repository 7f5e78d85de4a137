"""Slates stay until they are replaced, however long their users do nothing: what is a week elsewhere is a second here."""

from __future__ import annotations

import time
from pathlib import Path

import pytest
from kafka import KafkaConsumer, TopicPartition
from kafka.admin import ConfigResource, ConfigResourceType

from deploy.clients.admin import admin
from deploy.clients.arguments import client_arguments
from deploy.embedded_kafka import EmbeddedKafka
from stream.settings import Settings
from tests.settings import with_own_topics
from tests.worker_process import Events, WorkerProcess, slates, until

pytestmark = [pytest.mark.integration, pytest.mark.faults]

CONTROL = "control"
EXPIRES = {"retention.ms": "1000", "segment.ms": "200"}
OFTEN = (
    "log.retention.check.interval.ms=200\nlog.segment.delete.delay.ms=100\nlog.cleaner.backoff.ms=200\n"
    "log.initial.task.delay.ms=100\n"
)


class Expiring(EmbeddedKafka):
    """A broker that looks for what has expired several times a second, where others do every five minutes."""

    def _write(self, port: int) -> None:
        super()._write(port)
        with (self.directory / "server.properties").open("a") as out:
            out.write(OFTEN)


def expires(settings: Settings) -> None:
    """Everything that a worker lets expire does, within a second; and so does a topic that is looked at to know that it did."""
    with admin(settings) as client:
        control = {"num_partitions": 1, "replication_factor": 1, "configs": EXPIRES | {"cleanup.policy": "delete"}}
        client.create_topics({CONTROL: control})
        for topic in (settings.recommendations_topic, settings.items_topic, settings.changelog_topic):
            client.alter_configs([ConfigResource(ConfigResourceType.TOPIC, topic, EXPIRES)])


def retention_ran(settings: Settings, events: Events) -> None:
    """What was written to the control topic as of now is gone."""
    tp = TopicPartition(CONTROL, 0)
    end = events.producer.send(CONTROL, b"x").get(30).offset
    consumer = KafkaConsumer(**client_arguments(settings))

    def gone() -> bool:
        events.producer.send(CONTROL, b"x").get(30)  # the segment that is written to never expires: this begins another
        events.send(1)
        return bool(consumer.beginning_offsets([tp])[tp] > end)

    try:
        until(gone, 60, "retention has deleted what was there")
    finally:
        consumer.close()


def test_slates_outlive_every_retention(bundles: Path, tmp_path: Path) -> None:
    with Expiring(tmp_path / "kafka") as kafka:
        settings = with_own_topics(kafka.bootstrap, partitions=1)
        expires(settings)
        events = Events(settings, users=3)
        worker = WorkerProcess(settings, tmp_path, bundles=bundles).start()
        try:
            events.send_items()
            worker.wait_ready()
            sent = events.put(settings.sources[0], {"user": "ada", "item": "item-1", "time": int(time.time() * 1000)})
            sent.get(30)
            until(lambda: slates(settings, "ada"), 30, "ada has a slate")
            before = slates(settings, "ada")[-1]
            retention_ran(settings, events)
            retention_ran(settings, events)
            assert slates(settings, "ada")[-1] == before
            assert slates(settings, "*"), "the slate for anyone unknown"
            assert worker.ready()
            assert worker.terminate() == 0
            worker.start().wait_ready()
            again = {"user": "ada", "item": "item-2", "time": int(time.time() * 1000)}
            events.put(settings.sources[0], again).get(30)
            until(lambda: slates(settings, "ada")[-1]["seq"] == before["seq"] + 1, 30, "her state was kept, too")
        finally:
            events.close()
            worker.close()
