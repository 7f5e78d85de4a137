"""`freshet learn --activate` beside a running worker: it captures, trains, judges and publishes, and the worker switches."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path

import polars as pl
import pytest
from kafka import KafkaProducer

from deploy.clients.arguments import client_arguments
from deploy.verify import Scope, run
from models.data import DataSet, Message, event_messages, generate, item_messages
from models.evaluation.gate import DAY
from stream.settings import Settings
from tests.activations import bundle_log, made_by
from tests.learn_process import learned
from tests.settings import LONG_SESSION, World
from tests.worker_process import WorkerProcess, all_committed, until

pytestmark = [pytest.mark.integration, pytest.mark.long, pytest.mark.timeout(900)]

OPTIONS = ("--epochs", "1", "--judge-users", "3", "--ratio", "0.1", "--fall", "1", "--update", "head")


def send(settings: Settings, messages: Iterable[Message]) -> None:
    producer = KafkaProducer(acks="all", **client_arguments(settings))
    for message in messages:
        producer.send(settings.prefix + message.topic, key=message.key, value=message.value)
    producer.flush()
    producer.close()


def of_days(data: DataSet, since: int, until_: int) -> Iterable[Message]:
    """The events of days, counted from the first one."""
    begin = int(data.events["time"][0]) // DAY
    day = pl.col("time") // DAY - begin
    return event_messages(replace(data, events=data.events.filter((day >= since) & (day < until_))).events)


def test_a_worker_switches_to_what_was_learned_while_it_ran(world: World, tmp_path: Path) -> None:
    settings = world(**LONG_SESSION | {"partitions": 2})
    data = generate(users=120, items=80, events=14)
    send(settings, [*item_messages(data.items), *of_days(data, 0, 20)])
    first = learned(settings, tmp_path, *OPTIONS)["bundle"]
    current = tmp_path / "bundles" / "CURRENT"
    assert current.read_text().strip() == first
    worker = WorkerProcess(settings, tmp_path, bundles=tmp_path / "bundles").start()
    try:
        worker.wait_ready()
        send(settings, of_days(data, 20, 22))
        all_committed(settings, worker)
        said = learned(settings, tmp_path, *OPTIONS, "--activate")
        assert (said["outcome"], said["update"]) == ("published", "head"), said
        newest = bundle_log(settings).newest
        assert newest is not None
        assert (newest.bundle, newest.reason) == (said["bundle"], "freshet learn: head update")
        assert current.read_text().strip() == first, "an activation takes its place"
        until(lambda: worker.runs() and worker.metric("freshet_bundle_activation") == newest.number, 120, worker.tail)
        send(settings, of_days(data, 22, 24))
        all_committed(settings, worker)
        made = made_by(settings, first)
        assert made[first] > 100
        assert made[said["bundle"]] > 5
        again = learned(settings, tmp_path, *OPTIONS, "--activate")
        assert again["outcome"] == "published", "the next turn starts from what is activated"
        until(lambda: worker.runs() and worker.metric("freshet_bundle_activation") > newest.number, 120, worker.tail)
    finally:
        worker.close()
    report = run(settings, wait=30, scope=Scope(bundle=tmp_path / "bundles", swap_limit=120))
    assert (report.violations, report.exit_code, report.numbers_unverifiable) == ([], 0, 0)
