"""Choose the demo's data: the named folder, a local copy of ml-latest-small, its download, or a generated data set."""

from __future__ import annotations

import io
import os
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
LIMIT: Final = 64 << 20  # maximum bytes of the download, and of each file in it
SECONDS: Final = 20.0  # maximum wait for an answer
GENERATED: Final = "generated"


def find(named: str | None, downloads: Path, report: Callable[[str], None]) -> DataSet:
    """Return the data to use. If a download fails, a small generated data set is used, and `report` receives a line about it.

    Args:
        named: A folder, `generated`, or None to look for the data.
        downloads: Folder for a download.
        report: Receives lines for people.

    Raises:
        DataError: The named folder is not in a known form.
    """
    if named == GENERATED:
        return generate()
    if named:
        return read(Path(named))
    for folder in candidates(downloads):
        if (folder / "ratings.csv").is_file():
            return read(folder)
    report(f"{NAME} not found; downloading {ORIGINAL}")
    try:
        return read(download(downloads))
    except DownloadError as error:
        report(f"{error}: continuing with a small generated data set; use DATA=folder to run on your own data")
        return generate()


def candidates(downloads: Path) -> Iterator[Path]:
    """Yield the folders where the data set may be; the first match is used. FRESHET_DATA is a folder of data sets."""
    if below := os.environ.get("FRESHET_DATA"):
        yield Path(below) / NAME
    yield Path(__file__).resolve().parents[3] / "shared" / "data" / NAME  # next to the checkout
    yield downloads / NAME


def download(downloads: Path, address: str = ORIGINAL) -> Path:
    """Download the public original and unpack it below `downloads` -> its folder. Raises DownloadError.

    The original is a development data set without a published checksum. Instead, its reader checks every line.
    """
    folder = downloads / NAME
    try:
        with urllib.request.urlopen(address, timeout=SECONDS) as answer:  # noqa: S310 - a fixed https address
            content = answer.read(LIMIT + 1)
        if len(content) > LIMIT:
            raise DownloadError(f"{address} is larger than the limit of {LIMIT >> 20} MiB")
        with zipfile.ZipFile(io.BytesIO(content)) as archive:
            found = {info.filename.rpartition("/")[2]: info for info in archive.infolist() if info.file_size <= LIMIT}
            missing = [name for name in FILES[:2] if name not in found]
            if missing:
                raise DownloadError(f"{address} has no {' and no '.join(missing)}")
            partial = downloads / f".{NAME}-{os.getpid()}"
            partial.mkdir(parents=True, exist_ok=True)
            for name in FILES:
                if name in found:
                    (partial / name).write_bytes(archive.read(found[name]))
        folder.mkdir(exist_ok=True)
        for name in reversed(FILES):  # the one by which `find` knows the folder comes last
            if name in found:
                (partial / name).replace(folder / name)
        partial.rmdir()
    except (urllib.error.URLError, OSError, zipfile.BadZipFile, EOFError) as error:
        reason = getattr(error, "reason", None) or error
        raise DownloadError(f"{address} cannot be downloaded ({reason})") from None
    return folder
