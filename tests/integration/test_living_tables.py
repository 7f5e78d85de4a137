"""Tally, worker and check together: epochs are counted while events come in, slates name them, all of it can be recomputed."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path

import pytest

from deploy.clients.log_reader import KafkaLog
from deploy.verify import Scope, check
from stream.settings import Settings
from tests.tally_process import TallyProcess, closings
from tests.worker_process import Events, WorkerProcess, all_committed, slates, until

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
