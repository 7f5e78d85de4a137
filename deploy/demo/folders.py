"""The demo's folders. Each run has a fresh one and holds a lock on it; unlocked ones are left over and removed."""

from __future__ import annotations

import fcntl
import os
import shutil
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from deploy.kafka import EmbeddedKafka

LOCK = "lock"
KAFKA = "kafka"


@contextmanager
def run_folder(home: Path) -> Iterator[Path]:
    """A new folder below home/runs. Older runs are removed first, their brokers stopped if they still run; a run that
    is under way in another terminal holds its lock and is left alone. The folder stays for a look at its logs."""
    runs = home.absolute() / "runs"
    runs.mkdir(parents=True, exist_ok=True)
    for old in sorted(runs.iterdir()):
        _remove(old)
    folder = runs / f"{time.strftime('%Y%m%d-%H%M%S')}-{os.getpid()}"
    folder.mkdir()
    with (folder / LOCK).open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield folder


def _remove(old: Path) -> None:
    try:
        with (old / LOCK).open("r+") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            EmbeddedKafka(old / KAFKA).stop()  # its worker, if any, ends by itself when the broker is gone
    except BlockingIOError:
        return
    except OSError:
        pass  # no lock file: a run that broke off before it had one
    shutil.rmtree(old, ignore_errors=True)
