"""Download Prometheus and promtool into FOLDER/bin, pinned and checked by SHA-256, without root:
`python -m scripts.prometheus FOLDER`.

The project's own release comes first. If it cannot be downloaded, Debian's package is used: apt-get downloads it into
its own lists, and it is unpacked, never installed. The exit code is 0 even if neither is available, and a line reports
that. The tests that need the tools are then skipped with that reason. A file with another hash is an error (1), and is
never used.
"""

from __future__ import annotations

import argparse
import hashlib
import platform
import shutil
import subprocess
import sys
import tarfile
import tempfile
import urllib.request
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from stream.core.errors import DownloadError

FOLDER: Final = Path(__file__).resolve().parents[1] / ".tools"
BINARIES: Final = ("prometheus", "promtool")
TIMEOUT: Final = 30  # seconds without data


class Unavailable(DownloadError):
    """The file is not available from this source."""


class WrongHash(DownloadError):
    """The file is not the pinned one."""


@dataclass(frozen=True)
class Archive:
    """A pinned file: its version, its SHA-256, and the machine that it is built for."""

    version: str
    sha256: str
    machine: str

    def fits(self) -> bool:
        return sys.platform == "linux" and platform.machine() == self.machine


RELEASE: Final = Archive("2.53.4", "b8b497c4610d1b93208252b60c8f20f6b2e78596ae8df43397a2e805aa53d475", "x86_64")
DEBIAN: Final = Archive(
    "2.42.0+ds-5+deb12u1", "81d59a24fce84f7fbe97a45a4f2914b6a5881b5cd1db2a6a0e129e515e1a5f55", "x86_64"
)
RELEASES: Final = "https://github.com/prometheus/prometheus/releases/download"


def from_release(folder: Path, unpacked: Path, archive: Archive = RELEASE, releases: str = RELEASES) -> None:
    """Download the project's tarball and unpack it into `unpacked`. Raises Unavailable, WrongHash."""
    name = f"prometheus-{archive.version}.linux-amd64"
    file = folder / f"{name}.tar.gz"
    try:
        address = f"{releases}/v{archive.version}/{file.name}"
        with urllib.request.urlopen(address, timeout=TIMEOUT) as body, file.open("wb") as out:  # noqa: S310
            shutil.copyfileobj(body, out)
    except (OSError, ValueError) as error:
        raise Unavailable(f"the release cannot be fetched: {error}") from None
    check(file, archive)
    with tarfile.open(file) as packed:
        for binary in BINARIES:
            content = packed.extractfile(f"{name}/{binary}")
            if content is None:
                raise Unavailable(f"no {binary} in {file.name}")
            with content, (unpacked / binary).open("wb") as out:
                shutil.copyfileobj(content, out)


def from_debian(folder: Path, unpacked: Path, archive: Archive = DEBIAN) -> None:
    """Download Debian's package and unpack it into `unpacked`. Raises Unavailable, WrongHash."""
    if not (shutil.which("apt-get") and shutil.which("dpkg-deb")):
        raise Unavailable("apt-get or dpkg-deb is not installed")
    for name in ("lists/partial", "cache/archives/partial"):
        (folder / name).mkdir(parents=True)
    options = {
        "Dir::State::lists": folder / "lists",  # the system's own need root
        "Dir::Cache": folder / "cache",
        "APT::Sandbox::User": "",  # no switch to another user, who could not write here
        "Acquire::Languages": "none",
    }
    apt = ["apt-get", "-qq", *(word for name, value in options.items() for word in ("-o", f"{name}={value}"))]
    subprocess.run(
        [*apt, "update"], cwd=folder, capture_output=True, check=False
    )  # one broken source is not a reason to stop
    done = subprocess.run(
        [*apt, "download", f"prometheus={archive.version}"], cwd=folder, capture_output=True, check=False
    )
    if done.returncode:
        raise Unavailable(
            f"Debian's prometheus {archive.version} cannot be fetched: {done.stderr.decode().strip()[:200]}"
        )
    (file,) = folder.glob("*.deb")
    check(file, archive)
    subprocess.run(["dpkg-deb", "-x", file.name, "tree"], cwd=folder, check=True)
    for binary in BINARIES:
        shutil.copy(folder / "tree" / "usr" / "bin" / binary, unpacked / binary)


PLACES: Final[tuple[tuple[Archive, Callable[[Path, Path], None]], ...]] = (
    (RELEASE, from_release),
    (DEBIAN, from_debian),
)


def check(file: Path, archive: Archive) -> None:
    """Check the file's SHA-256. Raises WrongHash."""
    with file.open("rb") as content:
        found = hashlib.file_digest(content, "sha256").hexdigest()
    if found != archive.sha256:
        raise WrongHash(f"{file.name} has SHA-256 {found}, expected {archive.sha256}")


def bring(target: Path) -> str:
    """Put the binaries into `target`/bin and return their version.

    Raises:
        Unavailable: No source has them; the message says what was tried.
        WrongHash: A file is not the pinned one.
    """
    mark = target / "prometheus.version"
    places = [(archive, fetch) for archive, fetch in PLACES if archive.fits()]
    here = mark.read_text().strip() if mark.is_file() else ""
    if here in {archive.version for archive, _ in places} and all((target / "bin" / one).is_file() for one in BINARIES):
        return here
    reasons = []
    for archive, fetch in places:
        with tempfile.TemporaryDirectory() as scratch:
            unpacked = Path(scratch) / "bin"
            unpacked.mkdir()
            try:
                fetch(Path(scratch), unpacked)
            except Unavailable as error:
                reasons.append(str(error))
                continue
            (target / "bin").mkdir(parents=True, exist_ok=True)
            for binary in BINARIES:
                moved = target / "bin" / binary
                moved.unlink(missing_ok=True)  # a running one keeps its old file
                shutil.move(unpacked / binary, moved)
                moved.chmod(0o755)
            mark.write_text(archive.version + "\n")
            return archive.version
    raise Unavailable("; ".join(reasons) or f"no build is pinned for {sys.platform} on {platform.machine()}")


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m scripts.prometheus", description=__doc__)
    parser.add_argument("folder", nargs="?", type=Path, default=FOLDER, help="default: %(default)s")
    target: Path = parser.parse_args().folder
    try:
        version = bring(target)
    except Unavailable as error:
        print(f"Prometheus is not available here, so its tests will be skipped: {error}", file=sys.stderr)
        return 0
    except WrongHash as error:
        print(f"refused: {error}", file=sys.stderr)
        return 1
    print(f"Prometheus and promtool {version} are in {target / 'bin'}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
