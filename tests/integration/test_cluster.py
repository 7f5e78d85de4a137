"""`freshet broker start --nodes 3`: a cluster from start to stop, and what is made in it."""

from __future__ import annotations

import json
import os
import signal
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from kafka.admin import ConfigFilterType, ConfigResource, ConfigResourceType

from deploy.clients import admin
from deploy.embedded_kafka import at
from stream.settings import load
from tests.integration.test_broker import freshet, refused
from tests.worker_process import until

pytestmark = [pytest.mark.integration, pytest.mark.long]


@pytest.fixture
def home(kafka: Any, tmp_path: Path) -> Iterator[Path]:
    """A folder for a cluster of this test's own, ended with it; `kafka` has already fetched the jars."""
    folder = tmp_path / "kafka"
    yield folder
    at(folder).stop()


def test_three_nodes_live_from_start_to_stop_and_keep_three_copies(home: Path) -> None:
    started = freshet("broker", "start", "--nodes", "3", "--dir", home, "--port", "0", "--json")
    assert started.returncode == 0, started.stderr
    figures = json.loads(started.stdout)
    assert figures["running"]
    assert len(set(figures["pids"])) == len(set(figures["brokers"].split(","))) == 3
    refused(
        freshet("broker", "start", "--nodes", "3", "--dir", home),
        69,
        "a cluster is already running",
        figures["brokers"],
    )
    refused(freshet("broker", "start", "--nodes", "2", "--dir", home), 69, "contains a cluster of 3 nodes, not of 2")
    refused(freshet("broker", "start", "--dir", home), 69, "contains a cluster", "--nodes")

    settings = load(brokers=figures["brokers"], partitions=2)
    assert len(admin.create(settings)) == len(admin.topics(settings))
    _kept_thrice(settings)

    os.kill(figures["pids"][1], signal.SIGKILL)
    until(lambda: freshet("broker", "status", "--dir", home).returncode == 1, 10, "one node of three is gone")
    assert freshet("broker", "status", "--dir", home).stdout.startswith("2 of 3 nodes are running: ")
    again = freshet("broker", "start", "--nodes", "3", "--dir", home, "--json")
    assert again.returncode == 0, again.stderr
    now = json.loads(again.stdout)
    assert now["brokers"] == figures["brokers"], "the others know it by its ports"
    assert [one == other for one, other in zip(now["pids"], figures["pids"], strict=True)] == [True, False, True]

    assert freshet("broker", "stop", "--dir", home).stdout == "broker stopped\n"
    assert freshet("broker", "status", "--dir", home).stdout == "no broker is running here\n"
    until(lambda: not any(Path(f"/proc/{pid}").exists() for pid in now["pids"]), 30, "no node is left, nor its entry")


def _kept_thrice(settings: Any) -> None:
    """Every topic has three copies, two of which must have a record before it is acknowledged."""
    names = [topic.name for topic in admin.topics(settings)]
    with admin.admin(settings) as client:
        for topic in client.describe_topics(names):
            assert {len(one["replica_nodes"]) for one in topic["partitions"]} == {3}, topic["name"]
        resources = [ConfigResource(ConfigResourceType.TOPIC, name) for name in names]
        configs = client.describe_configs(resources, config_filter=ConfigFilterType.ALL)["topic"]
    assert {configs[name]["min.insync.replicas"]["value"] for name in names} == {"2"}
