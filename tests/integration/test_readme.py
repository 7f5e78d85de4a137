"""The examples that README and docs show, run as the files stand against a real broker and a real worker.

tests/unit/test_examples.py holds that what is shown is the file. The topics have no prefix, as in the examples.
"""

from __future__ import annotations

import ast
import json
import re
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from deploy.verify import run as verify
from stream.settings import Settings
from tests.conftest import ROOT
from tests.settings import with_topics
from tests.worker_process import Events, WorkerProcess, until

EXAMPLES = ROOT / "examples"


def run(name: str, settings: Settings, folder: Path) -> str:
    """What the example prints, given this run's broker. It must end with 0."""
    code = (EXAMPLES / name).read_text()
    ast.parse(code)
    assert code.count('"127.0.0.1:9092"') == 1
    done = subprocess.run(
        [sys.executable, str(EXAMPLES / name), settings.brokers],
        capture_output=True, text=True, timeout=120, cwd=folder, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.fixture(scope="module")
def worker(
    kafka: Any, bundles: Path, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[tuple[Settings, WorkerProcess]]:
    """One ready worker, items item-1 to item-50 live."""
    settings = with_topics(kafka.bootstrap, app_id="readme-app", bundles=bundles)
    events = Events(settings)
    events.send_items(f"item-{number}" for number in range(1, 51))
    events.close()
    process = WorkerProcess(settings, tmp_path_factory.mktemp("readme")).start()
    try:
        yield settings, process.wait_ready()
    finally:
        process.close()


@pytest.mark.integration
@pytest.mark.long  # a client tries for half a minute
@pytest.mark.parametrize("name", ["send_event_kafka_python.py", "send_event_confluent.py"])
def test_send_an_event_and_read_the_slate(name: str, worker: tuple[Settings, WorkerProcess], tmp_path: Path) -> None:
    settings, _ = worker
    out = run(name, settings, tmp_path)
    printed = re.fullmatch(r"(\[.*\]) (\d+) ms\n", out)
    assert printed, out
    items, latency = printed.groups()
    slate = ast.literal_eval(items)
    assert len(slate) == settings.slate_size
    assert len(set(slate)) == settings.slate_size
    assert int(latency) < 10_000


@pytest.mark.integration
@pytest.mark.long  # a client tries for half a minute
@pytest.mark.parametrize("name", ["send_event_kafka_python.py", "send_event_confluent.py", "send_item.py"])
def test_without_a_broker_an_example_ends_with_one_line_that_says_what_to_do(name: str) -> None:
    with socket.socket() as bound:
        bound.bind(("127.0.0.1", 0))
        brokers = f"127.0.0.1:{bound.getsockname()[1]}"  # nobody listens there
        done = subprocess.run(
            [sys.executable, str(EXAMPLES / name), brokers], capture_output=True, text=True, timeout=120, check=False
        )
    assert (done.returncode, done.stdout) == (1, "")
    (line,) = done.stderr.splitlines()
    assert line.startswith("not sent: ")
    assert line.endswith(f": does a broker run on {brokers}? (freshet broker start)")


@pytest.mark.integration
def test_a_new_item_becomes_known_to_the_worker(worker: tuple[Settings, WorkerProcess], tmp_path: Path) -> None:
    settings, process = worker

    def live() -> float:
        return process.metric("freshet_catalogue_items", state="live")

    before = live()
    assert run("send_item.py", settings, tmp_path).startswith("item new-1 sent to items/0/")
    until(lambda: live() == before + 1, 10, "the new item is live")


@pytest.mark.integration
def test_librdkafka_without_the_partitioner_loses_nothing(worker: tuple[Settings, WorkerProcess]) -> None:
    """What lies on a wrong partition is sent on, as docs/clients.md says."""
    from confluent_kafka import Producer

    def finished(outcome: str) -> float:
        return process.metric("freshet_events_total", behaviour="click", outcome=outcome)

    settings, process = worker
    before = {outcome: finished(outcome) for outcome in ("applied", "forwarded")}
    producer = Producer({"bootstrap.servers": settings.brokers})
    for user in map(str, range(40)):
        event = {"user": user, "item": "item-1", "time": int(time.time() * 1000)}
        producer.produce(settings.sources[0], key=user, value=json.dumps(event))
    assert producer.flush(30) == 0
    until(lambda: finished("applied") == before["applied"] + 40, 30, "all are applied")
    assert 20 < finished("forwarded") - before["forwarded"] < 40
    assert process.metric("freshet_dead_letters_total") == 0
    sent_on = [line for line in process.lines() if "are forwarded" in line["message"]]
    assert len(sent_on) == 1, "one warning per minute"
    assert "partitioner=murmur2_random" in sent_on[0]["message"]
    report = verify(settings, wait=30)
    assert report.exit_code == 0, report.violations
    assert report.forwarded == finished("forwarded")
