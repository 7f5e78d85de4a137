"""Real captures for the tests: the command, and what the folder holds."""

from __future__ import annotations

import subprocess
import sys
from collections import Counter
from pathlib import Path

from models.data.capture import ranges, table
from stream.core.messages import SOURCE_TOPICS
from stream.settings import Settings
from tests.worker_process import environment


def captured(settings: Settings, folder: Path, *options: str) -> subprocess.CompletedProcess[str]:
    """Capture up to the present ends."""
    return subprocess.run(
        command(folder, *options), env=environment(settings), capture_output=True, text=True, timeout=120, check=False
    )


def command(folder: Path, *options: str) -> list[str]:
    return [sys.executable, "-m", "deploy.cli", "capture", str(folder), *options]


def held(settings: Settings, folder: Path) -> Counter[tuple[str, int, int]]:
    """How often each record is in the folder: (topic, partition, offset)."""
    return Counter(
        (kind, partition, offset)
        for kind in SOURCE_TOPICS
        for partition in range(settings.partitions)
        for one in ranges(folder, kind, partition)
        for path in one.path.glob("*.parquet")
        for offset in table(path)["offset"].to_list()
    )


def ranges_in(folder: Path) -> int:
    """The number of ranges that are whole."""
    return len(list(folder.glob("*/*/*/range.json")))
