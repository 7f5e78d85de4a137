"""Build the clients, and the programs of examples/ that are not in Python, into FOLDER/bin: `python -m tests.clients.setup
FOLDER` (`make clients`).

Each needs its language's own tools (node and npm, go, cargo, javac), and kcat is Debian's. What cannot be built is named with
the reason, and its test skips; the exit code is 0.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Final

from deploy.embedded_kafka.jars import classpath

HERE: Final = Path(__file__).parent
EXAMPLES: Final = HERE.parents[1] / "examples"
LIMIT: Final = 1200  # seconds for one build


def build_kafkajs(folder: Path) -> None:
    """npm: kafkajs beside its programs."""
    target = folder / "node"
    shutil.copytree(HERE / "node", target, dirs_exist_ok=True)
    shutil.copy(EXAMPLES / "send_event.js", target)
    _run("npm", "install", "--no-package-lock", "--no-audit", "--no-fund", cwd=target)
    _script(folder / "bin" / "kafkajs", f'exec node "{target}/kafkajs.js" "$@"')
    _script(folder / "bin" / "example-node", f'exec node "{target}/send_event.js" "$@"')


def build_go(folder: Path) -> None:
    """go: franz-go, sarama, segmentio/kafka-go."""
    target = folder / "go"  # outside the checkout: the example becomes a package of its own
    shutil.copytree(HERE / "go", target, dirs_exist_ok=True)
    (target / "example-go").mkdir(exist_ok=True)
    shutil.copy(EXAMPLES / "send_event.go", target / "example-go")
    for name in ("franz", "sarama", "segmentio", "example-go"):
        _run("go", "build", "-mod=readonly", "-o", str(folder / "bin" / name), f"./{name}", cwd=target)


def build_rdkafka(folder: Path) -> None:
    """cargo: rdkafka with its own librdkafka."""
    # Outside the checkout: cargo writes Cargo.lock beside what it builds.
    target = folder / "rust"
    shutil.copytree(HERE / "rust", target, dirs_exist_ok=True)
    shutil.copy(EXAMPLES / "send_event.rs", target)
    _run("cargo", "build", "--release", cwd=target)
    for program, name in (("rdkafka-client", "rdkafka"), ("example", "example-rust")):
        shutil.copy(target / "target" / "release" / program, folder / "bin" / name)


def build_java(folder: Path) -> None:
    """javac: the Java client of the embedded broker's release, run by the same Java runtime as the broker."""
    from deploy.embedded_kafka.jars import java

    jars = ":".join(map(str, classpath()))
    sources = [str(HERE / "java" / "Send.java"), str(EXAMPLES / "SendEvent.java")]
    _run("javac", "--release", "17", "-d", str(folder / "java"), "-cp", jars, *sources)
    for program, name in (("Send", "java-client"), ("SendEvent", "example-java")):
        _script(folder / "bin" / name, f'exec "{java()}" -cp "{folder}/java:{jars}" {program} "$@"')


def build_kcat(folder: Path) -> None:
    """kcat, if it is installed."""
    if not (found := shutil.which("kcat")):
        raise FileNotFoundError("kcat is not installed (Debian: apt-get install kcat)")
    _script(folder / "bin" / "kcat", f'exec "{found}" -P -b "$1" -t "$2" -K \'\t\'')


BUILDS: Final[dict[str, Callable[[Path], None]]] = {
    "kafkajs": build_kafkajs,
    "franz-go, sarama, segmentio/kafka-go": build_go,
    "rdkafka": build_rdkafka,
    "Java": build_java,
    "kcat": build_kcat,
}


def _run(*command: str, cwd: Path | None = None) -> None:
    subprocess.run(command, cwd=cwd, check=True, timeout=LIMIT, stdin=subprocess.DEVNULL, stdout=sys.stderr)


def _script(path: Path, line: str) -> None:
    path.write_text(f"#!/bin/sh\n{line}\n")
    path.chmod(0o755)


def main(folder: Path) -> None:
    """Build them all, and say for each what became of it."""
    (folder / "bin").mkdir(parents=True, exist_ok=True)
    for name, build in BUILDS.items():
        try:
            build(folder)
        except (OSError, subprocess.SubprocessError) as error:
            print(f"{name}: cannot be built here, its test skips: {error}")
        else:
            print(f"{name}: built")


if __name__ == "__main__":
    main(Path(os.path.abspath(sys.argv[1])))
