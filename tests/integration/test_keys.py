"""Producers whose keys are JSON strings or 8-byte numbers: a real broker, a plain kafka-python producer, a worker, commands."""

from __future__ import annotations

import json
import struct
import time
from collections.abc import Callable
from contextlib import ExitStack, closing
from pathlib import Path

import pytest
from kafka import KafkaProducer

from deploy.clients.arguments import client_arguments
from stream.settings import Settings
from tests.integration.test_commands import Command
from tests.worker_process import Events, WorkerProcess, read_all

pytestmark = [pytest.mark.integration, pytest.mark.long]

USERS = 20
PARTITIONS = 4


def as_json(user: str) -> bytes:
    return json.dumps(user, ensure_ascii=False).encode()


def as_long(user: str) -> bytes:
    return struct.pack(">q", int(user))


Encode = Callable[[str], bytes]
CASES: dict[str, tuple[list[str], Encode, Encode, str]] = {
    # the setting, users, how the producer writes them, how another one does, and what its dead letter says
    "json": ([f"k\u00e4ufer-{n}" for n in range(USERS)], as_json, str.encode, "utf8"),
    "long": ([str((-1) ** n * n**9) for n in range(2, USERS + 2)], as_long, as_json, "json"),
}


def click(user: str, item: str) -> bytes:
    return json.dumps({"user": user, "item": item, "time": int(time.time() * 1000)}).encode()


@pytest.mark.timeout(600)  # three workers and a dozen commands, and the session's bundles are made first
@pytest.mark.parametrize("form", CASES)
def test_from_such_keys_to_verified_slates(
    form: str, world: Callable[..., Settings], bundles: Path, tmp_path: Path
) -> None:
    users, serializer, others, named = CASES[form]
    settings = world(partitions=PARTITIONS, key=form)
    command, clicks = Command(settings), settings.sources[0]
    events = Events(settings)
    events.send_items()
    events.close()
    with ExitStack() as stack:
        worker = WorkerProcess(settings, tmp_path, bundles=bundles).start()
        stack.callback(worker.close)
        producer = stack.enter_context(closing(KafkaProducer(key_serializer=serializer, **client_arguments(settings))))
        odd = stack.enter_context(closing(KafkaProducer(**client_arguments(settings))))
        worker.wait_ready()
        homes = {}
        for number in range(3 * USERS):
            user = users[number % USERS]
            sent = producer.send(clicks, click(user, f"item-{number % 30 + 1}"), user).get(30)
            homes[user] = sent.partition
        assert set(homes.values()) == set(range(PARTITIONS))
        elsewhere = (homes[users[0]] + 1) % PARTITIONS
        producer.send(clicks, click(users[0], "item-40"), users[0], partition=elsewhere).get(30)
        odd.send(clicks, click(users[1], "item-41"), others(users[1]), partition=homes[users[1]]).get(30)
        command.run("send", "rating", "--user", users[2], "--item", "item-42", "--value", "4")

        report = command.json("verify", "--wait", "60")
        assert (report["ok"], report["users"]) == (True, USERS)
        assert (report["applied"], report["dead_letters"], report["forwarded"]) == (3 * USERS + 2, 1, 1)
        for user, seq in ((users[0], 4), (users[1], 3), (users[2], 4)):
            slate = command.json("recommendations", "--user", user)
            assert (slate["user"], slate["seq"], len(slate["items"])) == (user, seq, 10)
        assert command.json("recommendations", "--user", "*")["strategy"] == "popularity"
        for topic in (settings.changelog_topic, settings.recommendations_topic):
            found = {(record.key, record.partition) for record in read_all(settings, topic)}
            assert {(serializer(user), homes[user]) for user in users} <= found

        (dead_letter,) = command.json("deadletters", "list")["letters"]
        assert dead_letter["reason"] == "key_mismatch"
        assert f'set key = "{named}" (FRESHET_KEY)' in dead_letter["message"]
        fixed = tmp_path / "fix.jsonl"
        assert command.json("deadletters", "fix", str(fixed), "--all", "--key-from-user")["refused"] == 0
        assert command.json("deadletters", "redrive", "--corrected", str(fixed))["sent"] == 1
        assert command.json("verify", "--wait", "60")["applied"] == 3 * USERS + 3
        assert command.json("recommendations", "--user", users[1])["seq"] == 4

        assert worker.terminate() == 0
        is_refused_with_another_setting(settings, bundles, tmp_path, stack)
        command.run("send", "click", "--user", users[3], "--item", "item-43")
        report = command.json("verify", "--wait", "60")
        assert (report["ok"], report["users"], report["applied"]) == (True, USERS, 3 * USERS + 4)


def is_refused_with_another_setting(settings: Settings, bundles: Path, folder: Path, stack: ExitStack) -> None:
    """A worker with an empty folder reads the states back, is refused, and holds all of them once its setting is right."""
    message = f'key: found "utf8", expected "{settings.key}"'
    wrong = WorkerProcess(settings, folder, "w2", bundles=bundles, key="utf8").start()
    stack.callback(wrong.close)
    assert wrong.wait(120) == 78, wrong.tail()
    assert message in wrong.lines()[-1]["message"]
    assert f"FRESHET_KEY={settings.key}" in wrong.lines()[-1]["message"]
    assert message in Command(settings.model_copy(update={"key": "utf8"})).run("verify", code=78).stderr
    right = WorkerProcess(settings, folder, "w2", bundles=bundles).start()
    stack.callback(right.close)
    right.wait_ready()
