"""Dead letters from poison to slate on a real broker and worker: list, show, fix, replay, and replay again changes nothing."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from confluent_kafka import Message, Producer  # it sends null headers, which kafka-python refuses

from deploy.clients.murmur2 import murmur2
from deploy.verify import run
from stream.core.origin import ORIGINAL_RECORD_HEADER
from stream.core.state import Interest, decode
from stream.settings import Settings
from tests.integration.test_commands import Command
from tests.worker_process import Events, WorkerProcess, environment, read_all, slates, until

pytestmark = pytest.mark.integration
NOW = int(time.time() * 1000)
Body = dict[str, Any]


@pytest.fixture
def settings(world: Callable[..., Settings]) -> Settings:
    return world(partitions=2)


@pytest.fixture
def worker(settings: Settings, bundles: Path, tmp_path: Path) -> Iterator[WorkerProcess]:
    process = WorkerProcess(settings, tmp_path, bundles=bundles).start()
    yield process
    process.close()


class Desk:
    """Who sends bad records, and looks at what became of them."""

    def __init__(self, settings: Settings, worker: WorkerProcess) -> None:
        self.settings = settings
        self.worker = worker
        self.command = Command(settings)
        self.producer = Producer({"bootstrap.servers": settings.brokers, "partitioner": "murmur2_random"})
        self.clicks, self.ratings, _ = settings.sources
        events = Events(settings, users=1)
        events.send_items()
        events.close()

    def put(self, topic: str, key: bytes | None, value: bytes | Body, **more: Any) -> str:
        """-> topic/partition/offset"""
        raw = value if isinstance(value, bytes) else json.dumps(value).encode()
        landed: list[Message] = []
        self.producer.produce(topic, raw, key, on_delivery=lambda error, message: landed.append(message), **more)
        assert self.producer.flush(20) == 0
        assert landed[0].error() is None
        return f"{landed[0].topic()}/{landed[0].partition()}/{landed[0].offset()}"

    def settled(self) -> Any:
        """Wait until the worker is through, then hold it to the promise."""
        report = run(self.settings, wait=60)
        assert report.exit_code == 0, [str(violation) for violation in report.violations[:5]]
        return report

    def state(self, user: str) -> Interest:
        """The user's newest durable state."""
        found = [
            record.value
            for record in read_all(self.settings, self.settings.changelog_topic)
            if record.key == user.encode()
        ]
        return decode(found[-1])

    def statuses(self, *words: str, code: int = 0) -> dict[str, str]:
        """Source -> what `redrive` says of it."""
        report = self.command.json("deadletters", "redrive", *words, code=code)
        return {dead_letter["source"]: dead_letter["status"] for dead_letter in report["letters"]}

    def dead_letters(self, *words: str) -> list[Body]:
        found: list[Body] = self.command.json("deadletters", "list", *words)["letters"]
        return found


@pytest.fixture
def desk(settings: Settings, worker: WorkerProcess) -> Desk:
    made = Desk(settings, worker)
    worker.wait_ready()
    return made


def identity(state: Interest) -> tuple[int, bytes, bytes, bytes, bytes]:
    """All of a state but its fence, which a duplicate moves."""
    return state.seq, state.chain, state.h.tobytes(), state.c.tobytes(), state.recent


def test_from_poison_to_slate_and_never_twice(desk: Desk, tmp_path: Path) -> None:
    good = {"user": "alice", "item": "item-1", "time": NOW}
    desk.put(desk.clicks, b"alice", good)
    places = [
        desk.put(desk.clicks, b"alice", {"user": "alice", "movie": f"item-{2 + number}", "time": NOW})
        for number in range(3)
    ]
    keyless = desk.put(desk.ratings, None, good | {"item": "item-9", "value": 4}, partition=0)
    hopeless = desk.put(desk.ratings, b"alice", b'{"user": "ali', headers=[("trace", b"t1"), ("x", None)])
    before = desk.settled()
    assert (before.applied, before.dead_letters) == (1, 5)

    # list, count, show
    rows = desk.dead_letters()
    assert {"/".join(row[name] for name in ("topic", "partition", "offset")) for row in rows} == {
        *places,
        keyless,
        hopeless,
    }
    assert len(desk.dead_letters("--reason", "missing_field", "--limit", "2")) == 2
    assert desk.dead_letters("--until", "1h") == []
    assert len(desk.dead_letters("--since", "1h", "--oldest")) == 5
    summary = desk.command.json("deadletters", "list", "--summary")
    assert {(kind["reason"], kind["letters"]) for kind in summary["kinds"]} == {
        ("missing_field", 3), ("null_key", 1), ("malformed_json", 1),
    }  # fmt: skip
    shown = desk.command.run("deadletters", "show", places[0]).stdout
    assert "A field that every such message needs is absent." in shown
    assert "expected  item: string, 1 to 256 characters" in shown
    assert '  "movie": "item-2"' in shown
    whole = desk.command.json("deadletters", "show", hopeless)
    assert (whole["headers"], whole["value"]) == ([["trace", "t1"], ["x", None]], '{"user": "ali')
    assert desk.command.json("deadletters", "show", "/".join(map(str, whole["letter"]))) == whole

    # nothing goes back that would fail again
    assert set(desk.statuses("--all", code=65).values()) == {"still unacceptable"}

    # fix and replay
    file = tmp_path / "fix.jsonl"
    report = desk.command.json("deadletters", "fix", str(file), "--reason", "missing_field", "--rename", "movie=item")
    assert (report["letters"], report["refused"]) == (3, 0)
    assert file.stat().st_mode & 0o077 == 0
    desk.command.run("deadletters", "fix", str(file), "--all", code=2)  # it may hold corrections
    corrected = ("--corrected", str(file))
    assert desk.statuses(*corrected, "--dry-run") == dict.fromkeys(places, "would be sent")
    assert desk.settled().applied == 1
    assert desk.statuses(*corrected, "--rate", "20") == dict.fromkeys(places, "sent")
    named = tmp_path / "named.jsonl"
    desk.command.run("deadletters", "fix", str(named), "--all", "--key-from-user")
    sent = desk.statuses("--corrected", str(named), code=65)
    assert sent[keyless] == "sent"
    assert sent[hopeless] == "still unacceptable"
    after = desk.settled()
    assert (after.applied, after.dead_letters, after.duplicates) == (5, 5, 0)
    state = desk.state("alice")
    assert [recent.id for recent in state.recents()] == ["", *places, keyless]
    assert [recent.item for recent in state.recents()] == ["item-1", "item-2", "item-3", "item-4", "item-9"]

    # replay again: nothing is sent
    records = list(read_all(desk.settings, desk.clicks))
    assert desk.statuses(*corrected) == dict.fromkeys(places, "already sent back")
    assert list(read_all(desk.settings, desk.clicks)) == records

    # send all the same: nothing changes, the slate is repeated
    shown_before = slates(desk.settings, "alice")
    assert desk.statuses(*corrected, "--again") == dict.fromkeys(places, "sent")
    until(lambda: desk.worker.metric("freshet_events_total", outcome="duplicate") == 3, 30, "three duplicates")
    assert desk.settled().duplicates == 3
    assert identity(desk.state("alice")) == identity(state)
    repeated = slates(desk.settings, "alice")[len(shown_before) :]
    assert repeated
    assert {(slate["seq"], slate["chain"], slate["replay"], len(slate["events"])) for slate in repeated} == {
        (5, state.chain.hex(), True, 0)
    }


def test_what_was_sent_back_and_fails_again_is_still_the_same_event(desk: Desk, tmp_path: Path) -> None:
    first = desk.put(desk.ratings, b"bob", {"user": "bob", "item": "item-1", "time": NOW, "value": 50})
    desk.settled()
    file = tmp_path / "fix.jsonl"
    desk.command.run("deadletters", "fix", str(file), "--all", "--set", "value=7")
    wider = Command(desk.settings)  # a desk whose scale is wider than the worker's
    wider._environment |= environment(desk.settings, rating_scale=(0.5, 10))
    wider.run("deadletters", "redrive", "--corrected", str(file))
    report = desk.settled()
    assert (report.applied, report.dead_letters) == (0, 2)
    second = next(row for row in desk.dead_letters() if row["offset"] != first.rpartition("/")[2])
    position = "/".join(second[name] for name in ("topic", "partition", "offset"))
    assert desk.command.json("deadletters", "show", position)["origin"] == first
    right = tmp_path / "right.jsonl"
    desk.command.run("deadletters", "fix", str(right), "--all", "--set", "value=5")
    statuses = desk.statuses("--corrected", str(right))
    assert statuses == {first: "same record as a later letter", position: "sent"}
    assert desk.settled().applied == 1
    assert [recent.id for recent in desk.state("bob").recents()] == [first]
    assert set(desk.statuses("--corrected", str(right)).values()) == {"already sent back"}
    assert set(desk.statuses("--all").values()) == {"already sent back"}
    assert desk.statuses("--corrected", str(right), "--again")[position] == "sent"
    report = desk.settled()
    assert (report.applied, report.duplicates) == (1, 1)


HOSTILE: list[list[tuple[str, bytes | None]]] = [
    [(ORIGINAL_RECORD_HEADER, b"")],
    [(ORIGINAL_RECORD_HEADER, None)],
    [(ORIGINAL_RECORD_HEADER, b"\xff/\x00/\x1b[31m")],
    [(ORIGINAL_RECORD_HEADER, b"clicks/0/0" * 10_000)],
    [(ORIGINAL_RECORD_HEADER, b"%s/0/-1"), (ORIGINAL_RECORD_HEADER, b"%s/0/1")],
    [(ORIGINAL_RECORD_HEADER, b"%s/0/00")],
    [(ORIGINAL_RECORD_HEADER, b"%s/0/99999999999999999999")],
    [(ORIGINAL_RECORD_HEADER, b"%s/0/0\r\n")],
    [*[("x", b"y")] * 500, (ORIGINAL_RECORD_HEADER, b"?")],
    [("\u202e\x00", None), ("", b"")],
]  # fmt: skip


def test_hostile_replay_headers_harm_nobody(desk: Desk) -> None:
    """Mallory's records claim the places of alice's; every event of both counts once."""
    topic = desk.clicks.encode()
    for number, headers in enumerate(HOSTILE):
        named = [(name, value.replace(b"%s", topic) if value else value) for name, value in headers]
        desk.put(desk.clicks, b"mallory", {"user": "mallory", "item": f"item-{number}", "time": NOW}, headers=named)
    home = murmur2(b"alice") % desk.settings.partitions
    assert home == murmur2(b"mallory") % desk.settings.partitions
    begin = len(HOSTILE) + 20
    stolen = [f"{desk.clicks}/{home}/{offset}" for offset in range(begin, begin + 20)]  # alice's, before she has them
    for position in stolen:
        body = {"user": "mallory", "item": "item-1", "time": NOW}
        desk.put(desk.clicks, b"mallory", body, headers=[(ORIGINAL_RECORD_HEADER, position.encode())])
    hers = [
        desk.put(desk.clicks, b"alice", {"user": "alice", "item": f"item-{number}", "time": NOW})
        for number in range(20)
    ]
    assert hers == stolen
    report = desk.settled()
    assert (report.applied, report.duplicates) == (len(HOSTILE) + 40, 0)
    assert desk.state("alice").seq == 20
    assert [recent.id for recent in desk.state("mallory").recents()] == [""] * len(HOSTILE) + stolen
    assert desk.worker.process.poll() is None
