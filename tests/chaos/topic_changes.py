"""Faults 35 and 41: the topics that a worker uses besides its sources are deleted or recreated under it, and settings of any
topic are changed, under it or before its start. It stops, or does not start, and names topic, setting, and what mends it."""

from __future__ import annotations

import random
import time
from collections.abc import Callable
from pathlib import Path

from kafka.admin import ConfigResource, ConfigResourceType

from deploy.clients.admin import admin
from deploy.clients.admin import mend as mend_topics
from deploy.verify import run
from stream.settings import Settings
from tests.chaos.outcomes import Outcome, record
from tests.chaos.source_topics import remake
from tests.chaos.steps import outcome, says, work
from tests.worker_process import Events, WorkerProcess, slates

NOTICED = 20.0  # seconds: the watch looks every 4 s, twice where a topic is missing, on a crowded machine
ITEMS = [f"item-{number}" for number in range(1, 26)]  # the half that the new items topic gets


def used_topics(settings: Settings) -> tuple[str, ...]:
    """Those that are no sources."""
    return (
        settings.changelog_topic, settings.items_topic, settings.rules_topic, settings.recommendations_topic,
        settings.dead_letters_topic,
    )  # fmt: skip


def recreated(settings: Settings, bundles: Path, folder: Path, seed: int) -> None:
    """Fault 35: a topic is recreated under a running worker: 76 within seconds, named. The changelog's states are gone: 76 again,
    until that is accepted. Any other: the next start goes on, and recommends nothing but what the new items topic has."""
    began, draw = time.monotonic(), random.Random(seed)
    topic = used_topics(settings)[seed % 4]
    count = draw.randrange(100, 200)
    events = Events(settings, seed=seed)
    worker = WorkerProcess(settings, folder, bundles=bundles).start()
    accepting = WorkerProcess(settings, folder, bundles=bundles, accept_loss=True)
    try:
        events.send_items()
        work(worker.wait_ready(), events, count)
        remade = time.monotonic()
        remake(settings, topic)
        assert worker.wait(NOTICED) == 76, worker.tail()
        noticed = time.monotonic() - remade
        says(worker, topic, "was recreated")  # by the watch, or by whoever reads it
        after = worker
        if topic == settings.changelog_topic:
            assert worker.start().wait(60) == 76, worker.tail()
            says(worker, topic, "--accept-loss")
            after = accepting
        if topic == settings.items_topic:
            events.send_items(ITEMS)
        known = {(slate["user"], slate["seq"]) for slate in slates(settings)}
        work(after.start().wait_ready(), events, count)
        if topic == settings.items_topic:
            fresh = [slate for slate in slates(settings) if (slate["user"], slate["seq"]) not in known]
            shown = {one["item"] for slate in fresh for one in slate["items"]}
            assert shown, "no item is recommended"
            assert shown <= set(ITEMS), shown - set(ITEMS)
        assert after.terminate() == 0
    finally:
        events.close()
        for process in (worker, accepting):
            process.close()
    report = run(settings, wait=30)
    name = topic.removeprefix(settings.prefix)
    note = (
        f"{name} recreated after {count} events: 76 within {noticed:.1f} s, named; started again it went on; "
        f"verify {report.exit_code}"
    )
    if topic in (
        settings.items_topic,
        settings.rules_topic,
        settings.dead_letters_topic,
    ):  # else states or slates are gone with it
        assert (report.applied, report.lost, report.double, report.uncovered) == (2 * count, 0, 0, 0)
        record(outcome(35, "a topic of the worker recreated", seed, began, report, note))
    else:
        assert report.exit_code != 0, "verify takes what is gone for whole"
        note += f", {dict(report.kinds) or 'what is left is right'}"
        seconds = round(time.monotonic() - began, 1)
        record(Outcome(35, "a topic of the worker recreated", seed, events=2 * count, seconds=seconds, note=note))


def deleted(settings: Settings, bundles: Path, folder: Path, seed: int) -> None:
    """Fault 35: a topic is deleted under a running worker: 78 within seconds, named, and at the next start again."""
    began, draw = time.monotonic(), random.Random(seed)
    topic = used_topics(settings)[seed % 4]
    events = Events(settings, seed=seed)
    worker = WorkerProcess(settings, folder, bundles=bundles).start()
    try:
        events.send_items()
        work(worker.wait_ready(), events, draw.randrange(100, 200))
        report = run(settings, wait=30)
        assert report.exit_code == 0, [str(violation) for violation in report.violations[:5]]
        gone = time.monotonic()
        with admin(settings) as client:
            client.delete_topics([topic])
        assert worker.wait(NOTICED) == 78, worker.tail()
        noticed = time.monotonic() - gone
        says(worker, f"{topic} is missing", "freshet topics create")
        assert worker.start().wait(60) == 78, worker.tail()
        assert f"{topic} is missing" in worker.tail(1)
    finally:
        events.close()
        worker.close()
    name = topic.removeprefix(settings.prefix)
    note = f"{name} deleted: 78 within {noticed:.1f} s, named; at the next start 78"
    record(outcome(35, "a topic of the worker deleted", seed, began, report, note))


WRONG: tuple[tuple[Callable[[Settings], str], str, str], ...] = (
    (lambda settings: settings.sources[0], "cleanup.policy", "compact"),
    (lambda settings: settings.changelog_topic, "cleanup.policy", "compact,delete"),
    (lambda settings: settings.sources[1], "message.timestamp.type", "CreateTime"),
    (lambda settings: settings.dead_letters_topic, "max.message.bytes", "1000012"),
    (lambda settings: settings.sources[2], "retention.ms", "60000"),
    (lambda settings: settings.recommendations_topic, "min.insync.replicas", "2"),
    (lambda settings: settings.dead_letters_topic, "cleanup.policy", "compact"),
    (lambda settings: settings.items_topic, "cleanup.policy", "compact,delete"),
    (lambda settings: settings.sources[0], "retention.bytes", "1048576"),
    (lambda settings: settings.changelog_topic, "min.insync.replicas", "3"),
)
"""topic, setting, a value that is not as a worker needs it."""


def settings_changed(settings: Settings, bundles: Path, folder: Path, seed: int) -> None:
    """Fault 41: a topic's setting is changed under a running worker, another before its start: 78 each time, with topic, setting,
    what was found and what is needed. What the line names mends it, and the worker goes on."""
    began, draw = time.monotonic(), random.Random(seed)
    count = draw.randrange(100, 200)
    live, before = WRONG[2 * seed % len(WRONG)], WRONG[(2 * seed + 1) % len(WRONG)]
    events = Events(settings, seed=seed)
    worker = WorkerProcess(settings, folder, bundles=bundles).start()
    try:
        events.send_items()
        work(worker.wait_ready(), events, count)
        changed = time.monotonic()
        message = _change(settings, live)
        assert worker.wait(NOTICED) == 78, worker.tail()
        noticed = time.monotonic() - changed
        says(worker, message, "expected", "freshet topics mend")
        also = _change(settings, before)
        assert worker.start().wait(60) == 78, worker.tail()
        for one in (message, also):
            assert one in worker.tail(1), worker.tail()
        assert len(mend_topics(settings)) == 2
        work(worker.start().wait_ready(), events, count)
        assert worker.terminate() == 0
    finally:
        events.close()
        worker.close()
    report = run(settings, wait=30)
    assert report.exit_code == 0, [str(violation) for violation in report.violations[:5]]
    assert (report.applied, report.lost, report.double, report.uncovered) == (2 * count, 0, 0, 0)
    note = (
        f"{live[1]}={live[2]} under the worker: 78 within {noticed:.1f} s; {before[1]}={before[2]} besides at the next "
        "start: 78, both named; mended: all is well"
    )
    record(outcome(41, "settings of topics changed", seed, began, report, note))


def _change(settings: Settings, change: tuple[Callable[[Settings], str], str, str]) -> str:
    """Change a setting -> how the worker is to name it."""
    named, setting, value = change
    topic = named(settings)
    with admin(settings) as client:
        client.alter_configs([ConfigResource(ConfigResourceType.TOPIC, topic, {setting: value})])
    return f"topic {topic} has {setting}={value}"
