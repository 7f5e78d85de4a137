"""Faults 16 and 17: a topic is recreated, has lost records, is missing, or has other partitions than the others. The worker
stops or does not start, names it, and takes nothing in meanwhile."""

from __future__ import annotations

import random
import time
from pathlib import Path
from typing import Any

from kafka.structs import TopicPartition

from deploy.clients.admin import admin, topics
from deploy.clients.admin import create as create_topics
from deploy.clients.log_reader import KafkaLog
from deploy.verify import Report, run
from stream.settings import Settings
from tests.chaos.outcomes import record
from tests.chaos.steps import loses_only, outcome, says, send_kind
from tests.worker_process import Events, WorkerProcess, slates, until

KINDS = ("click", "rating", "comment")  # in the order of Settings.sources


def recreated(settings: Settings, bundles: Path, folder: Path, seed: int, *, running: bool) -> None:
    """Fault 16: a source topic is deleted and recreated, and filled with fewer or more records than were committed of the old
    one, under a running worker or a stopped one. It stops with 76 and names the topic; started again, also with accept_loss,
    it refuses with 76 before one more record is in a state. Under a new app_id, with the slates begun again too, it goes on."""
    began, draw = time.monotonic(), random.Random(seed)
    number = draw.randrange(3)
    topic, kind = settings.sources[number], KINDS[number]
    old = draw.randrange(40, 80)
    new = draw.choice((draw.randrange(1, old), draw.randrange(4 * old, 8 * old)))
    events = Events(settings, seed=seed)
    worker = WorkerProcess(settings, folder, bundles=bundles, accept_loss=draw.random() < 0.5).start()
    accepting = WorkerProcess(settings, folder, bundles=bundles, accept_loss=True)
    try:
        events.send_items()
        worker.wait_ready()
        for one in KINDS:
            send_kind(events, one, old)
        worker.wait_applied(3 * old)
        shown = until(lambda: (found := slates(settings)) and _named(found) == 3 * old and found, 10, "all is shown")
        if not running:
            assert worker.terminate() == 0
        remake(settings, topic)
        events.close()
        events = Events(settings, seed=seed + 1)
        send_kind(events, kind, new)
        if not running:
            worker.start()
        assert worker.wait(60) == 76, worker.tail()
        says(worker, topic)
        if running:  # it may have read on for the few seconds until it noticed
            shown = slates(settings)
        assert accepting.start().wait(60) == 76, accepting.tail()
        says(accepting, f"{topic} was recreated")
        assert len(slates(settings)) == len(shown), "a record of the new topic is in a state"
        fresh = settings.model_copy(update={"app_id": f"{settings.app_id}-2"})
        remake(settings, settings.recommendations_topic)
        create_topics(fresh)
        again = WorkerProcess(fresh, folder, "again", bundles=bundles).start().wait_ready()
        again.wait_applied(2 * old + new)
        assert again.terminate() == 0
        report = run(fresh, wait=30)
        assert report.exit_code == 0, [str(violation) for violation in report.violations[:5]]
        assert (report.applied, report.lost, report.double, report.uncovered) == (2 * old + new, 0, 0, 0)
    finally:
        events.close()
        for process in (worker, accepting):
            process.close()
    how = "a running" if running else "a stopped"
    note = (
        f"{kind}s topic recreated with {new} records, {old} of the old one committed, under {how} worker: 76, named; started "
        "again with accept_loss: 76, nothing taken in; a new app_id and new slates: goes on from the beginnings"
    )
    record(
        outcome(16, f"source topic recreated, worker {'running' if running else 'stopped'}", seed, began, report, note)
    )


def expired(settings: Settings, bundles: Path, folder: Path, seed: int) -> None:
    """Fault 16: the worker is down for longer than a source topic keeps its records. It stops with 76 and names the lost range;
    with accept_loss it goes on and counts them; all that was left is in the states."""
    began, draw = time.monotonic(), random.Random(seed)
    number = draw.randrange(3)
    topic, kind = settings.sources[number], KINDS[number]
    events = Events(settings, seed=seed)
    worker = WorkerProcess(settings, folder, bundles=bundles).start()
    accepting = WorkerProcess(settings, folder, bundles=bundles, accept_loss=True)
    try:
        events.send_items()
        worker.wait_ready()
        before = draw.randrange(60, 120)
        placed = send_kind(events, kind, before)
        worker.wait_applied(before)
        assert worker.terminate() == 0
        missed = send_kind(events, kind, draw.randrange(60, 120))
        partition = draw.choice(sorted(placed.keys() & missed.keys()))
        committed, lost = placed[partition], draw.randint(1, missed[partition])
        with admin(settings) as client:
            client.delete_records({TopicPartition(topic, partition): committed + lost})
        worker.start()
        assert worker.wait(60) == 76, worker.tail()
        says(worker, f"{topic} partition {partition}", f"{committed} to {committed + lost - 1}")
        accepting.start().wait_ready()
        left = sum(missed.values()) - lost
        accepting.wait_applied(left)
        assert accepting.metric("freshet_accepted_loss_records_total") == lost
        assert accepting.terminate() == 0
        report = loses_only(settings, TopicPartition(topic, partition), committed, lost, folder)
    finally:
        events.close()
        worker.close()
        accepting.close()
    note = (
        f"{lost} of the {sum(missed.values())} {kind}s that came while the worker was down were deleted: 76, offsets named; "
        f"accept_loss: goes on, {lost} counted, the {left} that are left applied; verify names the range as lost"
    )
    record(outcome(16, "source records expired", seed, began, report, note))


def missing_or_unlike(settings: Settings, bundles: Path, folder: Path, seed: int) -> None:
    """Fault 17: a topic is missing, then has another number of partitions than it should: the worker does not start, ends with
    78 and names it. Made as it should be, all is well."""
    began, draw = time.monotonic(), random.Random(seed)
    topic = draw.choice(topics(settings))
    wrong = draw.choice([count for count in range(1, 7) if count != topic.partitions])
    worker = WorkerProcess(settings, folder, bundles=bundles)
    with admin(settings) as client:
        client.delete_topics([topic.name])
        try:
            until(lambda: topic.name not in client.list_topics(), 20, "the topic is gone")
            _refused(worker, f"topic {topic.name} is missing")
            client.create_topics(
                {topic.name: {"num_partitions": wrong, "replication_factor": 1, "configs": topic.config}}
            )
            first = topic.name == settings.sources[0]  # the others are measured by it
            other = settings.sources[1] if first else topic.name
            has, needs = (settings.partitions, wrong) if first else (wrong, topic.partitions)
            _refused(worker, f"topic {other} has {has} partitions, expected {needs}")
        finally:
            worker.close()
    remake(settings, topic.name)
    report = _all_is_well(settings, bundles, folder, seed)
    name = topic.name.removeprefix(settings.prefix)
    note = (
        f"{name}: missing: 78; with {wrong} partitions, not {topic.partitions}: 78; each named; made right: all is well"
    )
    record(outcome(17, "topic missing or unlike the others", seed, began, report, note))


def partitions_added(settings: Settings, bundles: Path, folder: Path, seed: int, *, to_all: bool) -> None:
    """Fault 17: partitions are added to a source topic, or to every topic alike, under a running worker: it stops with 78 and
    names one; started again it refuses, for the states are where the old count put them."""
    began, draw = time.monotonic(), random.Random(seed)
    count = settings.partitions + draw.randint(1, 4)
    single = {
        settings.items_topic, settings.rules_topic, settings.tables_topic, settings.bundles_topic, settings.forgotten_topic,
    }  # fmt: skip
    every = [topic.name for topic in topics(settings) if topic.name not in single]
    grown = every if to_all else [draw.choice(settings.sources)]
    events = Events(settings, seed=seed)
    worker = WorkerProcess(settings, folder, bundles=bundles).start()
    try:
        events.send_items()
        worker.wait_ready()
        events.send(200, rate=400)
        worker.wait_applied(200)
        report = run(settings, wait=60)  # now: once all have grown, every user has another partition
        written = _ends(settings)
        with admin(settings) as client:
            client.create_partitions(dict.fromkeys(grown, count))
        assert worker.wait(60) == 78, worker.tail()
        message = worker.lines()[-1]["message"]
        noticed: list[tuple[str, ...]] = [
            (f"{name} has partition ", f"{name} has {count} partitions") for name in grown
        ]
        if grown == [settings.sources[0]]:  # the others are measured by it
            noticed.append((f"{settings.sources[1]} has {settings.partitions} partitions, expected {count}",))
        assert any(one in message for either in noticed for one in either), message
        if to_all:  # they fit together: only the states know better
            assert worker.start().wait(60) == 78, worker.tail()
            says(worker, f"the topics have {count} partitions, and had {settings.partitions}")
        elif grown == [settings.sources[0]]:  # the others are measured by it
            _refused(worker, f"{settings.sources[1]} has {settings.partitions} partitions, expected {count}")
        else:
            _refused(worker, f"{grown[0]} has {count} partitions, expected {settings.partitions}")
    finally:
        events.close()
        worker.close()
    after = _ends(settings)
    assert {tp: after[tp] for tp in written} == written, "written after the growth"
    assert not any(end for tp, end in after.items() if tp not in written)
    assert (report.lost, report.double, report.uncovered, report.applied) == (0, 0, 0, 200)
    what = "every topic" if to_all else grown[0].removeprefix(settings.prefix)
    note = f"{what} grown from {settings.partitions} to {count} partitions: the running worker 78, named; at the next start 78"
    record(outcome(17, f"partitions added live to {'every topic' if to_all else 'one'}", seed, began, report, note))


def _ends(settings: Settings) -> dict[tuple[str, int], int]:
    """Where the outputs end."""
    log = KafkaLog(settings)
    try:
        outputs = (settings.changelog_topic, settings.recommendations_topic, settings.dead_letters_topic)
        return {tp: span.end for tp, span in log.spans(outputs).items()}
    finally:
        log.close()


def remake(settings: Settings, topic: str) -> None:
    """Delete a topic and make it as `freshet topics create` does."""
    with admin(settings) as client:
        client.delete_topics([topic])
    until(lambda: topic in create_topics(settings), 20, f"{topic} recreated")


def _named(found: list[dict[str, Any]]) -> int:
    """Events that slates name."""
    return sum(len(slate["events"]) for slate in found)


def _refused(worker: WorkerProcess, message: str) -> None:
    """It does not start: 78, one line that says so."""
    known = len(worker.log.read_text().splitlines()) if worker.log.exists() else 0
    assert worker.start().wait(60) == 78, worker.tail()
    (line,) = worker.log.read_text().splitlines()[known:]
    assert message in line, line


def _all_is_well(settings: Settings, bundles: Path, folder: Path, seed: int) -> Report:
    events = Events(settings, seed=seed)
    worker = WorkerProcess(settings, folder, bundles=bundles).start()
    try:
        events.send_items()
        worker.wait_ready()
        events.send(200, rate=400)
        worker.wait_applied(200)
        assert worker.terminate() == 0
    finally:
        events.close()
        worker.close()
    report = run(settings, wait=30)
    assert report.exit_code == 0, [str(violation) for violation in report.violations[:5]]
    assert (report.applied, report.lost, report.double, report.uncovered) == (200, 0, 0, 0)
    return report
