"""Describe in words what a file looks like, for the error if no form fits it."""

from __future__ import annotations

import json
import re
from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import polars as pl

from models.data.source import Source, numbered, open_bytes
from models.data.table import split
from stream.core.errors import DataError

SEPARATORS: Final = {"\t": "tabs", "::": "`::`", ",": "commas", ";": "semicolons", "|": "`|`", " ": "blanks"}
LINES: Final = 200  # lines that are read to find the separator
SCANNED: Final = 200_000  # lines that are searched for one with a different number of columns
SHOWN: Final = 60
FILES: Final = 4
_NUMBER: Final = re.compile(r"\s*[+-]?[0-9.]+([eE][+-]?[0-9]+)?\s*", re.ASCII)


@dataclass(frozen=True)
class Table:
    """The layout of a text table.

    Attributes:
        separator: Separator of the columns.
        columns: Number of columns in most lines.
        header: Names of the columns if the first line has them, else ().
    """

    separator: str
    columns: int
    header: tuple[str, ...]


def look(source: Source) -> str:
    """Describe the file, or the first files of the folder, with line numbers."""
    if source.path.is_file():
        return look_at(source, source.path)
    found = source.listed
    if not found:
        return f"{source.path}: a folder without data files (its subfolders are not searched: name one of them)"
    described = "; ".join(look_at(source, path) for path in found[:FILES])
    more = f"; and {len(found) - FILES} more" if len(found) > FILES else ""
    return f"{source.path}: a folder of {len(found)} files: {described}{more}"


def look_at(source: Source, path: Path) -> str:
    """Describe one file. Never raises: if the file cannot be opened, the error is the description."""
    try:
        with open_bytes(path) as file:
            start = file.read(4)
        if start == b"PAR1":
            return f"{path}: Parquet with the columns {', '.join(pl.read_parquet_schema(path))}"
        if start[:2] == b"PK":
            return f"{path}: a zip archive; unpack it first"
        lines = source.head(path, LINES)
        return f"{path}, line 1: {_text(path, lines)}"
    except (DataError, OSError, pl.exceptions.PolarsError) as error:
        return str(error) if str(path) in str(error) else f"{path}: {error}"


def _text(path: Path, lines: list[str]) -> str:
    filled = [line for line in lines if line.strip()]
    if not filled:
        return "empty"
    if "\0" in filled[0] or filled[0].count("\ufffd") > 2:
        return "not text"
    first = shown(filled[0])
    if (kind := _json(filled)) is not None:
        return f"{kind}; it begins with {first}"
    table = table_of(filled)
    if table is None:
        return f"text without columns; it begins with {first}"
    header = f"a header ({', '.join(shown(name, 30) for name in table.header[:8])})" if table.header else "no header"
    other = contradiction(path, table)
    return (
        f"text with {table.columns} columns separated by {SEPARATORS[table.separator]}, {header}; it begins with {first}"
        f"{f'; line {other[0]} has {other[1]} columns' if other else ''}"
    )


def _json(lines: list[str]) -> str | None:
    if lines[0].lstrip()[:1] not in "{[":
        return None
    try:
        row = json.loads(lines[0])
    except RecursionError:
        return "JSON that is nested too deeply"
    except ValueError:
        return (
            "JSON over several lines, or damaged; expected one object per line" if lines[0].lstrip()[0] == "{" else None
        )
    if isinstance(row, dict):
        return f"JSON lines with the fields {', '.join(shown(name, 30) for name in list(row)[:12])}"
    return "a JSON list; expected one object per line"


def table_of(lines: list[str]) -> Table | None:
    """Find the separator that gives the most lines the same number of columns. Returns None if there is none."""
    best: tuple[int, Table] | None = None
    for separator in SEPARATORS:
        rows = [split(line, separator) or [] for line in lines]
        width, often = Counter(len(row) for row in rows).most_common(1)[0]
        if width > 1 and (best is None or often > best[0]):
            best = often, Table(separator, width, _header(rows))
    return best[1] if best else None


def _header(rows: list[list[str]]) -> tuple[str, ...]:
    """Return the fields of the first line if none is a number or empty and a later line has a number, else ()."""
    first, *others = rows
    if any(_NUMBER.fullmatch(field) or not field.strip() for field in first):
        return ()
    numbers = any(_NUMBER.fullmatch(field) for row in others for field in row)
    return tuple(first) if numbers else ()


def contradiction(path: Path, table: Table) -> tuple[int, int] | None:
    """Return (line, its number of columns) for the first line whose number of columns differs from the table's."""
    for number, line in numbered(path):
        if number > SCANNED:
            return None
        if line.strip() and (found := len(split(line, table.separator) or [])) != table.columns:
            return number, found
    return None


def shown(text: str, most: int = SHOWN) -> str:
    """Return the text cut and printable: other characters than printable ASCII are escaped."""
    return ascii(text[:most])[1:-1].replace("\\'", "'") + ("..." if len(text) > most else "")
