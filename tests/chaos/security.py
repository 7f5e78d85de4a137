"""Scenarios on a broker that wants SASL_SSL and denies what no ACL allows."""

from __future__ import annotations

import random
import re
import time
from pathlib import Path
from typing import Any, Final

from deploy.clients.admin import create as create_topics
from deploy.verify import run
from stream.settings import Settings
from tests.chaos.outcomes import Outcome, record
from tests.secured_kafka import KEY_PASSWORD, MECHANISMS, USERS, Right, SecuredKafka, password
from tests.settings import QUICK
from tests.worker_process import Events, WorkerProcess, read_all, until

ROOT = Path(__file__).resolve().parents[2]
SECURED: Final[dict[str, Any]] = QUICK | {"heartbeat_interval": 0.5}
PAYLOAD = "canary-payload"
_ROW = re.compile(r"\| (\w+) \| (topic|group|transactional_id) (\S+) \| ([\w, ]+) \|")

REVOKED = (  # what is taken away from a worker at work, and what its last words must name
    ("topic", "{prefix}clicks", "Read"),
    ("topic", "{app_id}-interest-changelog", "Write"),
    ("topic", "{prefix}recommendations", "Write"),
    ("topic", "{prefix}dead-letters", "Write"),
    ("topic", "{prefix}items", "Read"),
    ("group", "{app_id}", "Read"),
)


def documented(settings: Settings) -> dict[str, list[Right]]:
    """Client -> its rights, from the table in docs/security.md."""
    found: dict[str, list[Right]] = {}
    for client, kind, name, operations in _ROW.findall((ROOT / "docs" / "security.md").read_text("utf-8")):
        name = name.format(prefix=settings.prefix, app_id=settings.app_id)
        found.setdefault(client, []).extend(Right(kind, name, operation) for operation in operations.split(", "))
    return found


def prepare(kafka: SecuredKafka, name: str) -> Settings:
    """Topics of their own, and the documented rights -> the administrator's settings."""
    settings = kafka.settings(prefix=f"{name}-", app_id=f"{name}-app", **SECURED)
    create_topics(settings)
    for user, rights in documented(settings).items():
        kafka.allow(user, *rights)
    return settings


def as_user(kafka: SecuredKafka, user: str, settings: Settings, mechanism: str = "SCRAM-SHA-512") -> Settings:
    return kafka.settings(user, mechanism, prefix=settings.prefix, app_id=settings.app_id, **SECURED)


def worker(kafka: SecuredKafka, settings: Settings, bundles: Path, folder: Path, **more: Any) -> WorkerProcess:
    given = {"bundles": bundles, "secrets": kafka.secrets("worker")} | more
    return WorkerProcess(settings, folder, **given)


def refused_at_start(kafka: SecuredKafka, bundles: Path, folder: Path, seed: int) -> None:
    """Fault 31: wrong password, and each wrong certificate: one clear line, exit 69, no secret in it."""
    began = time.monotonic()
    admin = prepare(kafka, f"refused{seed}")
    wrong = folder / "wrong"
    wrong.mkdir()
    (wrong / "freshet_sasl_password").write_text("canary-wrong-pw")
    (wrong / "freshet_ssl_keypassword").write_text(KEY_PASSWORD)
    mechanism = MECHANISMS[seed % 3]
    cases: list[tuple[str, dict[str, Any], dict[str, Any], str]] = [
        ("password", {}, {"secrets": wrong}, "rejected the credentials"),
        ("expired", {"certificate": "expired"}, {}, "certificate has expired"),
        ("stranger", {"certificate": "stranger"}, {}, "mismatch"),
        ("unknown", {"certificate": "unknown"}, {}, "unable to get local issuer certificate"),
        ("plaintext", {"security_protocol": "PLAINTEXT"}, {"startup_timeout": 3.0}, "with PLAINTEXT"),
    ]
    for name, values, more, message in cases:
        settings = kafka.settings("worker", mechanism, **values, prefix=admin.prefix, app_id=admin.app_id, **SECURED)
        process = worker(kafka, settings, bundles, folder, **more)
        process.name, process.log = name, folder / f"{name}.log"
        process.start()
        try:
            assert process.wait(40) == 69, f"{name}: {process.tail()}"
        finally:
            process.close()
        lines = [line for line in process.log.read_text().splitlines() if "waiting for a Kafka broker" not in line]
        assert len(lines) == 1, f"{name}: one clear line, not {lines}"
        assert message in lines[0], name
        assert "canary" not in lines[0], name
    note = f"{mechanism}; wrong password, expired, wrong host, unknown authority, no TLS: each exit 69 with its reason"
    record(Outcome(31, "refused at the start", seed, seconds=round(time.monotonic() - began, 1), note=note))


def missing_right(kafka: SecuredKafka, bundles: Path, folder: Path, seed: int) -> None:
    """Fault 31: without one of its rights a worker does not start; it names the topic or group, and the operation."""
    began = time.monotonic()
    admin = prepare(kafka, f"missing{seed}")
    settings = as_user(kafka, "worker", admin, MECHANISMS[seed % 4])
    right = random.Random(seed).choice(documented(admin)["worker"])
    kafka.revoke("worker", right)
    process = worker(kafka, settings, bundles, folder).start()
    try:
        assert process.wait(40) == 69, process.tail()
    finally:
        process.close()
    (line,) = process.log.read_text().splitlines()
    assert re.search(rf"{right.kind} {re.escape(right.name)}: [\w, ]*\b{right.operation}\b", line), line
    note = f"without {right.operation} on {right.kind} {right.name.split('-', 1)[-1]}: exit 69, named"
    record(Outcome(31, "missing ACL at the start", seed, seconds=round(time.monotonic() - began, 1), note=note))


def revoked_at_work(kafka: SecuredKafka, bundles: Path, folder: Path, seed: int) -> None:
    """Faults 31 and 30: a right is taken away under traffic; the worker stops with 69 and says which. Given back, all is
    made good. All the while no canary shows anywhere."""
    began = time.monotonic()
    admin = prepare(kafka, f"revoked{seed}")
    mechanism = MECHANISMS[-1 - seed % 4]
    settings = as_user(kafka, "worker", admin, mechanism)
    kind, name, operation = REVOKED[seed % len(REVOKED)]
    right = Right(kind, name.format(prefix=admin.prefix, app_id=admin.app_id), operation)
    events = Events(as_user(kafka, "producer", admin), seed=seed)
    process = worker(kafka, settings, bundles, folder).start()
    poison = 0
    try:
        events.send_items()
        process.wait_ready()
        events.send(200, rate=400)
        poison += send_poison(events)
        until(lambda: process.metric("freshet_dead_letters_total") == poison, 30, "dead letters")
        hidden(kafka, process, as_user(kafka, "verifier", admin))
        kafka.revoke("worker", right)

        def ended() -> bool:
            nonlocal poison
            events.send(5)
            poison += send_poison(events)
            if right.name == settings.items_topic:
                events.send_items(["item-1"])
            return process.process.poll() is not None

        until(ended, 60, f"the worker ends without {right}")
        assert process.process.returncode == 69, process.tail()
        last = process.lines()[-1]
        assert (last["level"], last["logger"]) == ("CRITICAL", "freshet.fatal")
        assert right.name in last["message"], last
        assert "ACL" in last["message"], last
        kafka.allow("worker", right)
        process.start().wait_ready()
        report = run(as_user(kafka, "verifier", admin), wait=60)
        assert report.exit_code == 0, [str(violation) for violation in report.violations[:5]]
        assert (report.lost, report.double, report.uncovered) == (0, 0, 0)
        assert (report.applied, report.dead_letters) == (events.sent - poison, poison)
        hidden(kafka, process, as_user(kafka, "verifier", admin))
    finally:
        events.close()
        process.close()
    common: dict[str, Any] = {
        "events": events.sent,
        "repeats": report.replays,
        "seconds": round(time.monotonic() - began, 1),
    }
    note = f"{mechanism}; {operation} on {kind} {right.name.split('-', 1)[-1]} revoked: exit 69, named; given back: all made good"
    record(Outcome(31, "ACL revoked at work", seed, restarts=1, note=note, **common))
    note = f"{mechanism}; password, token, key and payload in no log, metric, page, header or command line"
    record(Outcome(30, "canary secrets", seed, note=note, **common))


def send_poison(events: Events) -> int:
    """Records that are not acceptable, the canary in every part of them -> how many."""
    topic, message = events.one(user=f"{PAYLOAD}-user", kind="click")
    bad = [message | {"item": [PAYLOAD]}, message | {"time": PAYLOAD}, message | {"scene": {PAYLOAD: 1}}]
    for body in bad:
        events.put(topic, body)
    for raw in (f'{{"user": "{PAYLOAD}-user", "{PAYLOAD}'.encode(), PAYLOAD.encode() + b"\xff"):
        events.producer.send(topic, key=f"{PAYLOAD}-user".encode(), value=raw)
        events.sent += 1
    events.producer.flush()
    return len(bad) + 2


def canaries(kafka: SecuredKafka) -> list[str]:
    """Everything that must not show: passwords, the token, the key file's content, and what events say."""
    token = kafka.token("worker").read_text().strip()
    key = kafka.client_key.read_text().splitlines()[1]
    return ["canary", *map(password, USERS), KEY_PASSWORD, PAYLOAD, token, token.split(".")[1], key]


def hidden(kafka: SecuredKafka, process: WorkerProcess, settings: Settings) -> None:
    """No canary in log, endpoints, command line, or the headers of dead letters."""
    shown = {
        "log": process.log.read_text(),
        "command line": Path(f"/proc/{process.process.pid}/cmdline").read_bytes().decode(),
        "environment": Path(f"/proc/{process.process.pid}/environ").read_bytes().decode(),
        **{path: process.get(path)[1] for path in ("/", "/metrics", "/healthz", "/readyz", "/canary-none")},
    }
    assert shown["/metrics"]
    dead_letters = list(read_all(settings, settings.dead_letters_topic))
    assert dead_letters
    for dead_letter in dead_letters:
        shown["headers"] = shown.get("headers", "") + " ".join(
            f"{name}={value!r}" for name, value in dead_letter.headers
        )
    for source, text in shown.items():
        for canary in canaries(kafka):
            assert canary not in text, f"{canary[:20]}... in {source}"
