"""The whole demo as a process, on a small generated world: real broker, training, export, worker, replay, verify."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
import urllib.request
from pathlib import Path
from typing import Any

import pytest

from deploy.embedded_kafka import EmbeddedKafka
from models.data import event_messages, generate, item_messages, split_last
from tests.worker_process import until

pytestmark = pytest.mark.integration
KEYS = [
    "source", "events", "warmup", "applied", "lost", "double", "uncovered", "p50_ms", "p99_ms", "hit10",
    "hit10_popularity", "hit10_interval",
]  # fmt: skip
WORLD: dict[str, Any] = {"users": 30, "items": 80, "events": 60}


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Shared, so that the second demo finds the bundle of the first."""
    return tmp_path_factory.mktemp("demo")


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The generated world as a folder of freshet's own messages."""
    folder = tmp_path_factory.mktemp("world")
    world = generate(**WORLD)
    for message in [*item_messages(world.items), *event_messages(world.events)]:
        with (folder / f"{message.topic}.jsonl").open("ab") as file:
            file.write(message.value + b"\n")
    return folder


def demo(data: Path, home: Path, **more: str) -> subprocess.Popen[str]:
    command = [sys.executable, "-m", "deploy.cli", "demo", "--home", str(home), "--max-minutes", "0.2"]
    environment = {name: value for name, value in os.environ.items() if not name.startswith("FRESHET_")}
    return subprocess.Popen(
        command, env=environment | {"DATA": str(data)} | more, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT, text=True, cwd=home, start_new_session=True,
    )  # fmt: skip


def run_folder(home: Path) -> Path:
    (folder,) = (home / "runs").iterdir()
    return folder


def stopped(home: Path) -> bool:
    """Neither broker nor worker nor gateway of the last run is left."""
    folder = run_folder(home)
    for name in ("worker", "gateway"):
        assert f'"{name} stopped"' in (folder / f"{name}.log").read_text()
    return not EmbeddedKafka(folder / "kafka").pid


@pytest.mark.long
@pytest.mark.timeout(240)
def test_from_data_to_the_last_line(data: Path, home: Path) -> None:
    process = demo(data, home)
    output, _ = process.communicate(timeout=220)
    assert process.returncode == 0, output
    assert re.search(r"^page: http://127\.0\.0\.1:[0-9]+/demo \([0-9.]+ s\)$", output, re.MULTILINE), output
    name, _, last = output.splitlines()[-1].partition(" ")
    assert name == "demo:"
    found = json.loads(last)
    split = split_last(generate(**WORLD))
    assert list(found) == KEYS
    assert found["source"] == data.name
    assert found["events"] == len(split.held) > 0
    assert found["warmup"] == len(split.train)
    assert found["applied"] == len(split.train) + len(split.held)
    assert (found["lost"], found["double"], found["uncovered"]) == (0, 0, 0)
    assert 0 <= found["p50_ms"] <= found["p99_ms"]
    low, high = found["hit10_interval"]
    assert low <= found["hit10"] - found["hit10_popularity"] <= high
    assert stopped(home)
    written = json.loads((run_folder(home) / "figures.json").read_text())
    assert (round(written["freshet"], 5), round(written["popularity"], 5)) == (
        found["hit10"],
        found["hit10_popularity"],
    )
    assert written["final"]


@pytest.mark.faults
@pytest.mark.timeout(240)
@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_whoever_leaves_in_the_middle_leaves_nothing_behind(
    data: Path, home: Path, number: signal.Signals, code: int
) -> None:
    process = demo(data, home)
    assert process.stdout is not None
    for line in process.stdout:
        if line.startswith("warm-up"):
            process.send_signal(number)
            break
    output, _ = process.communicate(timeout=60)
    assert process.returncode == code, output
    assert "Traceback" not in output
    assert stopped(home)


@pytest.mark.faults
@pytest.mark.timeout(240)
@pytest.mark.parametrize(("name", "command"), [("worker", b"worker"), ("gateway", b"serve")])
def test_a_process_that_dies_ends_the_demo_with_one_line(data: Path, home: Path, name: str, command: bytes) -> None:
    process = demo(data, home)
    assert process.stdout is not None
    for line in process.stdout:
        if line.startswith("page: http"):
            address = line.split()[1]
            with urllib.request.urlopen(address, timeout=10) as answer:  # noqa: S310 - http on loopback
                assert b"<title>freshet demo</title>" in answer.read()
        if line.startswith("warm-up"):
            os.kill(child(process.pid, command), signal.SIGKILL)
            break
    output, _ = process.communicate(timeout=60)
    assert process.returncode == 70, output
    assert f"freshet: the {name} ended with exit code -9" in output
    assert "Traceback" not in output
    assert "demo: {" not in output
    assert not EmbeddedKafka(run_folder(home) / "kafka").pid


@pytest.mark.faults
@pytest.mark.timeout(240)
def test_a_demo_that_is_killed_takes_its_gateway_with_it(data: Path, home: Path) -> None:
    """A worker ends when its broker is gone; a gateway would wait for another one."""
    process = demo(data, home)
    assert process.stdout is not None
    for line in process.stdout:
        if line.startswith("warm-up"):
            break
    gateway = child(process.pid, b"serve")
    process.kill()
    process.communicate(timeout=30)
    until(lambda: not Path(f"/proc/{gateway}/cmdline").exists(), 40, "the gateway has ended")
    EmbeddedKafka(run_folder(home) / "kafka").stop()  # the next demo would do it


def child(parent: int, command: bytes) -> int:
    """Process id of the demo's worker or gateway."""
    children = Path(f"/proc/{parent}/task/{parent}/children").read_text().split()
    (found,) = [pid for pid in children if command in Path(f"/proc/{pid}/cmdline").read_bytes().split(b"\0")]
    return int(found)
