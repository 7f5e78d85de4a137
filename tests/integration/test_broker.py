"""`freshet broker`, `freshet topics` and the start of `freshet worker` where something is wrong: one line, an exit code."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from kafka.admin import ConfigResource, ConfigResourceType
from kafka.errors import KafkaConnectionError

from deploy.clients import admin
from deploy.embedded_kafka import EmbeddedKafka, free_port, jars, startup_cache
from stream.core.errors import BrokerError, DownloadError
from stream.settings import Settings, load
from tests.worker_process import environment, until

pytestmark = pytest.mark.integration


def freshet(*words: str | Path, settings: Settings | None = None, **variables: Any) -> subprocess.CompletedProcess[str]:
    """Run the command as a user does; nothing that it says may be a traceback."""
    done = subprocess.run(
        [sys.executable, "-m", "deploy.cli", *map(str, words)],
        env=(environment(settings) if settings else dict(os.environ)) | variables,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert "Traceback" not in done.stderr, done.stderr
    return done


def refused(done: subprocess.CompletedProcess[str], code: int, *named: str) -> None:
    """It ended with `code` and one line that names all of `named`."""
    assert done.returncode == code, done.stdout + done.stderr
    assert done.stdout == ""
    assert done.stderr.startswith(("freshet: ", '{"time": ')), "for people, or a line of the worker's log"
    assert done.stderr.count("\n") == 1, done.stderr
    for word in named:
        assert word in done.stderr


@contextmanager
def taken_port() -> Iterator[int]:
    with socket.create_server(("127.0.0.1", 0)) as server:
        yield server.getsockname()[1]


@pytest.fixture
def home(kafka: Any, tmp_path: Path) -> Iterator[Path]:
    """A folder for a broker of this test's own, ended with it; `kafka` has already fetched the jars."""
    folder = tmp_path / "kafka"
    yield folder
    EmbeddedKafka(folder).stop()


@pytest.mark.long
def test_a_broker_lives_from_start_to_stop_and_keeps_its_data(home: Path) -> None:
    home.mkdir()
    (home / "broker.json").write_text(json.dumps({"pid": os.getpid(), "port": 1}))  # left over: that pid is a Python
    assert freshet("broker", "status", "--dir", home).returncode == 1

    started = freshet("broker", "start", "--dir", home, "--port", "0", "--json")
    assert started.returncode == 0, started.stderr
    figures = json.loads(started.stdout)
    assert figures["running"] is True
    assert figures["brokers"].startswith("127.0.0.1:")

    refused(freshet("broker", "start", "--dir", home, "--port", "0"), 69, "is already running", str(figures["pid"]))
    assert json.loads(freshet("broker", "status", "--dir", home, "--json").stdout) == figures

    settings = load(brokers=figures["brokers"], prefix="kept-", app_id="kept", partitions=1)
    made = json.loads(freshet("topics", "create", "--json", settings=settings).stdout)
    assert len(made["made"]) == 11

    os.kill(figures["pid"], signal.SIGKILL)  # died: the state file is stale
    until(lambda: freshet("broker", "status", "--dir", home).returncode == 1, 20, "the broker is gone")
    again = freshet("broker", "start", "--dir", home, "--port", "0", "--json")
    assert again.returncode == 0, again.stderr
    settings = settings.model_copy(update={"brokers": json.loads(again.stdout)["brokers"]})
    assert admin.check(settings).partitions == 1

    assert json.loads(freshet("broker", "stop", "--dir", home, "--json").stdout) == {"stopped": True}
    assert json.loads(freshet("broker", "status", "--dir", home, "--json").stdout) == {"running": False}
    assert json.loads(freshet("broker", "stop", "--dir", home, "--json").stdout) == {"stopped": False}


def test_a_taken_port_is_named(home: Path) -> None:
    with taken_port() as port:
        refused(freshet("broker", "start", "--dir", home, "--port", str(port)), 69, f"port {port} is already in use")
    assert not (home / "broker.json").exists()


def test_a_broker_that_dies_at_its_start_names_its_log(home: Path) -> None:
    (home / "data").mkdir(parents=True)
    (home / "data" / "meta.properties").write_text("version=1\ncluster.id=other\nnode.id=77\n")
    refused(freshet("broker", "start", "--dir", home, "--port", "0"), 69, "died during startup", "kafka.log")
    assert freshet("broker", "status", "--dir", home).returncode == 1


def test_storage_that_cannot_be_formatted_is_named(home: Path) -> None:
    home.mkdir()
    (home / "data").write_text("a file in the folder's place")
    refused(freshet("broker", "start", "--dir", home, "--port", "0"), 69, "cannot be formatted")


def test_a_download_that_fails_is_named(tmp_path: Path) -> None:
    nowhere = f"http://127.0.0.1:{free_port()}"
    proxies: dict[str, Any] = dict.fromkeys(("HTTP_PROXY", "HTTPS_PROXY", "http_proxy", "https_proxy"), nowhere)
    direct: dict[str, Any] = dict.fromkeys(("NO_PROXY", "no_proxy"), "")
    done = freshet("broker", "start", "--dir", tmp_path / "kafka", HOME=str(tmp_path), **proxies, **direct)
    refused(done, 69, "cannot be fetched", "is there a network?")


def jars_found(cache: Path) -> subprocess.Popen[str]:
    """A process that looks for the jars with its links to them in `cache`."""
    code = "from deploy.embedded_kafka import jars; print(len(jars.classpath()))"
    return subprocess.Popen(
        [sys.executable, "-c", code], env=os.environ | {"JGO_CACHE_DIR": str(cache)}, stdout=subprocess.PIPE, text=True
    )


def test_a_startup_cache_that_is_not_one_does_no_harm(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    rubbish = home.with_name("rubbish.aot")
    rubbish.write_bytes(b"not a cache" * 1000)
    monkeypatch.setattr(startup_cache, "path", lambda jars: rubbish)
    with EmbeddedKafka(home) as broker:
        assert f"-XX:AOTCache={rubbish}".encode() in Path(f"/proc/{broker.pid}/cmdline").read_bytes()
        assert broker.alive


@pytest.mark.long  # a training run, once
def test_the_startup_cache_is_made_by_a_training_run_and_used(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    cache = home.with_name("made.aot")
    monkeypatch.setattr(startup_cache, "path", lambda jars: cache)
    notes: list[str] = []
    with EmbeddedKafka(home, note=notes.append) as broker:
        assert broker.alive
    assert notes == ["preparing faster starts of Kafka, once for this machine"]
    made = cache.stat()
    with EmbeddedKafka(home, note=notes.append) as broker:
        maps = Path(f"/proc/{broker.pid}/maps").read_text()
    assert str(cache) in maps
    assert len(notes) == 1
    assert cache.stat().st_mtime_ns == made.st_mtime_ns
    assert sorted(one.name for one in home.parent.iterdir() if "made" in one.name) == ["made.aot"]


@pytest.mark.long  # jgo starts Java for every jar
def test_processes_that_fetch_jars_at_the_same_time_all_get_them(kafka: Any, tmp_path: Path) -> None:
    found = [process.communicate(timeout=120)[0] for process in [jars_found(tmp_path) for _ in range(3)]]
    assert found == [f"{len(jars.classpath())}\n"] * 3


@pytest.mark.long
def test_jars_that_an_interrupted_process_did_not_fetch_are_fetched(kafka: Any, tmp_path: Path) -> None:
    all_jars, _ = jars_found(tmp_path).communicate(timeout=120)
    for jar in sorted(tmp_path.rglob("*.jar"))[::2]:
        jar.unlink()
    assert jars_found(tmp_path).communicate(timeout=120)[0] == all_jars


def test_a_cache_that_cannot_be_written_is_named(kafka: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "file").touch()
    monkeypatch.setenv("JGO_CACHE_DIR", str(tmp_path / "file"))
    with pytest.raises(DownloadError, match=r"file cannot be written .*; set JGO_CACHE_DIR to a folder that can"):
        jars.classpath()


def test_a_jar_that_is_not_the_locked_one_never_runs(
    kafka: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    lines = jars.LOCK.read_text().splitlines(keepends=True)
    resolved = jars._resolve()
    changed = tmp_path / "jars.lock"
    changed.write_text("".join([*lines[:-1], "0" * 64 + lines[-1][64:]]))
    monkeypatch.setattr(jars, "LOCK", changed)
    with pytest.raises(DownloadError, match="wrong SHA-256"):
        EmbeddedKafka(tmp_path / "kafka").start()
    changed.write_text("".join([*lines, f"{'0' * 64}  absent-1.0.jar\n"]))
    looked = []

    def look(*, update: bool = False) -> list[Path]:
        looked.append(update)
        return resolved

    monkeypatch.setattr(
        jars, "_resolve", look
    )  # an update empties the folder for a moment, from which others start brokers
    with pytest.raises(DownloadError, match=r"absent-1\.0\.jar"):
        EmbeddedKafka(tmp_path / "kafka").start()
    assert looked == [False, True]


def test_topics_are_made_once(world: Callable[..., Settings]) -> None:
    settings = world(partitions=3)
    assert json.loads(freshet("topics", "create", "--json", settings=settings).stdout) == {"made": [], "partitions": 3}
    assert json.loads(freshet("topics", "check", "--json", settings=settings).stdout) == {"partitions": 3}


def delete(settings: Settings, name: str) -> None:
    with admin.admin(settings) as client:
        client.delete_topics([name])
        until(
            lambda: client.describe_topics([name])[0]["error_code"] != 0,
            20,
            f"{name} is gone",
        )


def make(settings: Settings, name: str, partitions: int, **config: str) -> None:
    new = {"num_partitions": partitions, "replication_factor": 1, "configs": config}
    with admin.admin(settings) as client:
        client.create_topics({name: new}, wait_for_metadata=True)


COMMANDS = [("topics", "check"), ("worker", "--web-port", "0")]


@pytest.mark.parametrize("command", COMMANDS, ids=" ".join)
def test_a_missing_topic_is_named(
    world: Callable[..., Settings], bundles: Path, command: tuple[str, ...], tmp_path: Path
) -> None:
    settings = world(partitions=2, bundles=bundles, data_dir=tmp_path)
    delete(settings, settings.items_topic)
    refused(freshet(*command, settings=settings), 78, f"{settings.items_topic} is missing", "freshet topics create")


@pytest.mark.parametrize("command", COMMANDS, ids=" ".join)
def test_unequal_partition_counts_are_named(
    world: Callable[..., Settings], bundles: Path, command: tuple[str, ...], tmp_path: Path
) -> None:
    settings = world(partitions=2, bundles=bundles, data_dir=tmp_path)
    with admin.admin(settings) as client:
        client.create_partitions({settings.sources[1]: 3})
    done = freshet(*command, settings=settings)
    refused(done, 78, settings.sources[1], "has 3 partitions, expected 2")


def test_a_changelog_of_another_size_and_a_wrong_policy_are_named_together(world: Callable[..., Settings]) -> None:
    settings = world(partitions=2)
    delete(settings, settings.changelog_topic)
    make(settings, settings.changelog_topic, 1, **{"cleanup.policy": "compact"})
    delete(settings, settings.sources[0])
    make(settings, settings.sources[0], 2, **{"cleanup.policy": "compact", "message.timestamp.type": "CreateTime"})
    refused(
        freshet("topics", "check", settings=settings), 78,
        f"{settings.changelog_topic} has 1 partitions", "cleanup.policy=compact", "message.timestamp.type=CreateTime",
    )  # fmt: skip


def test_settings_that_do_not_fit_are_named_and_mended(world: Callable[..., Settings]) -> None:
    settings = world(partitions=2)
    wrong = {settings.sources[0]: {"cleanup.policy": "compact", "retention.ms": "60000", "compression.type": "zstd"},
             settings.items_topic: {"cleanup.policy": "delete"},
             settings.recommendations_topic: {"cleanup.policy": "compact,delete"},
             settings.dead_letters_topic: {"max.message.bytes": "1048588", "retention.bytes": "1024"},
             settings.changelog_topic: {"cleanup.policy": "compact,delete", "min.insync.replicas": "2"}}  # fmt: skip
    with admin.admin(settings) as client:
        client.alter_configs([ConfigResource(ConfigResourceType.TOPIC, *one) for one in wrong.items()])
    messages = [
        f"topic {topic} has {name}={value}, expected"
        for topic, changed in wrong.items()
        for name, value in changed.items()
        if (topic, name) != (settings.sources[0], "retention.ms")  # it counts only where the policy deletes
    ]
    refused(freshet("topics", "check", settings=settings), 78, *messages, "`freshet topics mend` sets it")
    changed = json.loads(freshet("topics", "mend", "--json", settings=settings).stdout)["changed"]
    assert {line.partition(" -> ")[0] for line in changed} == {
        f"{topic} {name}: {value}" for topic, found in wrong.items() for name, value in found.items()
    }
    assert f"{settings.sources[0]} retention.ms: 60000 -> 604800000" in changed
    assert freshet("topics", "mend", settings=settings).stdout == "all topics already have the required settings\n"


@pytest.mark.parametrize(
    "command",
    [*COMMANDS, ("topics", "create"), ("verify",), ("send", "click", "--user", "u", "--item", "i")],
    ids=" ".join,
)
def test_no_broker_is_named_within_the_startup_timeout(bundles: Path, command: tuple[str, ...], tmp_path: Path) -> None:
    brokers = f"127.0.0.1:{free_port()}"
    settings = load(brokers=brokers, startup_timeout=1, bundles=bundles, data_dir=tmp_path)
    began = time.monotonic()
    refused(freshet(*command, settings=settings), 69, brokers)
    assert time.monotonic() - began < 20


def test_a_broker_that_goes_away_while_it_is_asked_is_no_bug_of_ours(world: Callable[..., Settings]) -> None:
    settings = world(partitions=1)
    with (
        pytest.raises(BrokerError, match=f"{settings.brokers}.*KafkaConnectionError"),
        admin.admin(settings),
    ):
        raise KafkaConnectionError("socket disconnected")


def test_a_broker_that_goes_away_while_a_worker_starts_is_no_bug_of_ours(
    world: Callable[..., Settings], bundles: Path, tmp_path: Path
) -> None:
    settings = world(partitions=1, bundles=bundles, data_dir=tmp_path, web_port=0)
    gone = """
from aiokafka.errors import KafkaConnectionError
from deploy.cli.main import main
from stream.app import InterestApp

async def start(app):
    raise KafkaConnectionError("Unable to bootstrap")

InterestApp.start = start
main()
"""
    done = subprocess.run(
        [sys.executable, "-c", gone, "worker"],
        env=environment(settings),
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == 69
    (critical,) = [line for line in map(json.loads, done.stderr.splitlines()) if line["level"] == "CRITICAL"]
    assert "Unable to bootstrap" in critical["message"]
    assert "exception" not in critical


def test_create_waits_for_a_broker_that_comes_late_and_none_is_left_behind(home: Path) -> None:
    port = free_port()
    settings = load(brokers=f"127.0.0.1:{port}", startup_timeout=60, partitions=1)
    waiting = subprocess.Popen(
        [sys.executable, "-m", "deploy.cli", "topics", "create"], env=environment(settings), stdout=subprocess.DEVNULL
    )
    try:
        with EmbeddedKafka(home, port) as broker:
            pid = broker.pid
            assert waiting.wait(60) == 0
            assert admin.check(settings).partitions == 1
            with pytest.raises(BrokerError, match="is already running"):
                EmbeddedKafka(home).start()
    finally:
        waiting.kill()
        waiting.wait(10)
    assert not EmbeddedKafka(home).alive
    with pytest.raises(ProcessLookupError):
        os.kill(pid, 0)
    with socket.create_server(("127.0.0.1", port)):
        pass  # its port is free at once
