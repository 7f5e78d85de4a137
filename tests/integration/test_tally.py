"""The tally on a real Kafka: its epochs are what a recount gives, and a kill at any moment changes none of them."""

from __future__ import annotations

import json
import random
import shutil
import signal
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from kafka import TopicPartition
from msgspec.structs import replace

from deploy.clients import admin
from deploy.clients.log_reader import KafkaLog
from deploy.clients.murmur2 import murmur2
from deploy.clients.producer import Producer
from deploy.verify import Report, Scope, check
from stream.catalogue.tables import EpochRows
from stream.core import tables
from stream.core.tally import ForwardDecay, PairShape, tally_of
from stream.settings import Settings
from tests.tally_kills import MOMENTS
from tests.tally_process import TallyProcess, closings, elsewhere, epoch_of
from tests.worker_process import Events, read_all, until

pytestmark = pytest.mark.integration

DAY = 86_400_000
NOW = int(time.time() * 1000)


def send(settings: Settings, count: int, seed: int = 1, users: int = 30) -> Events:
    """Events of the last 400 days, in no order, some of them malformed, repeated or misplaced."""
    events, draw = Events(settings, seed, users=users, items=40), random.Random(seed)
    for number in range(count):
        topic, message = events.one(time=NOW - draw.randrange(400 * DAY))
        if number % 97 == 5:
            events.producer.send(topic, key=message["user"].encode(), value=b"{")
        elif number % 97 == 7:
            message["id"] = f"twice-{number}"
            events.put(topic, message)
            events.put(topic, message)
        elif number % 97 == 9:
            key = message["user"].encode()
            wrong = (murmur2(key) + 1) % settings.partitions
            events.producer.send(topic, key=key, value=json.dumps(message).encode(), partition=wrong)
        else:
            events.put(topic, message)
    events.producer.flush()
    return events


@pytest.fixture
def tally(bundles: Path, tmp_path: Path) -> Any:
    """Makes tally processes, and ends those that still run."""
    made: list[TallyProcess] = []

    def make(settings: Settings, name: str = "t1", **more: Any) -> TallyProcess:
        made.append(TallyProcess(settings, tmp_path, name, bundles=bundles, **more))
        return made[-1]

    yield make
    for one in made:
        one.close()


def test_a_tally_that_was_killed_publishes_the_same_epoch(
    world: Callable[..., Settings], tally: Any, bundles: Path
) -> None:
    settings = world(partitions=2)
    send(settings, 300).close()
    running = tally(settings, tally_epoch_seconds=0.3)
    draw = random.Random(3)
    for kill in range(5):
        running.start()
        running.wait_ready()
        send(settings, 400, seed=10 + kill).close()
        time.sleep(draw.random() * 1.5)  # while it counts, or while an epoch is being written
        running.kill()
    running.once()
    killed_rows, killed = epoch_of(settings)
    assert killed is not None
    assert killed.epoch > 1
    # another deployment counts from the beginning
    clean = tally(elsewhere(settings), "t2")
    clean.once()  # the newest epoch is the same one, so nothing is written
    assert epoch_of(settings)[1] == killed
    assert tables.hash_of(killed_rows.values(), killed) == killed.hash
    assert [line for line in clean.lines() if line["message"] == "epoch published"] == []
    report = recounted(settings, bundles)
    assert (report.table_epoch, report.table_rows) == (killed.epoch, killed.rows)
    assert of_tables(report) == set(), report.violations


def test_a_kill_at_each_moment_changes_no_hash(world: Callable[..., Settings], tally: Any, bundles: Path) -> None:
    settings = world(partitions=2)
    killed = tally(settings, tally_epoch_seconds=0.2)
    for number, moment in enumerate(MOMENTS):
        send(settings, 300, seed=20 + number).close()
        killed.command = ["tests.tally_kills", moment]
        killed.start()
        assert killed.wait(120) == -signal.SIGKILL, killed.tail()
        killed.start()
        killed.wait_ready()
        until(lambda: killed.runs() and covers(settings), 60, "everything in an epoch")
        assert killed.terminate() == 0
    closed = closings(settings)[-1]
    clean = tally(elsewhere(settings), "t2")
    clean.once()
    assert closings(settings)[-1] == closed  # the same hash: nothing was written
    assert of_tables(recounted(settings, bundles)) == set()


def covers(settings: Settings) -> bool:
    """Whether the newest epoch covers all that is in the source topics."""
    found = closings(settings)
    log = KafkaLog(settings)
    try:
        ends = {f"{topic}/{number}": span.end for (topic, number), span in log.spans(settings.sources).items()}
    finally:
        log.close()
    return bool(found) and all(found[-1].offsets.get(name, 0) == end for name, end in ends.items())


def test_a_folder_that_is_lost_is_counted_again_if_the_records_are_there(
    world: Callable[..., Settings], tally: Any
) -> None:
    settings = world(partitions=1)
    send(settings, 200).close()
    one = tally(settings).once()
    before = closings(settings)
    shutil.rmtree(one.tally_dir)
    one.once()
    assert closings(settings) == before
    shutil.rmtree(one.tally_dir)
    with admin.admin(settings) as client:
        client.delete_records({TopicPartition(settings.sources[0], 0): 50})
    one.start()
    assert one.wait(120) == 76
    assert "cannot be counted again" in one.lines()[-1]["message"]
    one.command = ["deploy.cli", "tally", "--once", "--accept-loss"]
    one.start()
    assert one.wait(120) == 0
    after = closings(settings)[-1]
    assert (after.epoch, after.offsets) == (2, before[0].offsets)
    assert after.hash != before[0].hash


def test_an_epoch_that_was_altered_is_red(world: Callable[..., Settings], tally: Any, bundles: Path) -> None:
    settings = world(partitions=2)
    send(settings, 200).close()
    tally(settings).once()
    rows, closed = epoch_of(settings)
    assert closed is not None
    assert of_tables(recounted(settings, bundles)) == set()
    one = next(row for row in rows.values() if len(row.near) > 1)
    for row, kind in (
        (replace(one, count=one.count + 1), "table-count"),
        (replace(one, near=one.near[1:]), "table-pair"),
    ):
        hashed = tables.hash_of((rows | {one.item: row}).values(), closed)
        with Producer(settings) as producer:
            producer.send(settings.tables_topic, tables.row_key(one.item), tables.encode_row(row))
            closed = replace(closed, epoch=closed.epoch + 1, hash=hashed)
            producer.position(producer.send(settings.tables_topic, tables.CLOSED_KEY, tables.encode_closed(closed)))
        assert of_tables(recounted(settings, bundles)) == {kind}
    tally(settings).once()  # it finds an epoch that is not its own, and publishes the right one
    assert of_tables(recounted(settings, bundles)) == set()


def test_a_record_of_another_form_is_mended_by_the_next_tally(
    world: Callable[..., Settings], tally: Any, bundles: Path
) -> None:
    """No event comes meanwhile. Until then, no worker could use the epoch."""
    settings = world(partitions=2)
    send(settings, 200).close()
    tally(settings).once()
    rows, closed = epoch_of(settings)
    assert closed is not None
    for number, key in enumerate((tables.row_key(next(iter(rows))), tables.row_key("stranger"), tables.CLOSED_KEY)):
        with Producer(settings) as producer:
            producer.position(producer.send(settings.tables_topic, key, b"x"))
        assert "table-stale" in of_tables(recounted(settings, bundles))
        tally(settings).once()
        nothing = tally(settings, "t1").once()
        assert "the newest epoch has everything: none is published" in [line.get("message") for line in nothing.lines()]
        assert of_tables(recounted(settings, bundles)) == set()
        log = KafkaLog(settings)
        records = log.records(settings.tables_topic, log.spans([settings.tables_topic]))
        served = EpochRows()
        served.apply([(record.offset, record.key, record.value) for record in records])
        log.close()
        assert served.current is not None
        assert served.current.closed.epoch == number + 2
        assert served.current.closed.hash == closed.hash


def recounted(settings: Settings, bundles: Path) -> Report:
    """What `freshet verify --tables` finds; no worker runs, so that nothing else is right."""
    log = KafkaLog(settings)
    try:
        return check(
            log, settings, scope=Scope(tables=True, bundle=bundles / (bundles / "CURRENT").read_text().strip())
        )
    finally:
        log.close()


def of_tables(report: Report) -> set[str]:
    return {kind for kind in report.kinds if kind.startswith("table-")}


def test_an_epoch_is_what_a_recount_gives(world: Callable[..., Settings], tally: Any) -> None:
    settings = world(partitions=2)
    events = Events(settings, 4, users=20, items=30)
    sent: dict[str, list[tuple[str, int, float]]] = {}
    for number in range(900):
        _, message = events.one(kind="click", time=NOW - (900 - number) * DAY // 3)
        message["action"] = ("view", "click", "like")[number % 3]
        events.put(settings.sources[0], message)
        sent.setdefault(message["user"], []).append((message["item"], message["time"], (0.5, 1.0, 2.0)[number % 3]))
    events.producer.flush()
    events.close()
    tally(settings, tally_half_life=90, tally_landmark="2025-01-01").once()
    rows, closed = epoch_of(settings)
    assert closed is not None
    assert max(map(len, sent.values())) <= tables.HISTORY
    expected = tally_of(sent.values(), PairShape(), ForwardDecay(closed.landmark, 90 * DAY))
    assert {item: row.count for item, row in rows.items()} == expected.count
    shrunk = closed.shrunk
    for item, row in rows.items():
        near = expected.near(item, closed.back, closed.shrink, closed.near_decay.weight(closed.now))
        best = sorted(near.values(), reverse=True)[: closed.keep]
        found = [tables.weight(total, row.count**0.5, rows[other].count ** 0.5, shrunk) for other, total in row.near]
        assert found == pytest.approx(best)
        assert {other: near[other] for other, _ in row.near} == pytest.approx(
            dict(zip([other for other, _ in row.near], found, strict=True))
        )
    assert sum(row.touched for row in rows.values()) == 900


def test_epochs_follow_while_it_runs_and_name_what_changed(world: Callable[..., Settings], tally: Any) -> None:
    settings = world(partitions=2)
    running = tally(settings, tally_epoch_seconds=3600, tally_epoch_events=100)
    running.start()
    running.wait_ready()
    events = Events(settings, 5, users=10, items=20)
    events.send(250)
    until(lambda: running.runs() and len(closings(settings)) == 2, 30, "two epochs")
    assert [sum(one.offsets.values()) for one in closings(settings)] == [100, 200]
    events.put(settings.sources[1], {"user": "u", "item": "item-1", "time": NOW, "value": "?"})
    events.producer.flush()
    until(lambda: running.metric("freshet_tally_refused_records_total", reason="wrong_type") == 1, 30, "one refused")
    assert running.metric("freshet_tally_epoch") == 2
    assert running.terminate() == 0
    rows, closed = epoch_of(settings)
    assert closed is not None
    assert tables.hash_of(rows.values(), closed) == closed.hash
    assert any("ratings" in line["message"] and "not counted" in line["message"] for line in running.lines())
    events.send(60)
    running.once()
    _, last = epoch_of(settings)
    assert last is not None
    assert (last.epoch, sum(last.offsets.values())) == (3, 311)
    written = [record.key for record in read_all(settings, settings.tables_topic)]
    assert written.count(tables.CLOSED_KEY) == 3
    events.close()


def test_a_second_tally_ends_the_first(world: Callable[..., Settings], tally: Any) -> None:
    settings = world(partitions=1)
    first = tally(settings, tally_epoch_seconds=0.5)
    first.start()
    first.wait_ready()
    second = tally(settings, "t2", tally_epoch_seconds=0.5)
    second.start()
    second.wait_ready()
    send(settings, 50).close()
    assert first.wait(60) == 75
    until(lambda: second.runs() and closings(settings), 30, "an epoch")


def test_settings_that_change_the_sums_count_everything_again(world: Callable[..., Settings], tally: Any) -> None:
    settings = world(partitions=1)
    send(settings, 200).close()
    tally(settings).once()
    before = epoch_of(settings)
    assert before[1] is not None
    tally(settings, tally_reach=3).once()
    after = epoch_of(settings)
    assert after[1] is not None
    assert (after[1].epoch, after[1].reach, after[1].offsets) == (2, 3, before[1].offsets)
    tally(settings).once()
    closed = epoch_of(settings)[1]
    assert closed is not None
    assert (closed.epoch, closed.hash) == (3, before[1].hash)
