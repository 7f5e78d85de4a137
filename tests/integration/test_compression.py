"""Workers that compress what they send: a gateway, a worker that reads back, and `freshet verify` read it all."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
from kafka import KafkaAdminClient

from deploy.clients.arguments import client_arguments
from deploy.verify import Scope, run
from stream.settings import Settings
from tests.gateway_process import GatewayProcess
from tests.settings import QUICK, World
from tests.worker_process import Events, WorkerProcess, all_committed, read_all, slates, until

pytestmark = [pytest.mark.integration, pytest.mark.long]


def test_everybody_reads_what_is_compressed(world: World, bundles: Path, tmp_path: Path) -> None:
    settings = world(**QUICK | {"changelog_compression": "zstd", "slate_compression": "gzip"})
    events = Events(settings, seed=1, users=12)
    worker = WorkerProcess(settings, tmp_path, bundles=bundles)
    gateway = GatewayProcess(settings, tmp_path, bundles=bundles)
    try:
        events.send_items()
        worker.start().wait_ready()
        gateway.start().wait_ready()
        for _ in range(2):
            events.send(2_000)
            all_committed(settings, worker)
            newest = {one["user"]: one for one in sorted(slates(settings), key=lambda one: int(one["seq"]))}
            for user, slate in newest.items():
                until(lambda u=user, s=slate: gateway.slate(u).body["chain"] == s["chain"], 20, "the same state")  # type: ignore[misc]
            assert worker.terminate() == 0
            shutil.rmtree(worker.data_dir)
            worker.start().wait_ready()
        assert stored(settings, settings.changelog_topic) < 0.6
        assert stored(settings, settings.recommendations_topic) < 0.6
        report = run(settings, wait=30, scope=Scope())
        assert (report.exit_code, report.violations) == (0, [])
    finally:
        gateway.close()
        worker.close()
        events.close()


def stored(settings: Settings, topic: str) -> float:
    """Bytes that the broker has of a topic, as a share of those of its keys and values."""
    client = KafkaAdminClient(**client_arguments(settings))
    try:
        (broker,) = client.describe_log_dirs([topic])
    finally:
        client.close()
    partitions = [one for folder in broker["log_dirs"] for found in folder["topics"] for one in found["partitions"]]
    lying = sum(int(one["partition_size"]) for one in partitions)
    return lying / sum(len(one.key or b"") + len(one.value or b"") for one in read_all(settings, topic))
