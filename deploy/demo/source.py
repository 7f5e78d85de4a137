"""Which data the demo runs on: the folder that was named, ml-latest-small where it lies, its download, a made-up world."""

from __future__ import annotations

import io
import os
import shutil
import urllib.error
import urllib.request
import zipfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Final

from models.data import DataSet, generate, read
from stream.core.errors import DownloadError

NAME: Final = "ml-latest-small"
ORIGINAL: Final = f"https://files.grouplens.org/datasets/movielens/{NAME}.zip"
FILES: Final = ("ratings.csv", "movies.csv", "tags.csv", "README.txt")
LIMIT: Final = 64 << 20  # bytes, of the download and of each file in it
SECONDS: Final = 20.0  # without an answer
GENERATED: Final = "generated"


def find(named: str | None, kept: Path, say: Callable[[str], None]) -> DataSet:
    """The data to use. named: a folder, `generated`, or None to look for it; kept: where a download is kept.

    Raises DataError where the named folder is in no known form. A download that fails is no error: `say` is told, and a
    small generated world takes its place.
    """
    if named == GENERATED:
        return generate()
    if named:
        return read(Path(named))
    for folder in places(kept):
        if (folder / "ratings.csv").is_file():
            return read(folder)
    say(f"{NAME} is not here; downloading {ORIGINAL}")
    try:
        return read(download(kept))
    except DownloadError as error:
        say(f"{error}: goes on with a small generated world; DATA=folder names data of your own")
        return generate()


def places(kept: Path) -> Iterator[Path]:
    """Where the data set may lie, the first one counts. FRESHET_DATA is a folder of data sets."""
    if below := os.environ.get("FRESHET_DATA"):
        yield Path(below) / NAME
    yield Path(__file__).resolve().parents[3] / "shared" / "data" / NAME  # beside the checkout
    yield kept / NAME


def download(kept: Path, address: str = ORIGINAL) -> Path:
    """Fetch the public original and unpack it below `kept` -> its folder. Raises DownloadError.

    The original is a development set without a published checksum: its reader checks every line instead.
    """
    folder = kept / NAME
    try:
        with urllib.request.urlopen(address, timeout=SECONDS) as answer:  # noqa: S310 - a fixed https address
            content = answer.read(LIMIT + 1)
        if len(content) > LIMIT:
            raise DownloadError(f"{address} is larger than {LIMIT >> 20} MiB")
        with zipfile.ZipFile(io.BytesIO(content)) as archive:
            found = {info.filename.rpartition("/")[2]: info for info in archive.infolist() if info.file_size <= LIMIT}
            missing = [name for name in FILES[:2] if name not in found]
            if missing:
                raise DownloadError(f"{address} has no {' and no '.join(missing)}")
            partial = kept / f".{NAME}-{os.getpid()}"
            partial.mkdir(parents=True, exist_ok=True)
            for name in FILES:
                if name in found:
                    (partial / name).write_bytes(archive.read(found[name]))
    except (urllib.error.URLError, OSError, zipfile.BadZipFile, EOFError) as error:
        reason = getattr(error, "reason", None) or error
        raise DownloadError(f"{address} cannot be had ({reason})") from None
    shutil.rmtree(folder, ignore_errors=True)
    partial.rename(folder)
    return folder
