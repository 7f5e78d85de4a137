"""Records that were deleted before they were read: the worker stops and names them, unless told to go on."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from shutil import rmtree

import pytest
from kafka import KafkaAdminClient, TopicPartition

from deploy.clients.arguments import client_arguments
from stream.settings import Settings
from tests.chaos.source_topics import remake
from tests.worker_process import Events, WorkerProcess

pytestmark = [pytest.mark.integration, pytest.mark.faults]


def test_a_committed_offset_below_the_logs_start(world: Callable[..., Settings], bundles: Path, tmp_path: Path) -> None:
    settings = world(partitions=1)
    worker = WorkerProcess(settings, tmp_path, bundles=bundles).start().wait_ready()
    events = Events(settings, seed=4)
    admin = KafkaAdminClient(**client_arguments(settings))
    clicks = settings.sources[0]
    try:
        for _ in range(20):
            events.put(*events.one(kind="click"))
        events.producer.flush()
        worker.wait_applied(20)
        assert worker.terminate() == 0
        for _ in range(30):
            events.put(*events.one(kind="click"))
        events.producer.flush()
        admin.delete_records({TopicPartition(clicks, 0): 35})
        worker.start()
        assert worker.wait(60) == 76
        criticals = [line for line in worker.lines() if line["level"] == "CRITICAL"]
        assert len(criticals) == 1
        assert f"{clicks} partition 0" in criticals[0]["message"]
        assert "20 to 34" in criticals[0]["message"]
        accepting = WorkerProcess(settings, tmp_path, bundles=bundles, accept_loss=True).start().wait_ready()
        accepting.wait_applied(15)  # those that are left
        assert accepting.metric("freshet_accepted_loss_records_total") == 15
        assert accepting.terminate() == 0
    finally:
        admin.close()
        events.close()
        worker.close()


def test_an_emptied_changelog(world: Callable[..., Settings], bundles: Path, tmp_path: Path) -> None:
    settings = world(partitions=1)
    worker = WorkerProcess(settings, tmp_path, bundles=bundles).start().wait_ready()
    events = Events(settings, seed=5)
    accepting = WorkerProcess(settings, tmp_path, "accepting", bundles=bundles, accept_loss=True)
    try:
        events.put(*events.one(kind="click"))
        events.producer.flush()
        worker.wait_applied(1)
        assert worker.terminate() == 0
        remake(settings, settings.changelog_topic)
        rmtree(worker.data_dir)
        worker.start()
        assert worker.wait(60) == 76
        (criticals,) = [line for line in worker.lines() if line["level"] == "CRITICAL"]
        assert f"{settings.changelog_topic} partition 0 is empty" in criticals["message"]
        accepting.start().wait_ready()
        assert accepting.metric("freshet_accepted_loss_records_total") == 1
        assert accepting.terminate() == 0
    finally:
        events.close()
        worker.close()
        accepting.close()
