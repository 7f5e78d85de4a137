"""Fault 25 where there is a GPU: workers on it are killed, and another process takes all its memory.

pytest runs them with the others where CUDA works; `python -m tests.gpu.workers` where neither pytest nor torch's exporter is.
"""

from __future__ import annotations

import json
import subprocess
import sys
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from stream.settings import Settings
from tests.chaos.trial import Trial
from tests.worker_process import WorkerProcess, until

MEMORY = 4000.0  # MiB that a worker may have resident: CUDA's libraries are most of it

HOG = """
import select, sys, torch
held, full = [], False
while not full or not select.select([sys.stdin], [], [], 0.02)[0]:
    size = 1 << 30
    while size >= 1 << 20:
        try:
            held.append(torch.empty(size, dtype=torch.uint8, device="cuda"))
        except (torch.OutOfMemoryError, torch.AcceleratorError):
            size >>= 1
    if not full:
        full = True
        print(sum(map(len, held)) >> 20, flush=True)
"""


class Hog:
    """Another process that takes what is left of the GPU's memory, and what gets free, until it is closed. held: MiB at
    first."""

    def __init__(self) -> None:
        self._process = subprocess.Popen(
            [sys.executable, "-c", HOG], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )
        assert self._process.stdout is not None
        self.held = int(self._process.stdout.readline())

    def close(self) -> None:
        self._process.communicate(timeout=30)


def on_a_gpu(
    settings: Settings, bundles: Path, folder: Path, seed: int, name: str, providers: Sequence[str], **more: Any
) -> Trial:
    """A trial of one worker for each of `providers`."""
    each = [{"provider": one} for one in providers]
    trial = Trial(25, name, seed, settings, bundles, folder, workers=len(each), each=each, **more)
    trial.most = MEMORY
    return trial


def killed(settings: Settings, bundles: Path, folder: Path, seed: int) -> None:
    """Workers on a GPU are killed amid their work, three times."""
    with on_a_gpu(settings, bundles, folder, seed, "killed on a GPU", ("cuda", "cuda")) as trial:
        for worker in trial.workers:
            assert worker.metric("freshet_provider_info", provider="cuda", policy="cuda") == 1
        for _ in range(3):
            trial.works(300)
            trial.pause(0, 0.5)
            trial.kill(trial.one())
            trial.wait_ready()
        trial.note = "provider cuda, policy cuda"


def no_memory(settings: Settings, bundles: Path, folder: Path, seed: int) -> None:
    """Another process takes the whole memory of the GPU. A worker that starts then says so and ends; with `auto` one works on
    the CPU, and says why; once the memory is free again they all work."""
    providers = ("cuda", "cuda", "auto")
    with on_a_gpu(settings, bundles, folder, seed, "GPU out of memory", providers, allowed=(-9, 69, 70)) as trial:
        stays, dies, falls_back = trial.workers
        trial.works(300)
        for worker in (dies, falls_back):
            trial.kill(worker, again=False)
        hog = Hog()
        try:
            for worker in (dies, falls_back):
                trial.start(worker)
            ended = lambda: any(name == dies.name for name, _ in trial.exits)  # noqa: E731
            until(ended, 60, lambda: f"it ends for want of the GPU's memory:\n{dies.tail()}")
            last_message = last_words(dies)
            assert "out of memory" in last_message or "the accelerator fails" in last_message, last_message
            until(lambda: trial.ready(falls_back), 60, lambda: f"auto works on the CPU:\n{falls_back.tail()}")
            assert falls_back.metric("freshet_provider_info", provider="cpu", policy="auto") == 1
            trial.works(300)
        finally:
            hog.close()
        trial.wait_ready()
        trial.works(300)
        assert dies.metric("freshet_provider_info", provider="cuda", policy="cuda") == 1
        ends = Counter(f"{name} {code}" for name, code in trial.exits)
        worked = "" if any(name == stays.name for name, _ in trial.exits) else f"; {stays.name} worked on"
        trial.note = (
            f"{hog.held} MiB taken; ends: {', '.join(f'{one} ({times}x)' for one, times in sorted(ends.items()))}; "
            f"{last_message[:110]}...; auto: on the CPU{worked}"
        )


def last_words(worker: WorkerProcess) -> str:
    """The last CRITICAL message of all its runs."""
    lines = [line for line in worker.log.read_text().splitlines() if '"CRITICAL"' in line]
    return str(json.loads(lines[-1])["message"]) if lines else worker.tail()
