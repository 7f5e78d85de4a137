"""Faults 28 and 29: a flood of distinct and hostile values moves neither the number of metric series nor the log's form."""

from __future__ import annotations

import json
import random
import signal
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from stream.settings import Settings
from tests.bench.processes import resident_mib
from tests.chaos.outcomes import Outcome, record
from tests.worker_process import Events, WorkerProcess, read_all, until

HOSTILE = (
    "a\r\nb", "\n{\"level\": \"FATAL\", \"message\": \"forged\"}", "\x1b[2J\x1b[31mred\x1b[0m", "\x00\x07\x7f\x9b",
    "\u2028\u2029\u202e",

    "%s%d%n", "{}{0}", "${jndi:ldap://127.0.0.1/x}", "'; drop table users; --", "\"}, {\"", "\\", "\U0001f600" * 20,
    "<script>alert(1)</script>",
)  # fmt: skip


def series(worker: WorkerProcess) -> int:
    return sum(not line.startswith("#") for line in worker.get("/metrics")[1].splitlines())


def flood(settings: Settings, bundles: Path, folder: Path, seed: int, count: int) -> None:
    """Fault 28: `count` distinct users, items, error texts and `count` / 10 paths."""
    began = time.monotonic()
    worker = WorkerProcess(settings, folder, bundles=bundles).start().wait_ready()
    events = Events(settings, seed=seed)
    try:
        events.send_items()
        one_of_each(events, seed)
        until(lambda: finished(worker, events), 60, "the first of each kind")
        worker.get("/none")
        before, held = series(worker), resident_mib(worker.process.pid)
        bad = 2
        for number in range(count):
            topic, message = events.one(user=f"user-{seed}-{number}", kind="click", item=f"other-{number}")
            events.put(topic, message)
            if number % 5 == 0:
                events.put(topic, message | {f"f{number}": 1, "time": f"wrong {number}", "id": f"id{number}"})
                events.producer.send(topic, key=f"k{number}".encode(), value=f"not JSON {number}".encode())
                events.sent += 1
                bad += 2
            if number % 10 == 0 and number < 20_000:
                worker.get(f"/path-{number}?q={number}")
        events.producer.flush()
        until(lambda: finished(worker, events), 240, "everything finished")
        after, grown = series(worker), resident_mib(worker.process.pid) - held
        assert after == before, f"{before} series before, {after} after"
        assert grown < 400, f"{grown:.0f} MB more than before"
        assert worker.metric("freshet_events_total", outcome="dead_letter") >= bad
        check_log(worker)
        until(lambda: worker.get("/readyz")[0] == 200, 60, "ready")
        report = judge_all(settings, events.sent - bad, bad)
    finally:
        events.close()
        worker.close()
    note = (
        f"{count} users and items, {bad} error texts: {before} metric series before and after, memory {grown:+.0f} MB"
    )
    record(
        Outcome(28, "cardinality", seed, events=events.sent, repeats=report.replays, seconds=round(time.monotonic() - began, 1),
                note=note)
    )  # fmt: skip


def one_of_each(events: Events, seed: int) -> None:
    """One good event, two bad ones: every label that the flood will use, since some counters appear with their first event."""
    topic, message = events.one(user=f"first-{seed}", kind="click", item="other")
    events.put(topic, message)
    events.put(topic, message | {"time": "wrong"})
    events.producer.send(topic, key=b"k", value=b"not JSON")
    events.sent += 1
    events.producer.flush()


def finished(worker: WorkerProcess, events: Events) -> bool:
    return worker.metric("freshet_events_total") >= events.sent


def hostile(settings: Settings, bundles: Path, folder: Path, seed: int, rounds: int) -> None:
    """Fault 29: line breaks, escape sequences and JSON in every field of events and items, in keys and in headers."""
    began = time.monotonic()
    draw = random.Random(seed)
    worker = WorkerProcess(settings, folder, bundles=bundles, log_level="DEBUG").start().wait_ready()
    events = Events(settings, seed=seed)
    try:
        events.send_items()
        good = bad = 0
        for body in bodies(events, draw, rounds):
            topic, message, fine = body
            key = str(message["user"]).encode()
            headers = [(draw.choice(HOSTILE), draw.choice(HOSTILE).encode())]
            events.producer.send(topic, key=key, value=json.dumps(message).encode(), headers=headers)
            events.sent += 1
            good, bad = good + fine, bad + (not fine)
        for text in HOSTILE:  # items that are not acceptable are named in the log
            for value in (
                f'{{"item": {json.dumps(text)}}}',
                f"not JSON {text}",
                json.dumps({"item": text, "title": [text]}),
            ):
                events.producer.send(settings.items_topic, key=text.encode(), value=value.encode())
        events.producer.flush()
        until(lambda: worker.metric("freshet_items_rejected_total") == 3 * len(HOSTILE), 60, "items rejected")
        until(lambda: finished(worker, events), 120, "everything finished")
        check_log(worker)
        for letter in read_all(settings, settings.dead_letters_topic):
            fields = {name: value.decode() for name, value in letter.headers if name.startswith("__rec.errors.")}
            assert all(value.isprintable() for value in fields.values()), fields
        for line in worker.get("/metrics")[1].splitlines():
            assert line.isprintable()
        until(lambda: worker.get("/readyz")[0] == 200, 60, "ready")
        assert worker.terminate() == 0
        check_log(worker)
        worker.start().wait_ready()
        report = judge_all(settings, good, bad)
    finally:
        events.close()
        worker.close()
    note = f"{good} acceptable, {bad} unacceptable events, {3 * len(HOSTILE)} items: every log line one JSON object"
    record(
        Outcome(29, "hostile text", seed, events=events.sent, repeats=report.replays, seconds=round(time.monotonic() - began, 1),
                note=note)
    )  # fmt: skip


def endings(settings: Settings, bundles: Path, folder: Path, seed: int) -> None:
    """Fault 29: however a worker ends, at the start or at work, its log is JSON to the last line, which says why."""
    began = time.monotonic()
    draw = random.Random(seed)
    text = draw.choice([text for text in HOSTILE if "\x00" not in text])
    cases: dict[str, tuple[int, dict[str, Any]]] = {
        "setting": (78, {"rating_scale": text}),
        "settings that disagree": (78, {"heartbeat_interval": settings.session_timeout}),
        "bundle": (65, {"bundles": folder / text.replace("/", "_")}),
        "broker": (69, {"brokers": "127.0.0.1:1", "startup_timeout": 1.0}),
        "topic": (78, {"prefix": "none-"}),
        "stopped too long": (75, {}),
    }
    names = list(cases)
    draw.shuffle(names)
    for name in names:
        code, more = cases[name]
        worker = WorkerProcess(settings, folder, name, **{"bundles": bundles, "log_level": "DEBUG", **more}).start()
        try:
            if not more:
                worker.wait_ready()
                worker.send_signal(signal.SIGSTOP)
                time.sleep(1.5 * settings.session_timeout)
                worker.send_signal(signal.SIGCONT)
            assert worker.wait(40) == code, f"{name}: {worker.tail()}"
            check_log(worker)
            assert worker.log.read_bytes().endswith(b"\n"), name
            assert worker.lines()[-1]["level"] == "CRITICAL", name
        finally:
            worker.close()
    note = f"{len(cases)} ends of a worker, at the start and at work: every log line one JSON object, the last one says why"
    record(Outcome(29, "last words", seed, seconds=round(time.monotonic() - began, 1), note=note))


def judge_all(settings: Settings, good: int, bad: int) -> Any:
    from deploy.verify import run

    report = run(settings, wait=60)
    assert report.exit_code == 0, [str(violation) for violation in report.violations[:5]]
    assert (report.lost, report.double, report.uncovered) == (0, 0, 0)
    assert (report.applied, report.dead_letters) == (good, bad)
    return report


def bodies(events: Events, draw: random.Random, rounds: int) -> Iterator[tuple[str, dict[str, Any], bool]]:
    """(topic, message, is it acceptable)"""
    for number in range(rounds):
        for text in HOSTILE:
            user = f"u{number}"
            topic, click = events.one(user=user, kind="click")
            yield topic, click | {"item": text, "scene": text, "slate": text, "id": f"{text}{number}"}, True
            topic, comment = events.one(user=user, kind="comment")
            yield topic, comment | {"text": text * draw.randrange(1, 5), text: text}, True
            yield topic, comment | {"text": [text]}, False
            yield topic, comment | {"time": text}, False
            if "\x00" not in text:
                topic, click = events.one(user=f"{text}{number}", kind="click")
                yield topic, click, True


def check_log(worker: WorkerProcess) -> None:
    """Each line one JSON object in printable ASCII, and none of them forged."""
    raw = worker.log.read_bytes()
    for line in raw.split(b"\n")[:-1]:
        assert all(32 <= byte < 127 for byte in line), line
        fields = json.loads(line)
        assert isinstance(fields, dict), line
        assert {"time", "level", "logger", "message"} <= fields.keys(), line
        assert fields["level"] != "FATAL", line
