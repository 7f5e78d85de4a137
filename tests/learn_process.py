"""Real `freshet learn` processes for the tests, and the data that they learn from."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import polars as pl

from models.data import DataSet, event_messages, item_messages
from stream.core.messages import SOURCE_TOPICS
from stream.settings import Settings
from tests.worker_process import WorkerProcess, environment


class LearnProcess(WorkerProcess):
    """One `freshet learn` over `folder`/data, /runs and /bundles that answers /metrics at a port."""

    def __init__(self, settings: Settings, folder: Path, port: int, name: str = "l1") -> None:
        super().__init__(settings, folder, name)
        self._environment["OMP_NUM_THREADS"] = "1"  # the networks are small
        self.folder = folder
        self.address = f"127.0.0.1:{port}"
        self._port = port

    def learns(self, *options: str) -> LearnProcess:
        """Start it with these options."""
        own = ["--runs", str(self.folder / "runs"), "--bundles", str(self.folder / "bundles")]
        self.command = [
            "tests.learn_faults",
            str(self.folder / "data"),
            *own,
            "--metrics-port",
            str(self._port),
            *options,
        ]
        self.start()
        return self

    def port(self) -> int:
        return self._port


def learned(settings: Settings, folder: Path, *options: str) -> dict[str, Any]:
    """One turn over `folder`/history, /runs and /bundles -> what it says. The history is captured first."""
    own = ["--runs", str(folder / "runs"), "--bundles", str(folder / "bundles"), "--once", "--json"]
    done = subprocess.run(
        [sys.executable, "-m", "tests.learn_faults", str(folder / "history"), *own, *options],
        env=environment(settings) | {"OMP_NUM_THREADS": "1"}, capture_output=True, text=True, timeout=300, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr[-3000:]
    said: dict[str, Any] = json.loads(done.stdout)
    return said


def write_days(data: DataSet, folder: Path, until: int) -> None:
    """The events before `until` (epoch ms) as a log of freshet's own messages."""
    folder.mkdir(exist_ok=True)
    lines: dict[str, list[bytes]] = {name: [] for name in (*SOURCE_TOPICS, "items")}
    events = data.events.filter(pl.col("time") < until)
    for message in (*event_messages(events), *item_messages(data.items)):
        lines[message.topic].append(message.value)
    for name, found in lines.items():
        partial = folder / f".{name}"
        partial.write_bytes(b"\n".join(found) + b"\n")
        partial.replace(folder / f"{name}.jsonl")
