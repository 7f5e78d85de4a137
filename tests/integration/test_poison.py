"""Every kind of bad record becomes a dead letter with stage, field and reason; the good ones around it are all applied."""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from kafka import KafkaProducer

from deploy.verify import run
from deploy.verify.judge import murmur2
from stream.settings import Settings
from tests.worker_process import Events, WorkerProcess, read_all, until

pytestmark = pytest.mark.integration
NOW = int(time.time() * 1000)
KEY = b"user1"


def body(**fields: Any) -> bytes:
    return json.dumps({"user": "user1", "item": "item-1", "time": NOW} | fields).encode()


def without(name: str) -> bytes:
    return json.dumps({k: v for k, v in json.loads(body()).items() if k != name}).encode()


# name: (topic, key, value, stage, reason, field)
POISON: dict[str, tuple[str, bytes | None, bytes | None, str, str, str]] = {
    "empty": ("clicks", KEY, b"", "decode", "empty_value", ""),
    "null value": ("clicks", KEY, None, "decode", "null_value", ""),
    "null key": ("clicks", None, body(), "key", "null_key", "user"),
    "not UTF-8": ("clicks", KEY, b'{"user": "user1", "item": "\xff\xfe"}', "decode", "not_utf8", ""),
    "truncated JSON": ("clicks", KEY, body()[:-5], "decode", "malformed_json", ""),
    "wrong type": ("clicks", KEY, body(item=7), "validate", "wrong_type", "item"),
    "not an object": ("clicks", KEY, b"[1, 2]", "validate", "wrong_type", ""),
    "optional field of a wrong type": ("clicks", KEY, body(scene=["home"]), "validate", "wrong_type", "scene"),
    "NaN": ("ratings", KEY, body(value=float("nan")), "decode", "malformed_json", ""),
    "Infinity": ("ratings", KEY, body(value=float("inf")), "decode", "malformed_json", ""),
    "huge integer": ("clicks", KEY, body(time=10**40), "validate", "out_of_range", "time"),
    "missing user": ("clicks", KEY, without("user"), "validate", "missing_field", "user"),
    "missing item": ("clicks", KEY, without("item"), "validate", "missing_field", "item"),
    "key and body disagree": ("clicks", KEY, body(user="user2"), "key", "key_mismatch", "user"),
    "2 MB text": ("comments", KEY, body(text="x" * (2 << 20)), "validate", "too_large", "text"),
    "rating out of scale": ("ratings", KEY, body(value=5.5), "validate", "rating_out_of_scale", "value"),
    "negative time": ("clicks", KEY, body(time=-1), "validate", "out_of_range", "time"),
    "far future": ("clicks", KEY, body(time=NOW + 10 * 365 * 86_400_000), "validate", "far_future", "time"),
    "deeply nested": (
        "clicks",
        KEY,
        body()[:-1] + b', "x": ' + b"[" * 5000 + b"]" * 5000 + b"}",
        "decode",
        "too_deep",
        "",
    ),
    "mispartitioned": ("clicks", KEY, body(), "partition", "mispartitioned", "user"),
    "hostile headers": ("clicks", KEY, b"{", "decode", "malformed_json", ""),
}
HOSTILE = [("__rec.errors.stage", b"forged"), ("x\r\ny", b"\x00\xff\x1b[31m"), ("empty", b"")]


def test_poison_is_set_aside_and_everything_else_applied(
    world: Callable[..., Settings], bundles: Path, tmp_path: Path
) -> None:
    settings = world(partitions=2)
    worker = WorkerProcess(settings, tmp_path, bundles=bundles).start()
    events = Events(settings, seed=5)
    producer = KafkaProducer(acks="all", max_request_size=4 << 20, **settings.kafka_python())
    try:
        events.send_items()
        sent = send_poison(settings, producer, events)
        worker.wait_ready()
        until(lambda: applied_and_dead(worker) == (events.sent, len(POISON)), 60, "all records finished")
        check_letters(settings, sent)
        check_counts(worker)
        report = run(settings, wait=30)
        assert report.exit_code == 0, [str(v) for v in report.violations[:5]]
        assert (report.input, report.applied, report.dead_letters) == (
            events.sent + len(POISON),
            events.sent,
            len(POISON),
        )
        assert worker.process.poll() is None
        assert all(json.loads(line) for line in worker.log.read_text().splitlines())
    finally:
        events.close()
        producer.close()
        worker.close()


def send_poison(settings: Settings, producer: KafkaProducer, events: Events) -> dict[tuple[str, int, int], str]:
    """Every kind of poison, three good events around each -> place in Kafka: name."""
    sent = {}
    home = murmur2(KEY) % settings.partitions
    for name, (topic, key, value, *_) in POISON.items():
        events.send(3)
        partition = 1 - home if name == "mispartitioned" else home
        headers = HOSTILE if name == "hostile headers" else []
        place = producer.send(settings.prefix + topic, key=key, value=value, partition=partition, headers=headers).get(
            20
        )
        sent[place.topic, place.partition, place.offset] = name
    events.send(3)
    return sent


def applied_and_dead(worker: WorkerProcess) -> tuple[float, float]:
    return (
        worker.metric("freshet_events_total", outcome="applied"),
        worker.metric("freshet_events_total", outcome="dead_letter"),
    )


def check_letters(settings: Settings, sent: dict[tuple[str, int, int], str]) -> None:
    letters = {}
    for record in read_all(settings, settings.dead_letters_topic):
        said = {n.removeprefix("__rec.errors."): v.decode() for n, v in record.headers if n.startswith("__rec.errors.")}
        letters[said["topic"], int(said["partition"]), int(said["offset"])] = (record, said)
    assert letters.keys() == sent.keys()
    for place, name in sent.items():
        record, said = letters[place]
        _, key, value, stage, reason, field = POISON[name]
        assert (said["stage"], said["reason"], said["field"]) == (stage, reason, field), name
        assert (record.key, record.value) == (key, value), name
        assert said["message"].isprintable(), name
        assert len(said["message"]) <= 512, name
        if name == "hostile headers":
            kept = [(n, v) for n, v in record.headers if not n.startswith("__rec.errors.")]
            assert kept == HOSTILE[1:]


def check_counts(worker: WorkerProcess) -> None:
    for reason in {reason for *_, reason, _ in POISON.values()}:
        count = sum(reason == row[4] for row in POISON.values())
        assert worker.metric("freshet_dead_letters_total", reason=reason) == count, reason


def test_mispartitioned_means_not_where_kafka_python_puts_it(world: Callable[..., Settings]) -> None:
    settings = world(partitions=2)
    producer = KafkaProducer(**settings.kafka_python())
    try:
        place = producer.send(settings.sources[0], key=KEY, value=body()).get(20)
        assert place.partition == murmur2(KEY) % settings.partitions
    finally:
        producer.close()
