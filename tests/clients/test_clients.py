"""Eight Kafka clients with their defaults, 20 clicks of 20 users each, on a broker of four partitions: wherever a client puts
them, a worker takes in each of them once, and `freshet verify` is green. `make clients` builds the clients.

docs/clients.md has the table that this prints (`-s`). The programs of examples/ that docs/send.md shows run here, too."""

from __future__ import annotations

import json
import subprocess
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, Final

import pytest
from confluent_kafka import Producer
from kafka import KafkaProducer
from msgspec.json import decode

from deploy.clients.murmur2 import murmur2
from deploy.embedded_kafka import EmbeddedKafka
from deploy.verify import run
from stream.core.messages import Click
from stream.settings import Settings
from tests.settings import with_own_topics, with_topics
from tests.worker_process import Events, WorkerProcess, read_all, slates, until

pytestmark = [pytest.mark.integration, pytest.mark.faults, pytest.mark.xdist_group("clients")]

BUILT: Final = Path(__file__).parents[2] / ".clients" / "bin"
CLICKS: Final = 20
PARTITIONS: Final = 4
Lines = list[tuple[str, str]]


def by_program(name: str) -> Callable[[Settings, Lines], None]:
    """Send by the program of that name in .clients/bin; skips where it is not built."""

    def send(settings: Settings, lines: Lines) -> None:
        if not (BUILT / name).exists():
            pytest.skip(f"{name} is not built: make clients")
        text = "".join(f"{key}\t{value}\n" for key, value in lines)
        command = [str(BUILT / name), settings.brokers, settings.sources[0]]
        done = subprocess.run(command, input=text, capture_output=True, text=True, timeout=120)
        assert done.returncode == 0, done.stderr

    return send


def by_kafka_python(settings: Settings, lines: Lines) -> None:
    producer = KafkaProducer(bootstrap_servers=settings.brokers)
    for key, value in lines:
        producer.send(settings.sources[0], value.encode(), key.encode()).get(30)
    producer.close()


def by_librdkafka(settings: Settings, lines: Lines) -> None:
    producer = Producer({"bootstrap.servers": settings.brokers})
    for key, value in lines:
        producer.produce(settings.sources[0], value.encode(), key.encode())
    assert producer.flush(30) == 0


CLIENTS: Final[dict[str, Callable[[Settings, Lines], None]]] = {
    "java": by_program("java-client"),
    "kafka-python": by_kafka_python,
    "kafkajs": by_program("kafkajs"),
    "franz-go": by_program("franz"),
    "rdkafka": by_program("rdkafka"),
    "confluent-kafka": by_librdkafka,
    "kcat": by_program("kcat"),
    "segmentio-kafka-go": by_program("segmentio"),
    "sarama": by_program("sarama"),
}


@pytest.fixture(scope="module")
def settings(kafka: Any) -> Settings:
    return with_own_topics(kafka.bootstrap, partitions=PARTITIONS)


@pytest.fixture(scope="module")
def worker(settings: Settings, bundles: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[WorkerProcess]:
    events = Events(settings, users=1)
    events.send_items()
    events.close()
    process = WorkerProcess(settings, tmp_path_factory.mktemp("worker"), bundles=bundles).start()
    process.wait_ready()
    yield process
    process.close()


def rightly_placed(settings: Settings, client: str) -> int:
    """How many of the client's own records lie where murmur2 puts their keys; copies that a worker sent on do not count."""
    found = [
        record
        for record in read_all(settings, settings.sources[0])
        if record.key.startswith(f"{client}-".encode()) and "forwarded" not in dict(record.headers)
    ]
    assert len(found) == CLICKS
    return sum(record.partition == murmur2(record.key) % PARTITIONS for record in found)


@pytest.mark.parametrize("client", CLIENTS)
def test_every_click_counts_once(settings: Settings, worker: WorkerProcess, client: str) -> None:
    users = [f"{client}-{number}" for number in range(CLICKS)]
    now = int(time.time() * 1000)
    clicks = [json.dumps({"user": user, "item": f"item-{n}", "time": now}) for n, user in enumerate(users)]
    CLIENTS[client](settings, list(zip(users, clicks, strict=True)))

    def served() -> set[str]:
        return {slate["user"] for slate in slates(settings)} & set(users)

    until(lambda: len(served()) == CLICKS, 60, lambda: f"a slate for each user; {len(served())} have one")
    newest = {slate["user"]: slate for slate in slates(settings)}
    assert [newest[user]["seq"] for user in users] == [1] * CLICKS
    print(
        f"{client}: {rightly_placed(settings, client)} of {CLICKS} on the right partition, {CLICKS} of {CLICKS} counted"
    )
    report = run(settings, wait=60)
    assert not report.violations, report
    assert report.pending == 0


EXAMPLES: Final = ("example-java", "example-go", "example-node", "example-rust")


@pytest.fixture(scope="module")
def unprefixed(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Settings]:
    """Topics without a prefix, as the examples name them, on a broker of their own."""
    broker = EmbeddedKafka(tmp_path_factory.mktemp("unprefixed"))
    broker.start()
    yield with_topics(broker.bootstrap, partitions=PARTITIONS)
    broker.stop()


@pytest.mark.parametrize("name", EXAMPLES)
def test_an_example_sends_a_click(unprefixed: Settings, name: str) -> None:
    """It is on the right partition, an acceptable event, and the example prints its place."""
    if not (BUILT / name).exists():
        pytest.skip(f"{name} is not built: make clients")
    command = [str(BUILT / name), unprefixed.brokers, name, "item-1"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 0, done.stderr
    (record,) = [record for record in read_all(unprefixed, "clicks") if record.key == name.encode()]
    assert record.partition == murmur2(record.key) % PARTITIONS
    click = decode(record.value, type=Click)
    assert (click.user, click.item) == (name, "item-1")
    assert abs(click.time - record.timestamp) < 60_000
    assert f"clicks-{record.partition}@{record.offset}" in done.stdout
