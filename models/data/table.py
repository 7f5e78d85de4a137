"""Lines of columns, read strictly and in blocks: a line with too few or too many fields is refused, never filled up or cut.

Fields may stand in double quotes where the form says so (RFC 4180): a quote inside is written twice, and a quoted field may
hold separators and line ends. A quote in any other place is an error. Lines without a quote never go through Python one by one.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Final

import polars as pl

from models.data.source import BROKEN, open_text, undecoded
from stream.core.errors import DataError

BLOCK: Final = 1 << 24  # characters that are read at once
SHOWN: Final = 60  # characters of a wrong value that an error shows
BLANKS: Final = " \t"
AROUND: Final = " \t\ufeff"
"""What may stand around the name of a column: blanks, and the byte order mark of a file that was put behind another."""
LINE: Final = "line\n"
"""The column of every block that holds the line number (of a row's first line), from 1. No header names a column so: it ends
with the end of a line."""


def header(
    path: Path, separator: str = ",", encoding: str = "utf-8", *, quoted: bool = True, name: Callable[[str], str] = str
) -> tuple[str, ...]:
    """The names in the first line. name: those of the file -> ours. Raises DataError where a name stands there twice, or there is
    no line."""
    first = next(_texts(path, encoding), (0, ""))[1].partition("\n")[0]
    names = tuple(map(name, (split(first, separator) if quoted else first.split(separator)) or ()))
    if not first or not names:
        raise DataError(f"{path}, line 1: expected a line with the names of the columns")
    if twice := sorted({name for name in names if names.count(name) > 1}):
        raise DataError(f"{path}, line 1: the column {twice[0]!r} stands there twice; give each a name of its own")
    return names


def headed(
    path: Path,
    needed: Sequence[str],
    separator: str = ",",
    *,
    quoted: bool = True,
    name: Callable[[str], str] = str.strip,
) -> Iterator[pl.DataFrame]:
    """As `blocks`, of a file whose first line names the columns. name: those of the file -> ours. Raises DataError where one of
    `needed` is missing."""
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
    """Blocks of LINE and these columns alone, as text. Without a header the file has exactly these. Raises DataError."""
    found = (
        headed(path, columns, separator, quoted=quoted, name=name)
        if header
        else blocks(path, columns, separator, quoted=quoted)
    )
    return (block.select(LINE, *columns) for block in found)


def require_columns(path: Path, names: Sequence[str], needed: Sequence[str]) -> None:
    """Raises DataError where the first line lacks a column."""
    if missing := [name for name in needed if name not in names]:
        found = shown(",".join(names))
        raise DataError(
            f"{path}, line 1: missing the columns {', '.join(missing)}; found {found}; expected {', '.join(needed)}"
        )


def shown(value: object) -> str:
    """A value for an error, cut."""
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
    """The rows as text, in order: LINE and then `columns`, one for each field of a line. Lines without a field, which are empty
    or hold blanks alone, are passed over.

    skip: lines at the top that are no rows; the last of them names the columns. Raises DataError with the line where a line has
    another number of fields, or a quote in a wrong place, or where the line of names stands there again.
    """
    names: tuple[str, ...] = ()
    opened: list[str] = []  # lines of a record whose quoted field goes on
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
            turns = line.count('"') % 2 == 1  # an odd number of quotes opens a record, or closes it
            goes_on = bool(opened) != turns
            opened.append(line)
            if not goes_on:
                rows.append(_row(path, columns, separator, since, split("\n".join(opened), separator)))
                opened.clear()
        yield _once_named(path, pl.DataFrame(rows, schema=_schema(columns), orient="row"), names)
    if opened:
        raise DataError(f"{path}, line {since}: a double quote opens a field there and none closes it")


def named_again(path: Path, number: int) -> DataError:
    """The error for a line that names the columns once more."""
    return DataError(
        f"{path}, line {number}: the header again, as where files were put together; expected one header, in line 1: take that "
        "line out (where it names the columns in another order, put the lines below it into the order of line 1)"
    )


def _cells(found: Sequence[str] | None) -> tuple[str, ...]:
    """In an order of their own, without what differs where files were put together: AROUND, and the case of letters."""
    return tuple(sorted(cell.strip(AROUND).lower() for cell in found or ()))


def _once_named(path: Path, table: pl.DataFrame, names: tuple[str, ...]) -> pl.DataFrame:
    """The table. Raises DataError where a row holds the names of the columns, in any order. names: by _cells; () for none."""
    if len(names) < 2:  # one column: any value may be its name
        return table
    first = table.columns[1]
    maybe = table.filter(pl.col(first).str.strip_chars(AROUND).str.to_lowercase().is_in(names))
    for number, *row in maybe.iter_rows():
        if _cells(row) == names:
            raise named_again(path, number)
    return table


def split(record: str, separator: str) -> list[str] | None:
    """The fields of one record; None where a quote stands in a wrong place."""
    if '"' not in record:
        return record.split(separator)
    field = rf'(?:"(?:[^"]|"")*"|[^"{re.escape(separator)}]*)'
    if not re.fullmatch(rf"{field}(?:{re.escape(separator)}{field})*", record):
        return None
    found = re.findall(rf"(?:^|{re.escape(separator)})({field})", record)
    return [text[1:-1].replace('""', '"') if text.startswith('"') else text for text in found]


def _plain(path: Path, columns: Sequence[str], separator: str, first: int, text: str) -> pl.DataFrame:
    """Lines without quotes -> rows, by columns."""
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
            f"{path}, line {number}: a double quote in a wrong place; expected it around a whole field, and twice within one"
        )
    if len(fields) != len(columns):
        raise _width(path, number, columns, separator, fields)
    return (number, *fields)


def _width(path: Path, number: int, columns: Sequence[str], separator: str, found: Sequence[str]) -> DataError:
    return DataError(
        f"{path}, line {number}: expected {len(columns)} fields with {separator!r} between ({', '.join(columns)}), "
        f"found {len(found)}: {shown(separator.join(found))}"
    )


def _schema(columns: Sequence[str]) -> dict[str, type[pl.DataType]]:
    return {LINE: pl.UInt32, **dict.fromkeys(columns, pl.String)}


def _texts(path: Path, encoding: str) -> Iterator[tuple[int, str]]:
    """(number of the first line, whole lines with LF between), some megabytes at a time."""
    number, rest = 1, ""
    with open_text(path, encoding) as file:
        while True:
            try:
                text = file.read(BLOCK)
            except UnicodeDecodeError as error:
                raise undecoded(path, encoding, error) from None
            except BROKEN as error:
                raise DataError(f"{path}, after line {number - 1}: cannot be unpacked: {error}") from None
            if not text:
                break
            whole, end, rest = (rest + text).rpartition("\n")
            if end:
                yield number, whole
                number += whole.count("\n") + 1
    if rest:
        yield number, rest
