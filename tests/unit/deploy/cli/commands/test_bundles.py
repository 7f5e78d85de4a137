"""`freshet bundles`: which bundle is meant, what is written, what is waited for, and what is said of it."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from hashlib import sha256
from pathlib import Path
from typing import Any, ClassVar

import pytest
from typer.testing import CliRunner, Result

from deploy.cli.commands import bundles as command
from deploy.cli.main import app
from deploy.clients.producer import Sent
from stream.core import bundle_log
from stream.core.bundle_log import Activate, Loaded, Refused, Switched
from stream.core.errors import BundleError, FreshetError
from stream.settings import load
from tests.unit.synthetic import Lists

SETTINGS = load()
TOPIC = SETTINGS.bundles_topic
TIME = 1_760_000_000_000
W1, W2, GATEWAY = "1" * 32, "2" * 32, "3" * 32
PARTITIONS = 2

Answer = Callable[["Topics", int, str], None]


class Topics(Lists):
    def close(self) -> None: ...

    def say(self, record: bundle_log.Record, after: float = 0.0) -> int:
        """Append a record. after: Seconds after TIME."""
        at = TIME + int(after * 1000)
        return self.append(TOPIC, 0, bundle_log.key_of(record), bundle_log.encode(record), (), at)

    def load(self, number: int, bundle: str, worker: str, process: Any = "worker") -> None:
        self.say(Loaded(number, bundle, worker, process, TIME, 1.5))

    def refuse(self, number: int, bundle: str, worker: str, process: Any = "worker") -> None:
        self.say(Refused(number, bundle, worker, process, TIME, "step.onnx: the file was changed"))

    def switch(self, number: int, bundle: str, partition: int, after: float = 0.0, epoch: int = 1) -> None:
        self.say(Switched(number, bundle, partition, 7, W1, epoch, TIME), after)


class Takes:
    """deploy.clients.producer's Producer: what it sends is in the topic, and the workers answer at once."""

    log: ClassVar[Topics]
    answer: ClassVar[Answer]

    def __init__(self, *arguments: Any, **more: Any) -> None: ...

    def __enter__(self) -> Takes:
        return self

    def __exit__(self, *error: object) -> None: ...

    def send(self, topic: str, key: bytes, value: bytes | None) -> Any:
        record = bundle_log.decode(key, value)
        assert topic == TOPIC
        assert isinstance(record, Activate)
        offset = self.log.append(topic, 0, key, value, (), TIME)
        type(self).answer(self.log, offset, record.bundle)
        return Sent(topic, 0, offset)

    def position(self, future: Sent) -> Sent:
        return future


def made(folder: Path, name: str, created: int) -> str:
    """A bundle as far as its manifest shows -> its id."""
    body = {"created": created, "data": {"name": name, "events": 1000}, "metrics": {"NDCG@10": 0.05}}
    raw = json.dumps(body).encode()
    identity = sha256(raw).hexdigest()
    (folder / identity).mkdir(parents=True)
    (folder / identity / "manifest.json").write_bytes(raw)
    return identity


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("FRESHET_BUNDLES", str(tmp_path / "bundles"))
    monkeypatch.setattr(command, "_check", lambda settings, bundle: None)
    monkeypatch.setattr(command, "QUIET", 0.3)
    monkeypatch.setattr(command, "POLL", 0.02)
    return tmp_path / "bundles"


@pytest.fixture
def old(folder: Path) -> str:
    identity = made(folder, "old", TIME - 86_400_000)
    (folder / "CURRENT").write_text(identity + "\n")
    return identity


@pytest.fixture
def new(folder: Path) -> str:
    return made(folder, "new", TIME)


@pytest.fixture
def topics(monkeypatch: pytest.MonkeyPatch) -> Topics:
    log = Topics([TOPIC], 1)
    log.topics[SETTINGS.recommendations_topic] = [[] for _ in range(PARTITIONS)]
    monkeypatch.setattr("deploy.clients.producer.Producer", Takes)
    monkeypatch.setattr("deploy.clients.log_reader.KafkaLog", lambda settings: log)
    monkeypatch.setattr("deploy.clients.admin.workers", lambda settings: 2)
    monkeypatch.setattr(Takes, "log", log, raising=False)
    monkeypatch.setattr(Takes, "answer", all_switch, raising=False)
    return log


def all_switch(log: Topics, number: int, bundle: str) -> None:
    for partition, worker in enumerate((W1, W2)):
        log.load(number, bundle, worker)
        log.switch(number, bundle, partition, after=2.5 + partition)
    log.load(number, bundle, GATEWAY, "gateway")


def said(*words: str, code: int = 0) -> Result:
    done = CliRunner().invoke(app, ["bundles", *words])
    error = done.exception
    found = error.exit_code if isinstance(error, FreshetError) else done.exit_code
    assert found == code, (done.output, error)
    return done


def failed(*words: str, code: int = 65) -> str:
    """What an error says."""
    return str(said(*words, code=code).exception)


def orders(log: Topics) -> list[str]:
    """The bundles that were activated."""
    found = [bundle_log.decode(row.key, row.value) for row in log.all(TOPIC)]
    return [one.bundle for one in found if isinstance(one, Activate)]


def test_list_shows_what_is_there_and_what_is_served(topics: Topics, folder: Path, old: str, new: str) -> None:
    assert said("list").stdout.splitlines() == [
        f"{old}  2025-10-08T08:53:20Z  old, 1,000 events  NDCG@10 0.0500  [CURRENT]",
        f"{new}  2025-10-09T08:53:20Z  new, 1,000 events  NDCG@10 0.0500",
    ]
    topics.say(Activate(new, TIME))
    done = said("list")
    assert done.stdout.splitlines()[1].endswith("[activated]")
    assert "CURRENT and the activation differ" in done.stderr
    body = json.loads(said("list", "--json").stdout)
    assert (body["current"], body["activated"]) == (old, new)
    assert body["bundles"][1] == {
        "bundle": new, "created": TIME, "data": {"name": "new", "events": 1000}, "metrics": {"NDCG@10": 0.05},
        "unusable": "", "current": False, "activated": True,
    }  # fmt: skip
    (folder / new / "manifest.json").write_text("{}")
    assert f"{new}  unusable: manifest.json is not the one of this id" in said("list").stdout
    shutil.rmtree(folder / new)
    assert f"the activated bundle {new} is not in" in said("list").stderr


def test_a_folder_without_bundles_or_that_is_not_there_is_named(topics: Topics, folder: Path) -> None:
    assert "cannot be read: No such file or directory" in failed("list")
    folder.mkdir()
    assert "holds no bundle: `freshet export RUN` makes one" in said("list").stderr
    assert "it holds no bundle" in failed("activate", "ab")


def test_activate_waits_until_all_have_switched(topics: Topics, old: str, new: str) -> None:
    done = said("activate", new[:8], "--reason", "better")
    assert done.stdout == "2 partitions switched in 3.5 s\n"
    assert orders(topics) == [new]
    body = json.loads(said("activate", new, "--json").stdout)
    assert {name: body[name] for name in ("bundle", "partitions", "switched", "seconds", "refused", "workers")} == {
        "bundle": new, "partitions": 2, "switched": 2, "seconds": 3.5, "refused": [], "workers": 2,
    }  # fmt: skip
    assert [one["process"] for one in body["loaded"]] == ["worker", "worker", "gateway"]


def test_what_a_prefix_means_is_said(topics: Topics, old: str, new: str) -> None:
    assert "expected the first hex digits of a bundle's id" in failed("activate", "newest")
    assert "2 bundles begin with it" in failed("activate", "") or "expected the first" in failed("activate", "")
    missing = "0" * 64 if not old.startswith("0") else "f" * 64
    assert f"{old[:12]}..." in failed("activate", missing)
    assert orders(topics) == []


def test_several_bundles_with_one_prefix_are_named(topics: Topics, folder: Path) -> None:
    for digit in "ab":
        (folder / ("c" + digit * 63)).mkdir(parents=True)
    assert "c: 2 bundles begin with it (caaaaaaaaaaa..., cbbbbbbbbbbb...): give more digits" in failed("activate", "c")


def test_a_bundle_that_cannot_be_used_is_not_activated(
    topics: Topics, new: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    def check(settings: Any, bundle: str) -> None:
        raise BundleError("step.onnx: the file was changed")

    monkeypatch.setattr(command, "_check", check)
    assert failed("activate", new) == "step.onnx: the file was changed"
    assert orders(topics) == []


def test_a_refusal_is_shown_and_is_no_success(topics: Topics, new: str, monkeypatch: pytest.MonkeyPatch) -> None:
    def one_refuses(log: Topics, number: int, bundle: str) -> None:
        log.load(number, bundle, W1)
        log.switch(number, bundle, 0, after=1)
        log.refuse(number, bundle, W2)

    monkeypatch.setattr(Takes, "answer", one_refuses)
    done = said("activate", new, code=1)
    assert done.stdout == "1 of 2 partitions switched\n"
    assert f"worker {W2} has refused {new[:12]} and serves what it had: step.onnx: the file was changed" in done.stderr
    assert json.loads(said("activate", new, "--json", code=1).stdout)["refused"][0]["worker"] == W2


def test_a_gateway_that_refuses_is_no_success_either(topics: Topics, new: str, monkeypatch: pytest.MonkeyPatch) -> None:
    def gateway_refuses(log: Topics, number: int, bundle: str) -> None:
        log.refuse(number, bundle, GATEWAY, "gateway")
        all_switch(log, number, bundle)

    monkeypatch.setattr(Takes, "answer", gateway_refuses)
    assert f"gateway {GATEWAY} has refused" in said("activate", new, code=1).stderr


def test_who_does_not_answer_is_waited_for_until_the_time_is_up(
    topics: Topics, new: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Takes, "answer", lambda log, number, bundle: log.load(number, bundle, W1))
    done = said("activate", new, "--wait", "0.5", code=3)
    assert done.stdout == "0 of 2 partitions switched\n"
    assert "not every partition has switched within 0.5 s" in done.stderr
    assert said("activate", new, "--no-wait").stdout == ""


def test_without_a_worker_nothing_is_waited_for(topics: Topics, new: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("deploy.clients.admin.workers", lambda settings: 0)
    monkeypatch.setattr(Takes, "answer", lambda log, number, bundle: None)
    assert "no worker runs: the next one to start serves it" in said("activate", new).stderr


def test_rollback_activates_the_bundle_before(topics: Topics, old: str, new: str) -> None:
    assert "nothing was activated yet" in failed("rollback")
    said("activate", new)
    said("rollback")
    assert orders(topics) == [new, old], "before the first activation it was the one of CURRENT"
    said("rollback")
    assert orders(topics)[2:] == [new]
    shown = said("history").stdout.splitlines()
    assert shown[1].endswith(f"rollback of {new[:12]}")


def test_rollback_takes_what_the_workers_served_before_the_first_activation(
    topics: Topics, folder: Path, old: str, new: str
) -> None:
    third = made(folder, "third", TIME + 1)
    topics.switch(-1, third, 0)
    said("activate", new)
    said("rollback")
    assert orders(topics) == [new, third], "CURRENT may have been changed since"


def test_rollback_takes_what_the_first_switch_says_was_served_before(
    topics: Topics, folder: Path, old: str, new: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """`freshet export` has made the new bundle CURRENT before it was activated."""
    (folder / "CURRENT").write_text(new + "\n")
    answer = Takes.answer

    def switches(log: Any, number: int, bundle: str) -> None:
        if number == 0:
            topics.switch(-1, old, 0)
        answer(log, number, bundle)

    monkeypatch.setattr(Takes, "answer", switches)
    said("activate", new)
    said("rollback")
    assert orders(topics) == [new, old]
    said("rollback")
    assert orders(topics) == [new, old, new]


def test_rollback_without_another_bundle_says_so(topics: Topics, old: str) -> None:
    said("activate", old)
    assert f"before {old[:12]}... no other bundle was in force" in failed("rollback")


def test_history_tells_what_became_of_each_activation(topics: Topics, old: str, new: str) -> None:
    assert "nothing was activated yet" in said("history").stderr
    number = topics.say(Activate(new, TIME, "first\nline"))
    all_switch(topics, number, new)
    second = topics.say(Activate(old, TIME), after=60)
    topics.refuse(second, old, W2)
    topics.switch(second, old, 0, after=61, epoch=5)
    topics.switch(second, old, 1, after=62, epoch=0)  # of a worker that has lost the partition
    topics.append(TOPIC, 0, b"activate", b"{", (), TIME)
    done = said("history")
    assert done.stdout.splitlines() == [
        f"{number} 2025-10-09T08:53:20Z {new[:12]} switched in 3.5 s  first\\nline",
        f"{second} 2025-10-09T08:54:20Z {old[:12]} 1 of 2 partitions switched",
    ]
    assert f"worker {W2} has refused {old[:12]}" in done.stderr
    first, last = json.loads(said("history", "--json").stdout)["activations"]
    assert (first["activation"], first["reason"], first["seconds"], first["switched"]) == (
        number,
        "first\nline",
        3.5,
        2,
    )
    assert (last["seconds"], last["switched"], last["refused"][0]["process"]) == (None, 1, "worker")


def test_a_reason_that_is_too_long_is_wrong_usage(topics: Topics, new: str) -> None:
    said("activate", new, "--reason", "x" * 1025, code=2)
    assert orders(topics) == []
