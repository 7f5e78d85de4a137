"""The command's tools against a real Kafka and a real worker: send, recommendations, dead letters, replay, verify."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from deploy.clients.arguments import client_arguments
from stream.settings import Settings, load
from tests.worker_process import WorkerProcess, environment, read_all, until

pytestmark = pytest.mark.integration


class Command:
    """`freshet` as a user runs it, with these settings in the environment."""

    def __init__(self, settings: Settings) -> None:
        self._environment = environment(settings)

    def run(self, *words: str, code: int = 0) -> subprocess.CompletedProcess[str]:
        """Run it; its exit code must be `code`, and there is never a traceback."""
        done = subprocess.run(
            [sys.executable, "-m", "deploy.cli", *words],
            env=self._environment, capture_output=True, text=True, timeout=120,
        )  # fmt: skip
        assert done.returncode == code, f"{words}: {done.returncode}\n{done.stdout}\n{done.stderr}"
        assert "Traceback" not in done.stderr
        return done

    def json(self, *words: str, code: int = 0) -> dict[str, Any]:
        """Its one JSON object."""
        found: dict[str, Any] = json.loads(self.run(*words, "--json", code=code).stdout)
        return found


@pytest.fixture
def settings(world: Callable[..., Settings]) -> Settings:
    return world(partitions=2)


@pytest.fixture
def command(settings: Settings) -> Command:
    return Command(settings)


@pytest.fixture
def worker(settings: Settings, bundles: Path, tmp_path: Path) -> Iterator[WorkerProcess]:
    process = WorkerProcess(settings, tmp_path, bundles=bundles).start()
    yield process
    process.close()


def test_from_an_event_to_a_verified_slate(command: Command, worker: WorkerProcess, tmp_path: Path) -> None:
    items = tmp_path / "items.jsonl"
    items.write_text("".join(json.dumps({"item": f"item-{n}", "title": f"Item {n}"}) + "\n" for n in range(1, 31)))
    assert command.json("send", "item", "--file", str(items))["sent"] == 30
    worker.wait_ready()

    landed = command.json("send", "click", "--user", "alice", "--item", "item-1")["records"][0]
    command.run("send", "rating", "--user", "alice", "--item", "item-2", "--value", "4.5")
    command.run("send", "comment", "--user", "alice", "--item", "item-3", "--text", "a fine thing", "--value", "5")
    report = command.json("verify", "--wait", "30")
    assert report["ok"] is True
    assert (report["input"], report["applied"], report["users"]) == (3, 3, 1)

    slate = command.json("recommendations", "--user", "alice")
    assert (slate["user"], slate["seq"]) == ("alice", 3)
    assert slate["applied"][f"{landed['topic']}/{landed['partition']}"] == landed["offset"]
    shown = {scored["item"] for scored in slate["items"]}
    assert len(shown) == 10
    assert not shown & {"item-1", "item-2", "item-3"}
    assert "Item " in command.run("recommendations", "--user", "alice", "--titles").stdout
    assert command.json("recommendations", "--user", "nobody")["strategy"] == "popularity"


def test_a_dead_letter_is_corrected_and_sent_back(command: Command, worker: WorkerProcess, settings: Settings) -> None:
    from kafka import KafkaProducer

    producer = KafkaProducer(acks="all", **client_arguments(settings))
    bad = b'{"user": "alice", "item": "item-1", "time": 1700000000000, "value": "four"}'
    producer.send(settings.sources[1], bad, b"alice", headers=[("trace", b"t1")]).get()
    producer.send(settings.sources[0], b"{}", None, partition=0).get()
    producer.close()
    worker.wait_ready()
    report = command.json("verify", "--wait", "30")
    assert (report["ok"], report["input"], report["dead_letters"], report["applied"]) == (True, 2, 2, 0)

    dead_letters = command.json("deadletters", "list")["letters"]
    assert {(dead_letter["stage"], dead_letter["reason"], dead_letter["field"]) for dead_letter in dead_letters} == {
        ("validate", "wrong_type", "value"),
        ("key", "null_key", "user"),
    }
    assert "wrong_type" in command.run("deadletters", "list", "--reason", "wrong_type").stdout
    command.run("deadletters", "redrive", code=2)  # nothing chosen, nothing sent
    assert command.json("deadletters", "redrive", "--all", "--dry-run", code=65)["sent"] == 0

    good = '{"user": "alice", "item": "item-1", "time": 1700000000000, "value": 4}'
    sent = command.json("deadletters", "redrive", "--reason", "wrong_type", "--value", good)
    assert (sent["chosen"], sent["sent"]) == (1, 1)
    report = command.json("verify", "--wait", "30")
    assert (report["ok"], report["input"], report["dead_letters"], report["applied"]) == (True, 3, 2, 1)
    back = list(read_all(settings, settings.sources[1]))[-1]
    assert back.key == b"alice"
    headers = dict(back.headers)
    assert headers["trace"] == b"t1"
    assert headers["original-record"].decode() == f"{settings.sources[1]}/{back.partition}/0"
    assert not any(name.startswith("__rec.errors.") for name in headers)


def test_following_a_user(command: Command, worker: WorkerProcess, settings: Settings) -> None:
    command.run("send", "item", "--item", "item-5", "--title", "Five")
    worker.wait_ready()
    process = subprocess.Popen(
        [sys.executable, "-m", "deploy.cli", "recommendations", "--user", "bob", "--follow", "--json"],
        env=environment(settings), stdout=subprocess.PIPE, text=True,
    )  # fmt: skip
    try:
        assert process.stdout is not None
        assert json.loads(process.stdout.readline())["user"] == "*"
        command.run("send", "click", "--user", "bob", "--item", "item-1")
        assert json.loads(process.stdout.readline())["seq"] == 1
    finally:
        process.terminate()
        process.wait(10)


def test_a_data_folder_as_traffic(command: Command, settings: Settings, tmp_path: Path) -> None:
    folder = tmp_path / "log"
    folder.mkdir()
    (folder / "clicks.jsonl").write_text(
        "".join(
            json.dumps({"user": f"u{n % 3}", "item": f"i{n}", "time": 1_700_000_000_000 + n}) + "\n" for n in range(20)
        )
    )
    (folder / "items.jsonl").write_text('{"item": "i1", "title": "One"}\n')
    replayed = command.json("replay", str(folder), "--limit", "15", "--rate", "100")
    assert (replayed["items"], replayed["events"]) == (1, 15)
    assert replayed["seconds"] >= 0.13
    records = list(read_all(settings, settings.sources[0]))
    assert len(records) == 15
    assert all(json.loads(record.value)["user"].encode() == record.key for record in records)
    report = command.json("verify", code=3)  # no worker has run: nothing can be said yet
    assert report["pending"] == 15
    replayed = command.json("replay", str(folder))  # the rest of it, and nothing twice
    assert (replayed["events"], replayed["already"]) == (5, 15)
    assert command.json("replay", str(folder))["events"] == 0
    records = list(read_all(settings, settings.sources[0]))
    assert sorted(json.loads(record.value)["item"] for record in records) == sorted(f"i{n}" for n in range(20))
    command.run("send", "item", "--item", "i1", "--remove")
    replayed = command.json("replay", str(folder))
    assert (replayed["items"], replayed["items_otherwise"]) == (0, {"i1": "removed"})
    assert "1 item was there already; 1 of them is removed" in command.run("replay", str(folder)).stdout
    assert [record.value for record in read_all(settings, settings.items_topic) if record.key == b"i1"][-1] is None
    replayed = command.json("replay", str(folder), "--again")
    assert (replayed["items"], replayed["events"]) == (1, 20)


def test_a_file_with_one_bad_line_sends_nothing(command: Command, settings: Settings, tmp_path: Path) -> None:
    file = tmp_path / "events.jsonl"
    file.write_text('{"user": "a", "item": "i", "time": 1700000000000}\n{"user": "a", "item": "i"}\n')
    done = command.run("send", "click", "--file", str(file), code=65)
    assert "line 2" in done.stderr
    assert "time" in done.stderr
    assert len(done.stderr.splitlines()) == 1
    assert list(read_all(settings, settings.sources[0])) == []


def test_clear_ends(command: Command, kafka: Any) -> None:
    """A missing topic, a broker that is not there: one line and an exit code."""
    nowhere = Command(load(brokers="127.0.0.1:1", startup_timeout=1))
    elsewhere = Command(load(brokers=kafka.bootstrap, prefix="nothing-here-", app_id="nothing-here"))
    for words in (
        ("verify",),
        ("send", "click", "--user", "a", "--item", "b"),
        ("recommendations", "--user", "a"),
        ("deadletters", "list"),
    ):
        assert len(nowhere.run(*words, code=69).stderr.splitlines()) == 1
        assert len(elsewhere.run(*words, code=78).stderr.splitlines()) == 1
    done = command.run("recommendations", "--user", "a", code=1)
    assert len(done.stderr.splitlines()) == 1


def test_lag_is_a_loss_once_waited_for(command: Command, worker: WorkerProcess, settings: Settings) -> None:
    worker.wait_ready()
    worker.kill()
    command.run("send", "click", "--user", "alice", "--item", "item-1")
    report = command.json("verify", "--wait", "1", code=1)
    assert report["lost"] == 1
    assert report["violations"][0]["user"] == "alice"
    until(lambda: worker.start().wait_ready(), 60, "the worker back")
    assert command.json("verify", "--wait", "30")["applied"] == 1
