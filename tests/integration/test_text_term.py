"""A bundle with a text term on a real broker: what a worker serves, new items too, is what `freshet verify` computes again."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest

from deploy.verify import Report, Scope, run
from stream.settings import Settings
from tests.worker_process import Events, WorkerProcess, all_committed, read_all

pytestmark = [pytest.mark.integration, pytest.mark.faults]
EVENTS = 150
USERS = 10
NEW = ("boat-1", "boat-2", "boat-3", "stocks")
"""Items that came after training, with texts of their own."""


def served(settings: Settings, bundles: Path, folder: Path, mutant: str = "") -> Report:
    """Have a worker take in EVENTS clicks, some of them of new items, stop it, and judge what it wrote."""
    worker = WorkerProcess(settings, folder, bundles=bundles, mutant=mutant)
    events = Events(settings, seed=1, users=USERS)
    try:
        events.send_items()
        for name in NEW:
            body = {"item": name, "title": f"{name}: two friends and an old wooden {name.split('-')[0]}"}
            events.producer.send(settings.items_topic, key=name.encode(), value=json.dumps(body).encode())
        for number in range(EVENTS):
            chosen = {"item": NEW[number % len(NEW)]} if number % 10 == 0 else {}
            events.put(*events.one(kind="click", **chosen))
        events.producer.flush()
        worker.start()
        all_committed(settings, worker, 240)
        assert worker.terminate() == 0
    finally:
        worker.close()
        events.close()
    return run(settings, scope=Scope(bundle=bundles))


def test_what_is_served_is_computed_again(world: Callable[..., Settings], text_bundle: Path, tmp_path: Path) -> None:
    settings = world(partitions=2)
    report = served(settings, text_bundle.parent, tmp_path)
    assert report.exit_code == 0, report.violations
    assert report.applied == EVENTS
    assert report.numbers > 0
    assert report.ranked > 0
    slates = [json.loads(record.value) for record in read_all(settings, settings.recommendations_topic) if record.value]
    shown = {scored["item"] for slate in slates for scored in slate["items"]}
    assert shown & set(NEW), "new items are among the first ten of somebody"


def test_a_worker_that_leaves_texts_out_is_red(
    world: Callable[..., Settings], text_bundle: Path, tmp_path: Path
) -> None:
    report = served(world(partitions=2), text_bundle.parent, tmp_path, "forgets_texts")
    assert report.exit_code == 1
    assert set(report.kinds) == {"ranking"}, report.violations
