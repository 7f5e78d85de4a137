"""Tally, worker and check together: epochs are counted while events come in, slates name them, all of it can be recomputed."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import msgspec
import pytest

from deploy.clients.log_reader import KafkaLog
from deploy.clients.producer import Producer
from deploy.verify import Report, Scope, check
from stream.core.keys import ANYONE_KEY
from stream.settings import Settings
from tests.tally_process import TallyProcess, closings
from tests.worker_process import Events, WorkerProcess, all_committed, read_all, slates, until

pytestmark = pytest.mark.integration


@pytest.fixture
def shop(world: Callable[..., Settings], bundles: Path, tmp_path: Path) -> Iterator[tuple[WorkerProcess, TallyProcess]]:
    settings = world(partitions=2)
    worker = WorkerProcess(settings, tmp_path, bundles=bundles)
    tally = TallyProcess(settings, tmp_path, bundles=bundles, tally_epoch_seconds=0.5)
    yield worker, tally
    worker.close()
    tally.close()


def test_slates_follow_the_epochs_and_all_of_it_is_recomputed(
    shop: tuple[WorkerProcess, TallyProcess], bundles: Path
) -> None:
    worker, tally = shop
    settings = worker.settings
    with closing(Events(settings, 1, users=20, items=40)) as events:
        events.send_items()
        worker.start()
        tally.start()
        worker.wait_ready()
        tally.wait_ready()

        def newest() -> int:
            """Sends some events -> the newest epoch that a slate names."""
            events.send(40)
            all_committed(settings, worker)
            return max((slate.get("tables", 0) for slate in slates(settings)), default=0)

        until(lambda: tally.runs() and newest() >= 3, 90, "slates of a third epoch")
        all_committed(settings, worker)
    assert worker.terminate() == 0
    assert tally.terminate() == 0
    named = {slate.get("tables", 0) for slate in slates(settings)}
    last = closings(settings)[-1]
    assert 0 in named  # of the first slates: the bundle's own
    assert max(named) <= last.epoch
    with closing(KafkaLog(settings)) as log:
        report = check(log, settings, scope=Scope(tables=True, bundle=bundles, users=0))
    assert not report.kinds, report.violations
    assert (report.table_epoch, report.table_rows) == (last.epoch, last.rows)
    assert report.ranked > 0


def test_the_slate_for_unknown_users_shows_what_is_trending_and_is_recomputed(
    world: Callable[..., Settings], bundles: Path, tmp_path: Path
) -> None:
    settings = world(partitions=2, popular_by="trending")
    worker = WorkerProcess(settings, tmp_path, bundles=bundles)
    tally = TallyProcess(
        settings, tmp_path, bundles=bundles, tally_epoch_seconds=0.5, tally_half_life=365, tally_prior_half_life=30
    )
    day = 86_400_000
    with closing(Events(settings, 1, users=20, items=40)) as events:
        events.send_items()
        now = int(time.time() * 1000)
        for number in range(300):  # item-1 was chosen most, but a year ago; item-2 is chosen now
            item, ago = ("item-1", 365) if number % 3 else ("item-2", 0)
            events.put(*events.one(kind="click", item=item, time=now - ago * day - number))
        events.producer.flush()
        worker.start().wait_ready()
        tally.start().wait_ready()

        def shown() -> dict[str, Any]:
            """The newest slate for unknown users."""
            return slates(settings, "*")[-1]

        until(lambda: "tables" in shown() and shown()["items"][0]["item"] == "item-2", 90, "a slate by an epoch")
        all_committed(settings, worker)
    assert worker.terminate() == 0
    assert tally.terminate() == 0
    slate = shown()
    assert slate["strategy"] == "popularity"
    assert next(one["score"] for one in slate["items"] if one["item"] == "item-1") == 0
    assert not recomputed(settings, bundles).kinds
    slate["items"][0]["score"] *= 1.001
    with Producer(settings) as producer:
        record = [one for one in read_all(settings, settings.recommendations_topic) if one.key == ANYONE_KEY][-1]
        value = msgspec.json.encode(slate)
        producer.position(producer.send(record.topic, record.key, value, record.headers, record.partition))
    assert set(recomputed(settings, bundles).kinds) == {"ranking"}


def recomputed(settings: Settings, bundles: Path) -> Report:
    with closing(KafkaLog(settings)) as log:
        return check(log, settings, scope=Scope(bundle=bundles, users=0))
