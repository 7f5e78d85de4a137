"""Tables from the stream on a real broker: workers and gateways follow the epochs, slates name them, verify checks them."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from deploy.verify import Report, Scope, run
from stream.core.tables import CLOSED_KEY, row_key
from stream.settings import Settings
from tests.epochs import Epochs, row
from tests.gateway_process import GatewayProcess
from tests.settings import QUICK
from tests.worker_process import Events, WorkerProcess, all_committed, slates, until

pytestmark = pytest.mark.integration

ITEMS = 50
USERS = 12
NEW = ("new-1", "new-2", "new-3")
"""Items that came after training."""


class Shop:
    """Events of some users, items, and epochs."""

    def __init__(self, settings: Settings) -> None:
        self.settings = settings
        self.users = [f"user{number}" for number in range(USERS)]
        self.events = Events(settings, seed=3, users=USERS, items=ITEMS)
        self.epochs = Epochs(settings)
        self.events.send_items()
        for name in NEW:
            body = json.dumps({"item": name, "title": f"A title of {name}"}).encode()
            self.events.producer.send(settings.items_topic, key=name.encode(), value=body)
        self.events.producer.flush()

    def live(self, worker: WorkerProcess, item: str = "item-3") -> None:
        """One click of each user, finished."""
        for user in self.users:
            self.events.put(*self.events.one(user=user, kind="click", item=item))
        self.events.producer.flush()
        all_committed(self.settings, worker)

    def verify(self, bundles: Path) -> Report:
        return run(self.settings, wait=30, scope=Scope(bundle=bundles, users=0))

    def slates(self) -> list[dict[str, Any]]:
        return [one for one in slates(self.settings) if one["user"] != "*"]

    def newest(self) -> list[dict[str, Any]]:
        """The newest slate of each user."""
        return list({one["user"]: one for one in self.slates()}.values())


def names(slate: dict[str, Any]) -> list[str]:
    return [one["item"] for one in slate["items"]]


def near_new(epochs: Epochs, count: int = 2) -> int:
    """An epoch in which all new items follow item-3."""
    return epochs.write([row("item-3", dict.fromkeys(NEW, 50), count), *(row(name) for name in NEW)], created=now())


def now() -> int:
    return int(time.time() * 1000)


@pytest.fixture
def shop(world: Callable[..., Settings]) -> Iterator[Shop]:
    found = Shop(world(**QUICK))
    yield found
    found.events.close()


def test_a_worker_and_a_gateway_follow_the_epochs(shop: Shop, bundles: Path, tmp_path: Path) -> None:
    worker = WorkerProcess(shop.settings, tmp_path, bundles=bundles).start()
    gateway = GatewayProcess(shop.settings, tmp_path, bundles=bundles).start()
    try:
        worker.wait_ready()
        gateway.wait_ready()
        shop.live(worker)
        assert all("tables" not in one for one in shop.slates()), "as before: the bundle's own"
        assert (worker.metric("freshet_tables_epoch"), "tables" in gateway.slate("user1").body) == (0, False)
        assert near_new(shop.epochs) == 1
        until(lambda: worker.metric("freshet_tables_epoch") == 1, 30, "the worker uses epoch 1")
        assert 0 <= worker.metric("freshet_tables_age_seconds") < 60
        shop.live(worker)
        assert len(shop.newest()) == USERS
        for slate in shop.newest():
            assert slate["tables"] == 1
            assert set(NEW) <= set(names(slate)), "items that came after training have neighbours"
        until(lambda: gateway.slate("user1").body.get("tables") == 1, 30, "the gateway uses epoch 1")
        answer = gateway.slate("user1", "explain=true").body
        parts = next(one for one in answer["items"] if one["item"] == NEW[0])["explanation"]
        assert {one["item"] for one in parts["neighbours"]} == {"item-3"}

        shop.epochs.send(row_key("item-4"), b"{")
        shop.epochs.write([row("item-5")])
        until(lambda: worker.metric("freshet_tables_refused_total", reason="incomplete") == 1, 30, "epoch 2 is refused")
        assert worker.metric("freshet_tables_refused_total", reason="malformed_json") == 1
        shop.live(worker, "item-7")
        assert {slate["tables"] for slate in shop.newest()} == {1}, "the epoch before goes on"
        shop.epochs.write([row("item-4"), row("item-3", {"item-20": 50})], gone=NEW)
        until(lambda: worker.metric("freshet_tables_epoch") == 3, 30, "once the row is whole, epoch 3 is used")
        assert worker.terminate() == 0

        worker.start().wait_ready()
        assert worker.metric("freshet_tables_epoch") == 3, "it starts with the newest epoch"
        shop.live(worker)
        for slate in shop.newest():
            assert slate["tables"] == 3
            assert "item-20" in names(slate)
        report = shop.verify(bundles)
        assert (report.exit_code, report.violations, report.notes) == (0, [], [])
        assert report.ranked >= 4 * USERS
    finally:
        gateway.close()
        worker.close()


def test_with_the_setting_bundle_nothing_changes(shop: Shop, bundles: Path, tmp_path: Path) -> None:
    near_new(shop.epochs)
    worker = WorkerProcess(shop.settings, tmp_path, bundles=bundles, tables="bundle").start().wait_ready()
    try:
        shop.live(worker)
        assert worker.metric("freshet_tables_epoch") == 0
        assert all("tables" not in one for one in shop.slates())
    finally:
        worker.close()


def test_a_closing_record_that_is_malformed_keeps_the_epoch(shop: Shop, bundles: Path, tmp_path: Path) -> None:
    near_new(shop.epochs)
    worker = WorkerProcess(shop.settings, tmp_path, bundles=bundles).start().wait_ready()
    try:
        shop.epochs.send(CLOSED_KEY, b"{}")
        until(lambda: worker.metric("freshet_tables_refused_total", reason="missing_field") == 1, 30, "it is refused")
        assert worker.metric("freshet_tables_epoch") == 1
        assert near_new(shop.epochs, 3) == 2
        until(lambda: worker.metric("freshet_tables_epoch") == 2, 30, "the next one is used")
    finally:
        worker.close()


@pytest.mark.faults
@pytest.mark.parametrize(
    ("mutant", "kind", "message"),
    [
        ("names_epochs_to_come", "epoch-unknown", "of the tables, but the newest is 2"),
        (
            "goes_back_to_old_tables",
            "epoch-stale",
            "it names epoch 1 of the tables, but the same worker named epoch 2 before",
        ),
        ("scores_with_its_own_tables", "ranking", "but it scores"),
    ],
)
def test_a_mutant_is_red_by_name(
    shop: Shop, bundles: Path, tmp_path: Path, mutant: str, kind: str, message: str
) -> None:
    worker = WorkerProcess(shop.settings, tmp_path, bundles=bundles, mutant=mutant)
    try:
        near_new(shop.epochs)
        worker.start().wait_ready()
        shop.live(worker)
        near_new(shop.epochs, 3)
        until(lambda: worker.metric("freshet_tables_epoch") == 2, 30, "the worker uses epoch 2")
        for item in range(4, 16):
            shop.live(worker, f"item-{item}")
        assert worker.terminate() == 0
        report = shop.verify(bundles)
        assert set(report.kinds) == {kind}, report.violations
        assert any(message in one.message for one in report.violations), report.violations
    finally:
        worker.close()
