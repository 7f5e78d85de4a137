"""What others do to a deployment's group and changelog: the worker names them, or makes good for it; nothing is lost."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from confluent_kafka import Consumer, Producer
from kafka import KafkaAdminClient, KafkaProducer, TopicPartition
from kafka.errors import NoError
from kafka.structs import OffsetAndMetadata

from deploy.clients.arguments import client_arguments
from deploy.verify import run
from stream.settings import Settings
from tests.settings import QUICK
from tests.worker_process import Events, WorkerProcess, read_all, slates, until

pytestmark = pytest.mark.integration


class Played:
    """A worker on one partition, and one user's clicks."""

    def __init__(self, settings: Settings, bundles: Path, folder: Path) -> None:
        self.settings = settings
        self.events = Events(settings, seed=7)
        self.events.send_items()
        self.worker = WorkerProcess(settings, folder, bundles=bundles)
        self.tp = TopicPartition(settings.sources[0], 0)

    def clicks(self, count: int, user: str = "ada") -> None:
        for _ in range(count):
            self.events.put(*self.events.one(user=user, kind="click"))
        self.events.producer.flush()

    def applied(self, count: int) -> None:
        """By the process that runs now."""
        self.worker.wait_applied(count, 60)

    def last_line(self) -> str:
        (message,) = [line["message"] for line in self.worker.lines() if line["level"] == "CRITICAL"]
        return str(message)

    def warned(self, what: str) -> bool:
        self.worker.runs()
        return any(line["level"] == "WARNING" and what in line["message"] for line in self.worker.lines())


@pytest.fixture
def played(world: Callable[..., Settings], bundles: Path, tmp_path: Path) -> Iterator[Played]:
    quick = world(**QUICK | {"partitions": 1})
    made = Played(quick, bundles, tmp_path)
    try:
        yield made
    finally:
        made.events.close()
        made.worker.close()


@contextmanager
def admin_of(settings: Settings) -> Iterator[KafkaAdminClient]:
    admin = KafkaAdminClient(**client_arguments(settings))
    try:
        yield admin
    finally:
        admin.close()


def test_a_takeover_writes_again_what_a_former_owner_wrote_over(played: Played) -> None:
    settings, worker = played.settings, played.worker
    worker.start().wait_ready()
    played.clicks(3)
    played.applied(3)
    assert worker.terminate() == 0
    late = [record for record in read_all(settings, settings.changelog_topic) if record.key == b"ada"][-1]
    worker.start().wait_ready()
    played.clicks(4)
    played.applied(4)
    producer = KafkaProducer(acks="all", **client_arguments(settings))
    try:  # as a worker of that epoch that stood still for long
        producer.send(
            settings.changelog_topic, key=late.key, value=late.value, headers=list(late.headers), partition=0
        ).get(30)
    finally:
        producer.close()
    assert run(settings, wait=30).exposed == 1
    assert worker.terminate() == 0
    worker.start().wait_ready()
    assert played.warned("states written again")
    report = run(settings, wait=30)
    assert (report.exit_code, report.exposed, report.repeated) == (0, 0, 1)
    states = [record for record in read_all(settings, settings.changelog_topic) if record.key == b"ada"]
    assert states[-1].value == states[-3].value, "the same state once more"
    played.clicks(1)
    played.applied(1)
    assert [slate["seq"] for slate in slates(settings, "ada")][-1] == 8
    assert worker.terminate() == 0


def test_offsets_that_somebody_moved_are_refused_and_nothing_is_lost(played: Played) -> None:
    settings, worker = played.settings, played.worker
    worker.start().wait_ready()
    played.clicks(5)
    played.applied(5)
    assert worker.terminate() == 0
    played.clicks(20)
    with admin_of(settings) as admin:
        admin.alter_group_offsets(settings.app_id, {played.tp: OffsetAndMetadata(25, "")})
        worker.start()
        assert worker.wait(60) == 76
        message = played.last_line()
        assert (
            f"{played.tp.topic} partition 0: offset 25 of the group {settings.app_id} was not committed by a worker"
            in message
        )
        # as long as the worker's session lasts the group counts as subscribed
        until(lambda: _deleted(admin, settings, played.tp), 60, "the group's offsets of the topic are deleted")
    worker.start().wait_ready()
    played.applied(20)
    report = run(settings, wait=30)
    assert (report.exit_code, report.applied, report.lost) == (0, 25, 0)
    assert worker.terminate() == 0


def _deleted(admin: KafkaAdminClient, settings: Settings, tp: TopicPartition) -> bool:
    found = admin.delete_group_offsets(settings.app_id, [tp])
    return bool(found[tp] is NoError)


def test_a_stranger_in_the_group_is_named_and_the_worker_joins_once_it_is_gone(played: Played) -> None:
    settings, worker = played.settings, played.worker
    played.clicks(5)
    stranger = Consumer(
        {
            "bootstrap.servers": settings.brokers, "group.id": settings.app_id, "client.id": "a-stranger",
            "session.timeout.ms": 6000, "enable.auto.commit": False,
        }
    )  # fmt: skip
    try:
        stranger.subscribe([played.tp.topic])
        until(lambda: stranger.poll(0.2) or stranger.assignment(), 60, "the stranger has the group")
        worker.start()
        until(
            lambda: (stranger.poll(0.2), played.warned("members of another protocol: client a-stranger"))[1], 60,
            lambda: f"it is named:\n{worker.tail()}",
        )  # fmt: skip
    finally:
        stranger.close()
    worker.wait_ready(60)
    played.applied(5)
    assert worker.terminate() == 0


def test_an_open_transaction_on_the_changelog_is_named_and_waited_for(played: Played) -> None:
    settings, worker = played.settings, played.worker
    worker.start().wait_ready()
    played.clicks(1)
    played.applied(1)
    producer = Producer({"bootstrap.servers": settings.brokers, "transactional.id": f"{settings.app_id}-other"})
    producer.init_transactions(30)
    producer.begin_transaction()
    producer.produce(settings.changelog_topic, key=b"nobody", value=b"?", partition=0)
    producer.flush()
    played.clicks(3)
    held = f"an open transaction of another producer on {settings.changelog_topic}/0 since offset"
    until(lambda: played.warned(held), 60, lambda: f"the owner names it:\n{worker.tail()}")
    worker.kill()
    worker.start()
    until(lambda: played.warned(held), 60, lambda: f"the next one does, too:\n{worker.tail()}")
    worker.kill()
    producer.abort_transaction(30)
    worker.start().wait_ready(60)  # though no record stands at the changelog's end
    until(lambda: run(settings, wait=10).applied == 4, 60, "all is applied")
    report = run(settings, wait=30)
    assert (report.exit_code, report.lost, report.double) == (0, 0, 0)
    assert worker.terminate() == 0
