"""Read text tables strictly and in blocks. A line with too few or too many fields is refused, never padded or cut.

If the form allows it, fields may be in double quotes (RFC 4180): a quote inside is written twice, and a quoted field
may hold separators and line ends. A quote in any other place is an error. A block without quotes is never processed
line by line in Python.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Final

import polars as pl

from models.data.source import BROKEN, cut_short, open_text, undecoded
from stream.core.errors import DataError

BLOCK: Final = 1 << 24  # characters per read
SHOWN: Final = 60  # characters of a wrong value that an error shows
BLANKS: Final = " \t"
AROUND: Final = " \t\ufeff"
"""What may surround a column name: blanks, and the byte order mark of a file that was appended to another."""
LINE: Final = "line\n"
"""The column of every block with the line number (of a row's first line), from 1. No header can have this name, because
it ends with a line break."""


def header(
    path: Path, separator: str = ",", encoding: str = "utf-8", *, quoted: bool = True, name: Callable[[str], str] = str
) -> tuple[str, ...]:
    """Return the column names in the first line.

    Args:
        quoted: May fields be in double quotes?
        name: Converts a name in the file to the reader's name for it.

    Raises:
        DataError: A name occurs twice, or there is no line.
    """
    first = next(_texts(path, encoding), (0, ""))[1].partition("\n")[0]
    names = tuple(map(name, (split(first, separator) if quoted else first.split(separator)) or ()))
    if not first or not names:
        raise DataError(f"{path}, line 1: expected a header with the names of the columns")
    if twice := sorted({name for name in names if names.count(name) > 1}):
        raise DataError(f"{path}, line 1: the column {twice[0]!r} occurs twice; give each column a different name")
    return names


def headed(
    path: Path,
    needed: Sequence[str],
    separator: str = ",",
    *,
    quoted: bool = True,
    name: Callable[[str], str] = str.strip,
) -> Iterator[pl.DataFrame]:
    """Read a file whose first line names the columns, as `blocks` does.

    Args:
        needed: Columns that must be present.
        name: Converts a name in the file to the reader's name for it.

    Raises:
        DataError: One of `needed` is missing. Or an error of `header` or `blocks`.
    """
    names = header(path, separator, quoted=quoted, name=name)
    require_columns(path, names, needed)
    return blocks(path, names, separator, skip=1, quoted=quoted)


def fields(
    path: Path,
    columns: Sequence[str],
    separator: str = ",",
    *,
    header: bool = True,
    quoted: bool = True,
    name: Callable[[str], str] = str.strip,
) -> Iterator[pl.DataFrame]:
    """Yield blocks with only LINE and these columns, as text.

    A file without a header has exactly these. Raises DataError.
    """
    found = (
        headed(path, columns, separator, quoted=quoted, name=name)
        if header
        else blocks(path, columns, separator, quoted=quoted)
    )
    return (block.select(LINE, *columns) for block in found)


def require_columns(path: Path, names: Sequence[str], needed: Sequence[str]) -> None:
    """Raise DataError if the first line lacks a column."""
    if missing := [name for name in needed if name not in names]:
        found = shown(",".join(names))
        raise DataError(
            f"{path}, line 1: missing columns {', '.join(missing)}; found {found}; expected {', '.join(needed)}"
        )


def shown(value: object) -> str:
    """Return a value as an error shows it, cut if it is long."""
    text = repr(value)
    return text if len(text) <= SHOWN else text[:SHOWN] + "..."


def blocks(
    path: Path,
    columns: Sequence[str],
    separator: str = ",",
    *,
    skip: int = 0,
    quoted: bool = True,
    encoding: str = "utf-8",
) -> Iterator[pl.DataFrame]:
    """Yield the rows as text, in order: LINE and then `columns`, one per field of a line.

    Lines that are empty or hold only blanks and no separator are skipped.

    Args:
        columns: Names of the columns.
        skip: Number of lines at the top that are not rows; the last of them names the columns.
        quoted: May fields be in double quotes?

    Raises:
        DataError: A line has another number of fields or a quote in the wrong place, or the header occurs again. The
            error names the line.
    """
    names: tuple[str, ...] = ()
    opened: list[str] = []  # lines of a record with a quoted field that is still open
    since = 0
    for first, text in _texts(path, encoding):
        if first == 1 and skip:
            top = text.split("\n", skip)
            names = _cells(split(top[skip - 1], separator) if quoted else top[skip - 1].split(separator))
            text, first = "".join(top[skip:]), first + skip
        if not quoted or not (opened or '"' in text):
            yield _once_named(path, _plain(path, columns, separator, first, text), names)
            continue
        rows: list[tuple[int | str, ...]] = []
        for number, line in enumerate(text.split("\n"), start=first):
            if not opened and '"' not in line:
                if line.strip(BLANKS) or separator in line:
                    rows.append(_row(path, columns, separator, number, line.split(separator)))
                continue
            since = since if opened else number
            toggles = line.count('"') % 2 == 1  # an odd number of quotes opens a record, or closes it
            goes_on = bool(opened) != toggles
            opened.append(line)
            if not goes_on:
                rows.append(_row(path, columns, separator, since, split("\n".join(opened), separator)))
                opened.clear()
        yield _once_named(path, pl.DataFrame(rows, schema=_schema(columns), orient="row"), names)
    if opened:
        raise DataError(f"{path}, line {since}: a double quote opens a field here and is never closed")


def named_again(path: Path, number: int) -> DataError:
    """Return the error for a line that repeats the header."""
    return DataError(
        f"{path}, line {number}: the header again, as if files were concatenated; expected one header, in line 1: remove this "
        "line (if it names the columns in another order, reorder the fields of the lines below it as in line 1)"
    )


def _cells(found: Sequence[str] | None) -> tuple[str, ...]:
    """Return the cells sorted, without what may differ between concatenated files: AROUND, and upper or lower case."""
    return tuple(sorted(cell.strip(AROUND).lower() for cell in found or ()))


def _once_named(path: Path, table: pl.DataFrame, names: tuple[str, ...]) -> pl.DataFrame:
    """Return the table.

    Raises DataError if a row holds the names of the columns in any order. names: from _cells, () for none.
    """
    if len(names) < 2:  # one column: any value may be its name
        return table
    first = table.columns[1]
    maybe = table.filter(pl.col(first).str.strip_chars(AROUND).str.to_lowercase().is_in(names))
    for number, *row in maybe.iter_rows():
        if _cells(row) == names:
            raise named_again(path, number)
    return table


def split(record: str, separator: str) -> list[str] | None:
    """Return the fields of one record, or None if a quote is in the wrong place."""
    if '"' not in record:
        return record.split(separator)
    field = rf'(?:"(?:[^"]|"")*"|[^"{re.escape(separator)}]*)'
    if not re.fullmatch(rf"{field}(?:{re.escape(separator)}{field})*", record):
        return None
    found = re.findall(rf"(?:^|{re.escape(separator)})({field})", record)
    return [text[1:-1].replace('""', '"') if text.startswith('"') else text for text in found]


def _plain(path: Path, columns: Sequence[str], separator: str, first: int, text: str) -> pl.DataFrame:
    """Convert lines without quotes to rows, with column operations."""
    raw = pl.DataFrame({"raw": [text]}).select(pl.col("raw").str.split("\n")).explode("raw")
    table = raw.select(pl.int_range(first, first + pl.len(), dtype=pl.UInt32).alias(LINE), "raw")
    table = table.filter(
        (pl.col("raw").str.strip_chars(BLANKS) != "") | pl.col("raw").str.contains(separator, literal=True)
    )
    between = pl.col("raw").str.count_matches(separator, literal=True)
    wrong = table.filter(between != len(columns) - 1)
    if len(wrong):
        raise _width(path, wrong[LINE][0], columns, separator, wrong["raw"][0].split(separator))
    if len(columns) == 1:
        return table.rename({"raw": columns[0]})
    parts = pl.col("raw").str.split_exact(separator, len(columns) - 1).struct.rename_fields(list(columns))
    return table.select(LINE, parts.alias("raw")).unnest("raw")


def _row(
    path: Path, columns: Sequence[str], separator: str, number: int, fields: list[str] | None
) -> tuple[int | str, ...]:
    if fields is None:
        raise DataError(
            f"{path}, line {number}: a double quote in the wrong place; expected quotes "
            "around a whole field, and two quotes for one inside it"
        )
    if len(fields) != len(columns):
        raise _width(path, number, columns, separator, fields)
    return (number, *fields)


def _width(path: Path, number: int, columns: Sequence[str], separator: str, found: Sequence[str]) -> DataError:
    return DataError(
        f"{path}, line {number}: expected {len(columns)} fields separated by {separator!r} ({', '.join(columns)}), "
        f"found {len(found)}: {shown(separator.join(found))}"
    )


def _schema(columns: Sequence[str]) -> dict[str, type[pl.DataType]]:
    return {LINE: pl.UInt32, **dict.fromkeys(columns, pl.String)}


def _texts(path: Path, encoding: str) -> Iterator[tuple[int, str]]:
    """Yield (number of the first line, whole lines separated by LF), a few megabytes at a time."""
    number, rest = 1, ""
    with open_text(path, encoding) as file:
        while True:
            try:
                text = file.read(BLOCK)
            except UnicodeDecodeError as error:
                raise undecoded(path, encoding, error) from None
            except BROKEN as error:
                raise cut_short(path, number - 1, error) from None
            if not text:
                break
            whole, end, rest = (rest + text).rpartition("\n")
            if end:
                yield number, whole
                number += whole.count("\n") + 1
    if rest:
        yield number, rest
