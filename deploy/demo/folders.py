"""The demo's folders. Each run has a fresh folder and holds a lock on it. Leftovers that nobody locks are removed; what the
demo did not make stays."""

from __future__ import annotations

import fcntl
import shutil
import tempfile
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path

from deploy.embedded_kafka import EmbeddedKafka

LOCK = "lock"
KAFKA = "kafka"


@contextmanager
def run_folder(home: Path) -> Iterator[Path]:
    """Create a new folder below home/runs.

    Earlier runs are removed first, and their brokers are stopped if they still run. A run that is in progress in
    another terminal holds its lock and is not touched. The new folder stays afterwards so that its logs can be read.
    """
    runs = home.absolute() / "runs"
    runs.mkdir(parents=True, exist_ok=True)
    with ExitStack() as held:
        with (home / LOCK).open("w") as one_at_a_time:
            fcntl.flock(one_at_a_time, fcntl.LOCK_EX)
            for old in sorted(runs.iterdir()):
                _remove(old)
            folder = Path(tempfile.mkdtemp(prefix=time.strftime("%Y%m%d-%H%M%S-"), dir=runs))
            lock = held.enter_context((folder / LOCK).open("w"))
            fcntl.flock(lock, fcntl.LOCK_EX)
        yield folder


def _remove(old: Path) -> None:
    try:
        with (old / LOCK).open("r+") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            if lock.read(1):
                return  # the demo writes nothing into its lock: this folder is not its own
            EmbeddedKafka(old / KAFKA).stop()  # its worker, if there is one, ends when the broker is gone
    except BlockingIOError:
        return
    except OSError:  # no lock file: the run was cut off before it had anything
        with suppress(OSError):
            old.rmdir()
        return
    shutil.rmtree(old, ignore_errors=True)
