"""The processes that are measured: freshet workers and stock Faust agents, behind one face."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

from stream.settings import Settings
from tests.worker_process import WorkerProcess, environment, until

TICKS = os.sysconf("SC_CLK_TCK")


class Subject(Protocol):
    """Something that takes events. `done`: events it has finished since it was started."""

    @property
    def pid(self) -> int: ...

    def start(self) -> None: ...

    def done(self) -> int: ...

    def close(self) -> None: ...


@dataclass(frozen=True)
class ReadBack:
    """A recovery: changelog records, and the seconds from the first one read to the last."""

    records: int
    seconds: float

    @property
    def rate(self) -> float:
        return self.records / max(self.seconds, 1e-3)


class Freshet:
    """A `freshet worker`. `more`: settings for it alone."""

    def __init__(self, settings: Settings, folder: Path, bundles: Path, **more: Any) -> None:
        self.worker = WorkerProcess(settings, folder, bundles=bundles, **more)

    @property
    def pid(self) -> int:
        return self.worker.process.pid

    def start(self) -> None:
        self.worker.start().wait_ready(120)

    def done(self) -> int:
        return int(self.worker.metric("freshet_events_total"))

    def read_back(self) -> ReadBack:
        """As the worker told when it was ready."""
        ready = next(line for line in self.worker.lines() if line["message"] == "worker is ready")
        return ReadBack(ready["recovered"], ready["recovery_seconds"])

    def close(self) -> None:
        self.worker.close()


class Stock:
    """A stock Faust agent; kind and sizes as in tests.bench.stock."""

    def __init__(self, settings: Settings, folder: Path, kind: str, sizes: tuple[int, int] = (0, 0)) -> None:
        self._folder = folder
        self._kind = kind
        self.data_dir = folder / "data"
        self.changelog_topic = f"{settings.app_id}-state-changelog"
        self._progress = folder / f"stock-{kind}"
        self._environment = environment(settings, data_dir=self.data_dir) | {
            "BENCH_PROGRESS": str(self._progress),
            "BENCH_SIZES": ",".join(map(str, sizes)),
        }
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def pid(self) -> int:
        assert self._process is not None, "start() first"
        return self._process.pid

    def start(self) -> None:
        self._progress.unlink(missing_ok=True)
        with (self._folder / "stock.log").open("ab") as out:
            self._process = subprocess.Popen(
                [sys.executable, "-m", "tests.bench.stock", self._kind],
                env=self._environment, stdin=subprocess.DEVNULL, stdout=out, stderr=out,
            )  # fmt: skip
        until(self._progress.exists, 60, f"stock {self._kind} starts")

    def done(self) -> int:
        return int(self._told()[0])

    def wait_ready(self, seconds: float) -> ReadBack:
        """Assigned, and its table read back."""
        until(lambda: self._progress.exists() and self._told()[1] == "1", seconds, f"stock {self._kind} is ready")
        return ReadBack(int(self._told()[2]), float(self._told()[3]))

    def _told(self) -> list[str]:
        if self._process is None or self._process.poll() is not None:
            raise RuntimeError("the stock agent ended:\n" + (self._folder / "stock.log").read_text()[-2000:])
        return self._progress.read_text().split()

    def terminate(self) -> None:
        assert self._process is not None, "start() first"
        self._process.terminate()
        self._process.wait(30)

    def close(self) -> None:
        if self._process is not None and self._process.poll() is None:
            self._process.send_signal(signal.SIGCONT)
            self._process.kill()
            self._process.wait(10)


def cpu_seconds(pid: int) -> float:
    """User and system time of a process and all its threads so far."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / TICKS


def resident_mib(pid: int) -> float:
    for line in Path(f"/proc/{pid}/status").read_text().splitlines():
        if line.startswith("VmRSS:"):
            return int(line.split()[1]) / 1024
    return float("nan")
