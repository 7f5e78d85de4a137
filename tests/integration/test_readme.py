"""The README's Python examples, run as they stand against a real broker and a real worker.

Only what a test run must have of its own is replaced: the broker's address and the topic names, which carry a prefix.
"""

from __future__ import annotations

import ast
import json
import re
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from deploy.verify import run as verify
from stream.settings import Settings
from tests.settings import with_own_topics
from tests.worker_process import Events, WorkerProcess, until

ROOT = Path(__file__).parents[2]
TOPICS = ("clicks", "ratings", "comments", "items", "recommendations")


def example(word: str) -> str:
    """The README's one Python example that holds `word`."""
    blocks = re.findall(r"^```python\n(.*?)^```", (ROOT / "README.md").read_text(), re.MULTILINE | re.DOTALL)
    (found,) = [block for block in blocks if word in block]
    return str(found)


def adapted(code: str, settings: Settings) -> str:
    """The example with this run's broker and topics."""
    ast.parse(code)
    assert code.count('"127.0.0.1:9092"') == 1
    code = code.replace("127.0.0.1:9092", settings.brokers)
    for topic in TOPICS:
        code = re.sub(rf'(?<!\[)"{topic}(["/])', rf'"{settings.prefix}{topic}\1', code)
    return code


def run(code: str, folder: Path) -> str:
    script = folder / "example.py"
    script.write_text(code)
    done = subprocess.run([sys.executable, str(script)], capture_output=True, text=True, timeout=120, cwd=folder)
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.fixture(scope="module")
def worker(
    kafka: Any, bundles: Path, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[tuple[Settings, WorkerProcess]]:
    """One ready worker, items item-1 to item-50 live."""
    settings = with_own_topics(kafka.bootstrap, bundles=bundles)
    events = Events(settings)
    events.send_items(f"item-{number}" for number in range(1, 51))
    events.close()
    process = WorkerProcess(settings, tmp_path_factory.mktemp("readme")).start()
    try:
        yield settings, process.wait_ready()
    finally:
        process.close()


@pytest.mark.integration
@pytest.mark.parametrize("client", ["from kafka import KafkaConsumer", "from confluent_kafka import"])
def test_send_an_event_and_read_the_slate(client: str, worker: tuple[Settings, WorkerProcess], tmp_path: Path) -> None:
    settings, _ = worker
    out = run(adapted(example(client), settings), tmp_path)
    printed = re.fullmatch(r"(\[.*\]) (\d+) ms\n", out)
    assert printed, out
    items, latency = printed.groups()
    slate = ast.literal_eval(items)
    assert len(slate) == settings.slate_size
    assert len(set(slate)) == settings.slate_size
    assert int(latency) < 10_000


@pytest.mark.integration
def test_a_new_item_becomes_known_to_the_worker(worker: tuple[Settings, WorkerProcess], tmp_path: Path) -> None:
    settings, process = worker

    def live() -> float:
        return process.metric("freshet_catalogue_items", state="live")

    before = live()
    run(adapted(example("new-1"), settings), tmp_path)
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
