"""A start that is broken off, or that meets another one, leaves no process and no half-written folder behind."""

from __future__ import annotations

import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from deploy.embedded_kafka import EmbeddedKafka
from tests.worker_process import until

pytestmark = pytest.mark.integration


def begin(home: Path) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-m", "deploy.cli", "broker", "start", "--dir", str(home), "--port", "0"],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def java_below(home: Path) -> list[int]:
    """Pids of the brokers that were started on this folder."""
    wanted = str(home / "server.properties").encode()
    found = []
    for entry in Path("/proc").iterdir():
        try:
            if entry.name.isdigit() and wanted in (entry / "cmdline").read_bytes().split(b"\0"):
                found.append(int(entry.name))
        except OSError:
            pass  # it ended meanwhile
    return found


@pytest.mark.skipif(not Path("/proc/self").exists(), reason="looks for processes in /proc")
def test_an_interrupted_start_leaves_no_broker_behind(kafka: Any, tmp_path: Path) -> None:
    home = tmp_path / "kafka"
    starting = begin(home)
    try:
        until(lambda: (home / "broker.json").exists() or starting.poll() is not None, 60, "the broker is launched")
        starting.send_signal(signal.SIGINT)
        out, err = starting.communicate(timeout=60)
        assert (starting.returncode, out) == (130, "")
        assert "Traceback" not in err
        assert java_below(home) == []
        assert not (home / "broker.json").exists()
        with EmbeddedKafka(home) as broker:  # the folder is still good
            assert broker.alive
    finally:
        starting.kill()
        starting.communicate()
        EmbeddedKafka(home).stop()


def test_of_two_starts_at_once_one_runs_and_the_other_says_so(kafka: Any, tmp_path: Path) -> None:
    home = tmp_path / "kafka"
    both = [begin(home), begin(home)]
    try:
        outputs = [one.communicate(timeout=120) for one in both]
        assert sorted(one.returncode for one in both) == [0, 69]
        (refusal,) = [err for one, (_, err) in zip(both, outputs, strict=True) if one.returncode]
        assert refusal.startswith("freshet: ")
        assert refusal.count("\n") == 1
        assert "is currently starting a broker in" in refusal or "is already running" in refusal
        assert EmbeddedKafka(home).alive
    finally:
        for one in both:
            one.kill()
            one.communicate()
        EmbeddedKafka(home).stop()
