"""The README's "Use it", line by line as it stands: an empty folder, default settings, one's own data, to a slate.

With FIRST_DAY=fresh (`make first-day`) in a virtual environment made for it, by the README's own pip install; else in the tests'
environment, since that install downloads 3 GB. What each command took is printed.
"""

from __future__ import annotations

import json
import os
import re
import shlex
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.worker_process import until

pytestmark = [pytest.mark.integration, pytest.mark.faults, pytest.mark.timeout(3600)]

ROOT = Path(__file__).parents[2]
BROKER = ("127.0.0.1", 9092)
USERS, ITEMS, EACH = 60, 40, 15


def fresh(path: Path) -> tuple[Path, float]:
    """A clone and a virtual environment, installed as the README says -> its bin folder, seconds that the install took."""
    readme = (ROOT / "README.md").read_text()
    found = re.search(r"Installed with `(pip install [^`]+)`", readme)
    assert found, "the README names no install command"
    subprocess.run(["git", "clone", "--quiet", ROOT, path / "clone"], check=True)
    subprocess.run([sys.executable, "-m", "venv", path / "venv"], check=True)
    began = time.monotonic()
    subprocess.run(
        [path / "venv" / "bin" / "python", "-m", *shlex.split(found[1])],
        cwd=path / "clone",
        env={name: value for name, value in os.environ.items() if name not in ("PYTHONPATH", "VIRTUAL_ENV")},
        check=True,
    )
    return path / "venv" / "bin", time.monotonic() - began


def lines() -> list[str]:
    """The commands of "Use it", without their comments."""
    text = (ROOT / "README.md").read_text().split("## Use it", 1)[1]
    block = text.split("\n\n", 2)[2].split("\n\n", 1)[0]
    return [re.sub(r"\s+#.*", "", line).strip() for line in block.splitlines()]


class Folder:
    """An empty folder, and a shell in it: default settings, none from the environment. programs: the bin folder of the virtual
    environment; took: each command and its seconds."""

    def __init__(self, path: Path, programs: Path) -> None:
        self.path = path
        self.environment = {
            name: value
            for name, value in os.environ.items()
            if not name.startswith("FRESHET_") and name not in ("PYTHONPATH", "VIRTUAL_ENV")
        }
        self.environment["PATH"] = f"{programs}:{os.environ['PATH']}"
        self.workers: list[subprocess.Popen[bytes]] = []
        self.took: list[tuple[str, float]] = []

    def run(self, command: str) -> str:
        """What the command prints. It must end with 0."""
        began = time.monotonic()
        done = subprocess.run(
            self._program(command),
            cwd=self.path,
            env=self.environment,
            capture_output=True,
            text=True,
            timeout=300,
            check=False,
        )
        self.took.append((command, time.monotonic() - began))
        assert done.returncode == 0, f"{command}: {done.returncode}\n{done.stdout[-2000:]}\n{done.stderr[-2000:]}"
        return done.stdout

    def start(self, command: str) -> Path:
        """Run it in the background -> its log."""
        log = self.path / f"log-{len(self.workers)}"
        with log.open("wb") as out:
            self.workers.append(
                subprocess.Popen(self._program(command), cwd=self.path, env=self.environment, stdout=out, stderr=out)
            )
        return log

    def _program(self, command: str) -> list[str]:
        """As a shell with this environment's PATH finds it."""
        name, *arguments = shlex.split(command)
        found = shutil.which(name, path=self.environment["PATH"])
        assert found, f"{name} is not in {self.environment['PATH']}"
        return [found, *arguments]

    def ready(self, log: Path) -> bool:
        assert all(worker.poll() is None for worker in self.workers), log.read_text()
        return any(line.get("message") == "worker is ready" for line in log_lines(log))

    def close(self) -> None:
        for worker in self.workers:
            worker.kill()
        subprocess.run(
            self._program("freshet broker stop"), cwd=self.path, env=self.environment, capture_output=True, check=False
        )


def log_lines(log: Path) -> list[dict[str, str]]:
    return [json.loads(line) for line in log.read_text().splitlines() if line.startswith("{")]


@pytest.fixture
def folder(tmp_path: Path) -> Iterator[Folder]:
    with socket.socket() as probe:
        if not probe.connect_ex(BROKER):
            pytest.skip("something listens on 127.0.0.1:9092, the broker's default port")
    (tmp_path / "empty").mkdir()
    programs, install = Path(sys.executable).parent, 0.0
    if os.environ.get("FIRST_DAY") == "fresh":
        programs, install = fresh(tmp_path)
    made = Folder(tmp_path / "empty", programs)
    made.took.append(("pip install", install))
    yield made
    made.close()


def data(folder: Path) -> None:
    """One's own data, in a form that the README names: freshet's own messages. Users go round the items in one direction."""
    folder.mkdir()
    clicks = [
        f"u{user},i{(user * 7 + step) % ITEMS},{1_700_000_000_000 + (step * USERS + user) * 60_000}"
        for step in range(EACH)
        for user in range(USERS)
    ]
    (folder / "clicks.csv").write_text("\n".join(["user,item,time", *clicks]) + "\n")


def test_from_an_empty_folder_to_a_slate(folder: Folder) -> None:
    data(folder.path / "DATA")
    *commands, worker = lines()
    assert [command.split()[1] for command in commands] == ["broker", "topics", "train", "export"]
    assert worker == "freshet worker"
    for command in commands:
        folder.run(command)
    began = time.monotonic()
    logs = [folder.start(worker) for _ in range(2)]  # "start more"
    until(lambda: all(map(folder.ready, logs)), 120, "both workers are ready")
    folder.took.append((worker, time.monotonic() - began))
    takes = [
        line["message"]
        for log in logs
        for line in log_lines(log)
        if " taken" in line["message"] or "; this one uses " in line["message"]
    ]
    assert any("uses data/worker-2" in one for one in takes), takes
    assert any("web_port: 9464 is taken" in one for one in takes), takes

    folder.run("freshet replay DATA --rate 100")
    folder.run("freshet send click --user ada --item i7")
    until(lambda: "ada" in folder.run("freshet recommendations --user ada"), 60, "ada has a slate")
    assert re.findall(r"\bi\d+\b", folder.run("freshet recommendations --user ada"))
    print(*(f"{seconds:6.1f} s  {command}" for command, seconds in folder.took), sep="\n")
    print(f"{sum(seconds for _, seconds in folder.took):6.1f} s  in all, to the first slate of one's own data")

    for one in folder.workers:
        one.send_signal(signal.SIGTERM)
    assert [one.wait(30) for one in folder.workers] == [0, 0]
    folder.run("freshet verify")
