"""Forget a user on a real Kafka, with a real worker and gateway: nothing of the user is left, and the check agrees."""

from __future__ import annotations

import json
import subprocess
import sys
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import rocksdict
from kafka.admin import ConfigResource, ConfigResourceType

from deploy.clients import admin
from deploy.clients.log_reader import KafkaLog
from deploy.verify import Scope, check
from stream.core.forgetting import user_hash
from stream.settings import Settings, load
from tests.gateway_process import GatewayProcess
from tests.worker_process import Events, WorkerProcess, all_committed, environment, read_all, slates, until

pytestmark = pytest.mark.integration

ANN = "ann-of-green-gables"


class Shop:
    """A worker, a gateway and their events."""

    def __init__(self, settings: Settings, folder: Path, bundles: Path) -> None:
        self.settings = settings
        self.worker = WorkerProcess(settings, folder, bundles=bundles)
        self.gateway = GatewayProcess(settings, folder, bundles=bundles)
        self.events = Events(settings, seed=3, users=8)

    def live(self, user: str, count: int) -> None:
        for _ in range(count):
            self.events.put(*self.events.one(user))
        self.events.producer.flush()
        all_committed(self.settings, self.worker)

    def newest(self, topic: str, user: str) -> Any:
        """The user's last record in a topic."""
        found = [record for record in read_all(self.settings, topic) if record.key == user.encode()]
        return found[-1] if found else None

    def deleted(self, user: str) -> bool:
        newest = self.newest(self.settings.changelog_topic, user)
        return newest is not None and newest.value is None

    def forget(self, user: str, *more: str) -> dict[str, Any]:
        run = subprocess.run(
            [sys.executable, "-m", "deploy.cli", "forget", user, "--json", *more],
            env=environment(self.settings), capture_output=True, text=True, check=True, timeout=120,
        )  # fmt: skip
        found: dict[str, Any] = json.loads(run.stdout)
        return found

    def verify(self) -> Any:
        log = KafkaLog(self.settings)
        try:
            return check(log, self.settings, scope=Scope(data_dirs=(self.worker.data_dir,)))
        finally:
            log.close()


@pytest.fixture
def shop(kafka: Any, bundles: Path, tmp_path: Path) -> Iterator[Shop]:
    name = uuid.uuid4().hex[:8]
    settings = load(brokers=kafka.bootstrap, prefix=f"{name}-", app_id=f"{name}-app", partitions=2)
    admin.create(settings)
    made = Shop(settings, tmp_path, bundles)
    made.worker.start()
    made.gateway.start()
    made.events.send_items()
    made.worker.wait_ready()
    made.gateway.wait_ready()
    yield made
    made.gateway.close()
    made.worker.close()
    made.events.close()


def test_a_user_is_forgotten_and_begins_again(shop: Shop) -> None:
    shop.live(ANN, 6)
    shop.events.send(40)
    others = {slate["user"] for slate in slates(shop.settings)}
    assert shop.gateway.slate(ANN).body["strategy"] == "interest"

    asked = shop.gateway.ask("DELETE", f"/v1/users/{ANN}")
    assert asked.status == 202, asked
    assert len(asked.body["records"]) == 3
    after = shop.gateway.slate(ANN, f"min_offset={asked.body['min_offset'].split(',')[0]}")
    assert (after.status, after.body["strategy"], after.body["seq"]) == (200, "popularity", 0)
    until(lambda: shop.deleted(ANN), 30, "the tombstone in the changelog")
    assert shop.newest(shop.settings.recommendations_topic, ANN).value is None
    until(lambda: shop.gateway.ask("GET", f"/v1/users/{ANN}").status == 404, 10, "the gateway to follow")

    audits = [json.loads(record.value) for record in read_all(shop.settings, shop.settings.forgotten_topic)]
    assert {one["record"] for one in audits} == set(asked.body["records"])
    assert {(one["user_hash"], one["by"]) for one in audits} == {(user_hash(ANN.encode(), shop.settings.app_id), "api")}
    assert ANN not in json.dumps(audits)

    shop.live(ANN, 2)
    newest = max(slates(shop.settings, ANN), key=lambda slate: slate["time"])
    assert newest["seq"] == 2
    until(lambda: shop.gateway.slate(ANN).body["seq"] == 2, 10, "the gateway to know the new user")
    assert shop.worker.metric("freshet_events_total", outcome="forgotten") >= 3
    assert shop.worker.metric("freshet_state_deletes_total") >= 1

    assert shop.worker.terminate() == 0
    report = shop.verify()
    assert (report.exit_code, report.conserved, report.violations) == (0, True, [])
    assert report.users == len(others | {ANN})
    assert report.forgotten == 6 + 3


def test_the_command_waits_for_the_worker(shop: Shop) -> None:
    shop.live(ANN, 3)
    found = shop.forget(ANN, "--by", "ticket 7")
    assert (found["forgotten"], found["known"]) == (True, True)
    until(lambda: shop.deleted(ANN), 30, "the tombstone in the changelog")
    (by,) = {json.loads(record.value)["by"] for record in read_all(shop.settings, shop.settings.forgotten_topic)}
    assert by == "ticket 7"
    shown = subprocess.run(
        [sys.executable, "-m", "deploy.cli", "recommendations", "--user", ANN, "--json"],
        env=environment(shop.settings), capture_output=True, text=True, check=True, timeout=60,
    )  # fmt: skip
    assert json.loads(shown.stdout)["strategy"] == "popularity"


def test_the_command_says_when_there_is_nobody_to_forget(shop: Shop) -> None:
    shop.live(ANN, 1)
    for user, code, said in (
        ("ann.typo", 0, "no slate of this user was there"),
        ("*", 2, "expected an id of 1 to 256 characters other than `*`"),
        ("", 2, "expected an id of 1 to 256 characters other than `*`"),
    ):
        run = subprocess.run(
            [sys.executable, "-m", "deploy.cli", "forget", user], env=environment(shop.settings),
            capture_output=True, text=True, check=False, timeout=120,
        )  # fmt: skip
        assert run.returncode == code
        assert said in " ".join(run.stderr.replace("│", " ").split())
    assert shop.worker.metric("freshet_dead_letters_total") == 0


def bytes_below(folder: Path, wanted: bytes) -> list[Path]:
    return [path for path in folder.rglob("*") if path.is_file() and wanted in path.read_bytes()]


def compact(folder: Path, pattern: str) -> None:
    """Compact every database that matches to the last level, as RocksDB does by itself within its 30 days."""
    options = rocksdict.CompactOptions()
    options.set_bottommost_level_compaction(rocksdict.BottommostLevelCompaction.force())
    for path in folder.glob(pattern):
        for _ in range(2):  # the second opening writes a new manifest, which names no file of before
            database = rocksdict.Rdict(str(path), options=rocksdict.Options(raw_mode=True))
            database.flush()
            database.compact_range(None, None, options)
            database.close()


@pytest.mark.long
def test_nothing_is_left_after_compaction_also_with_kills(shop: Shop, bundles: Path) -> None:
    """Bytes of the user in the folders of worker and gateway, in the changelog and in the recommendations."""
    shop.live(ANN, 20)
    shop.events.send(200)
    shop.forget(ANN, "--wait", "0")
    for _ in range(3):  # at whatever step it is
        until(lambda: shop.worker.metric("freshet_events_total") >= 1, 60, "some event")
        shop.worker.kill()
        shop.worker.start().wait_ready()
        shop.events.send(20)
    all_committed(shop.settings, shop.worker)
    until(lambda: shop.deleted(ANN), 60, "the tombstone in the changelog")
    until(lambda: shop.gateway.ask("GET", f"/v1/users/{ANN}").status == 404, 10, "the gateway to follow")

    topics = [shop.settings.changelog_topic, shop.settings.recommendations_topic]
    quick = {
        "segment.ms": "1000", "min.cleanable.dirty.ratio": "0.001", "delete.retention.ms": "0",
        "max.compaction.lag.ms": "1000",
    }  # fmt: skip
    with admin.admin(shop.settings) as client:
        client.alter_configs([ConfigResource(ConfigResourceType.TOPIC, topic, quick) for topic in topics])

    def cleaned() -> bool:
        shop.events.send(8)  # the active segment is never compacted
        return not any(record.key == ANN.encode() for topic in topics for record in read_all(shop.settings, topic))

    until(cleaned, 180, "the topics to be compacted")
    all_committed(shop.settings, shop.worker)
    assert shop.worker.terminate() == 0
    assert shop.gateway.terminate() == 0
    for folder, pattern in ((shop.worker.data_dir, "**/*.db"), (shop.gateway.replica_dir, "states-*")):
        assert list(folder.glob(pattern))
        compact(folder, pattern)
        assert bytes_below(folder, ANN.encode()) == []
    report = shop.verify()
    assert (report.violations, report.lost, report.double) == ([], 0, 0)
