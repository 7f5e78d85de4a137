"""Open one file, or a folder of files, plain or packed (gzip, zstandard), as text or bytes, for the readers.

A file name that a reader requests matches the file with that name, or with that name and .gz or .zst after it, in upper
or lower case. Text is returned without its byte order mark, and every line end (LF, CRLF, CR) becomes one LF.
"""

from __future__ import annotations

import gzip
import io
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import zstandard

from stream.core.errors import DataError

PACKED: Final = (".gz", ".zst")
GZIP: Final = b"\x1f\x8b"
ZSTD: Final = b"\x28\xb5\x2f\xfd"
WIDE: Final = (b"\xff\xfe", b"\xfe\xff")
LONGEST: Final = 1 << 20
AROUND: Final = 12  # bytes around a wrong one that an error shows
NOT_DATA: Final = (
    "readme", "license", "licence", "copying", "notice", "citation", "authors", "changelog", "checksums", "md5sum", "sha256sum",
    "_success", "thumbs.db", "desktop.ini",
)  # fmt: skip
"""Files whose names begin with one of these are for people and hold no data, unless the names end in one of TABLES."""
TABLES: Final = (
    ".csv", ".tsv", ".tab", ".psv", ".json", ".jsonl", ".ndjson", ".parquet", ".dat", ".data", ".inter", ".item", ".xls", ".xlsx",
    ".bz2", ".xz", ".zip", ".feather", ".arrow", ".avro", ".orc",
)  # fmt: skip
PROSE: Final = (
    ".md", ".rst", ".pdf", ".htm", ".html", ".png", ".jpg", ".jpeg", ".gif", ".svg", ".md5", ".sha1", ".sha256", ".py", ".ipynb",
    ".sh", ".pl",
)  # fmt: skip
"""Suffixes of files that clearly hold no data: texts for people, pictures, checksums, programs."""
BROKEN: Final = (OSError, EOFError, zlib.error, zstandard.ZstdError)
"""What reading a packed file raises if the file is cut short or damaged."""
Scale = tuple[float, float]
"""The smallest and the largest rating."""


@dataclass(frozen=True)
class Source:
    """The file or folder with the data to read.

    Attributes:
        path: The given file or folder.
        files: Name in lower case without .gz or .zst -> path.
        rating_scale: The rating scale given for these data. None if the form's own scale applies.
        twins: Pairs of files in the folder with the same name in `files`; the first of a pair is the one that is read.
    """

    path: Path
    files: dict[str, Path]
    rating_scale: Scale | None = None
    twins: tuple[tuple[Path, Path], ...] = ()

    @property
    def name(self) -> str:
        """Return the name for people: the folder's name, or the file's without its suffixes."""
        return self.path.name if self.path.is_dir() else plain_name(self.path).rsplit(".", 1)[0]

    def scale(self, own: Scale) -> Scale:
        """Return the rating scale for these data. own: the form's scale."""
        return self.rating_scale or own

    def find(self, *names: str) -> Path | None:
        """Return the first of these files that exists. If a single file was given, only its own name matches."""
        return next((self.files[name.lower()] for name in names if name.lower() in self.files), None)

    def need(self, name: str) -> Path:
        """Return the file that `find` returns. Raises DataError if it is missing."""
        if (path := self.find(name)) is None:
            raise DataError(f"{self.path}: {name} is missing; expected it next to the other files")
        return path

    @property
    def listed(self) -> list[Path]:
        """Return the files that may hold data, sorted by name. Hidden files and files for people are left out."""
        return [path for name, path in sorted(self.files.items()) if not is_without_data(name)]

    def only(self, *suffixes: str) -> Path | None:
        """Return the only file that may hold data and whose name (without .gz or .zst) ends in one of these suffixes.

        It is the single file that was given, or a file of the folder. Returns None if there is no such file or several.
        """
        found = [path for path in self.listed if plain_name(path).lower().endswith(suffixes)]
        return found[0] if len(found) == 1 else None

    def head(self, path: Path, count: int = 20, encoding: str = "utf-8") -> list[str]:
        """Return the first lines without line ends, to find the form.

        Bytes that are not text become U+FFFD. A line of more than a million characters is cut and is the last one.
        """
        found: list[str] = []
        with open_text(path, encoding, errors="replace") as file:
            try:
                while len(found) < count and (line := file.readline(LONGEST)):
                    found.append(line.rstrip("\n"))
                    if len(line) == LONGEST:
                        break
            except BROKEN as error:
                raise DataError(f"{path} cannot be unpacked: {error}") from None
        return found


def source(path: Path, rating_scale: Scale | None = None) -> Source:
    """Return the source for a file or folder. Raises DataError if there is neither.

    Args:
        path: The file or folder.
        rating_scale: Rating scale in place of the form's own.
    """
    if path.is_file():
        return Source(path, {plain_name(path).lower(): path}, rating_scale)
    if path.is_dir():
        files = sorted(file for file in path.iterdir() if file.is_file())
        # A plain file wins over its packed twin, because it comes last.
        files.sort(key=lambda file: file.suffix not in PACKED)
        named = {plain_name(file).lower(): file for file in files}
        twins = tuple((named[name], file) for file in files if named[name := plain_name(file).lower()] != file)
        return Source(path, named, rating_scale, twins)
    raise DataError(f"{path}: no such file or folder")


def is_without_data(name: str) -> bool:
    """Check whether a file with this name (in lower case) is hidden, or clearly for people and without data."""
    return name.startswith(".") or name.endswith(PROSE) or (name.startswith(NOT_DATA) and not name.endswith(TABLES))


def plain_name(path: Path) -> str:
    """Return the name without .gz or .zst."""
    return path.stem if path.suffix in PACKED else path.name


def open_bytes(path: Path) -> io.BufferedReader:
    """Open a file for reading and unpack it if its first bytes say that it is packed, whatever its name.

    Raises DataError if that fails.
    """
    try:
        file = path.open("rb")
    except OSError as error:
        raise DataError(f"{path} cannot be read: {error.strerror}") from None
    magic = file.read(4)
    file.seek(0)
    if magic.startswith(GZIP):
        return io.BufferedReader(gzip.GzipFile(fileobj=file))
    if magic.startswith(ZSTD):
        return io.BufferedReader(_Zstandard(file))
    return file  # a plain file is buffered already


def open_text(path: Path, encoding: str = "utf-8", errors: str = "strict") -> io.TextIOWrapper:
    """Open a file as text with lines that end in LF. Raises DataError if it cannot be opened or is UTF-16."""
    file = open_bytes(path)
    try:
        mark = file.peek(2)[:2]
    except BROKEN as error:
        raise DataError(f"{path} cannot be unpacked: {error}") from None
    if mark in WIDE:
        raise DataError(f"{path}: UTF-16 text; expected UTF-8: convert it (iconv -f UTF-16 -t UTF-8)")
    # utf-8-sig removes the byte order mark; without one it reads as utf-8.
    return io.TextIOWrapper(file, "utf-8-sig" if encoding == "utf-8" else encoding, errors, newline=None)


def numbered(path: Path, encoding: str = "utf-8") -> Iterator[tuple[int, str]]:
    """Yield (line number from 1, line without its end).

    Raises DataError, with the line, if it is not text in the encoding.
    """
    number = 0
    with open_text(path, encoding) as file:
        try:
            for number, line in enumerate(file, start=1):
                yield number, line.rstrip("\n")
        except UnicodeDecodeError as error:
            raise undecoded(path, encoding, error) from None
        except BROKEN as error:
            raise cut_short(path, number, error) from None


def utf8_or_latin1(path: Path) -> str:
    """Find the encoding of a file if copies of it have either: utf-8 if the whole file is valid UTF-8, else latin-1.

    Latin-1 text that is valid UTF-8 by chance is very unlikely. Raises DataError if the file is damaged.
    """
    with open_text(path) as file:
        try:
            while file.read(LONGEST):
                pass
        except UnicodeDecodeError:
            return "latin-1"
        except BROKEN as error:
            raise DataError(f"{path} cannot be unpacked: {error}") from None
    return "utf-8"


def cut_short(path: Path, line: int, error: Exception) -> DataError:
    """Return the error for a packed file that is damaged after a line."""
    return DataError(f"{path}, after line {line}: cannot be unpacked: {error}")


def undecoded(path: Path, encoding: str, error: UnicodeDecodeError) -> DataError:
    """Return the error for a file that is not text in its encoding, with the line.

    Text is decoded in pieces, so this function searches for the line.
    """
    with open_bytes(path) as file:
        for number, line in enumerate(
            file, start=1
        ):  # a lone CR ends no line here: that is rare, and the line is still close
            try:
                line.decode(encoding)
            except UnicodeDecodeError as found:
                return DataError(f"{path}, line {number}: {_not_text(path, encoding, found)}")
    return DataError(f"{path}: {_not_text(path, encoding, error)}")


def _not_text(path: Path, encoding: str, error: UnicodeDecodeError) -> str:
    """Return the end of the error for text in another encoding: what was found, what is expected and what to do."""
    where = slice(max(0, error.start - AROUND), error.end + AROUND)
    return (
        f"not {encoding} text: {error.reason}: found the byte 0x{error.object[error.start]:02x} in "
        f"{bytes(error.object[where]).decode('latin-1')!a}, expected {encoding.upper()}: convert the file from the "
        f"encoding that its program writes, for example iconv -f LATIN1 -t {encoding.upper()} {plain_name(path)} > converted.csv"
    )


class _Zstandard(io.RawIOBase):
    """Read zstandard frames one after the other.

    The library's own reader accepts a file that is cut short as complete; this one raises EOFError.
    """

    def __init__(self, file: io.BufferedReader) -> None:
        self._file = file
        self._frame: zstandard.ZstdDecompressionObj | None = None
        self._packed = b""
        self._ready = memoryview(b"")

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: memoryview) -> int:  # type: ignore[override]
        while not self._ready:
            self._packed = self._packed or self._file.read(1 << 16)
            if not self._packed:
                if self._frame is not None:
                    raise EOFError("it ends within a frame")
                return 0
            self._frame = self._frame or zstandard.ZstdDecompressor().decompressobj()
            self._ready = memoryview(self._frame.decompress(self._packed))
            self._packed = self._frame.unused_data if self._frame.eof else b""
            if self._frame.eof:
                self._frame = None
        count = min(len(buffer), len(self._ready))
        buffer[:count] = self._ready[:count]
        self._ready = self._ready[count:]
        return count
