"""Files as readers open them: plain or packed, with any line end; damage is told, never taken for the end of the file."""

from __future__ import annotations

import gzip
import io
from pathlib import Path

import pytest
import zstandard

from models.data.source import numbered, source
from stream.core.errors import DataError

LINES = [(1, "a,é"), (2, "1,2"), (3, "3,4")]
TEXT = "a,é\r\n1,2\r3,4\n".encode()
LONG = b"".join(b"%d,%d\n" % (n, n * n) for n in range(100_000))


def two_frames(text: bytes) -> bytes:
    return zstandard.compress(text[:5]) + zstandard.compress(text[5:])


@pytest.mark.parametrize("pack", [bytes, gzip.compress, zstandard.compress, two_frames])
@pytest.mark.parametrize("mark", [b"", b"\xef\xbb\xbf"])
def test_lines_of_every_packing(tmp_path: Path, mark: bytes, pack: object) -> None:
    assert callable(pack)
    (tmp_path / "x.csv").write_bytes(pack(mark + TEXT))
    assert list(numbered(tmp_path / "x.csv")) == LINES


@pytest.mark.parametrize("pack", [gzip.compress, zstandard.compress])
@pytest.mark.parametrize("left", [1, 4, 5_000])
def test_a_packed_file_that_is_cut_short(tmp_path: Path, left: int, pack: object) -> None:
    assert callable(pack)
    (tmp_path / "x.gz").write_bytes(pack(LONG)[:-left])
    with pytest.raises(DataError, match=r"x\.gz.*cannot be unpacked"):
        list(numbered(tmp_path / "x.gz"))


def test_a_long_packed_file_is_read_whole(tmp_path: Path) -> None:
    for pack in (gzip.compress, zstandard.compress):
        (tmp_path / "x").write_bytes(pack(LONG))
        assert "".join(line + "\n" for _, line in numbered(tmp_path / "x")).encode() == LONG


def test_what_is_no_text_names_the_line(tmp_path: Path) -> None:
    (tmp_path / "x").write_bytes(b"a" * 50_000 + b"\nb\xff\n")
    with pytest.raises(DataError, match=r"x, line 2: not utf-8 text"):
        list(numbered(tmp_path / "x"))
    (tmp_path / "y").write_bytes("a,b\n".encode("utf-16"))
    with pytest.raises(DataError, match="UTF-16 text; expected UTF-8"):
        list(numbered(tmp_path / "y"))


def test_names_of_packed_files(tmp_path: Path) -> None:
    with gzip.open(tmp_path / "Ratings.csv.gz", "wb") as file:
        io.BufferedWriter(file).write(b"")
    (tmp_path / "movies.csv").touch()
    (tmp_path / "movies.csv.gz").touch()
    found = source(tmp_path)
    assert found.find("links.csv", "ratings.csv") == tmp_path / "Ratings.csv.gz"
    assert found.find("movies.csv") == tmp_path / "movies.csv"
    assert source(tmp_path / "Ratings.csv.gz").name == "Ratings"
    with pytest.raises(DataError, match=r"links\.csv is missing"):
        found.need("links.csv")
