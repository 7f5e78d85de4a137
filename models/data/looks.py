"""Describe in words what a file looks like, for the error if no form fits it."""

from __future__ import annotations

import json
import re
from codecs import BOM_UTF8
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import polars as pl

from models.data.source import BROKEN, Source, numbered, open_bytes
from models.data.table import split
from stream.core.errors import DataError

SEPARATORS: Final = {"\t": "tabs", "::": "`::`", ",": "commas", ";": "semicolons", "|": "`|`", " ": "blanks"}
LINES: Final = 200  # lines that are read to find the separator
SCANNED: Final = 200_000  # lines that are searched for one with a different number of columns
SHOWN: Final = 60
FILES: Final = 4
EMPTY: Final = "empty"
BLANK: Final = 1 << 16  # bytes that are searched for something other than blanks
_VALUE: Final = re.compile(
    r"\s*([+-]?[0-9]+[.,]?[0-9]*([eE][+-]?[0-9]+)?\s*$|[0-9]{4}-[0-9]{2}-[0-9]{2}|[0-9]{1,2}[./][0-9]{1,2}[./][0-9]{2,4})",
    re.ASCII,
)
"""A number, or the beginning of a time: fields that no header has."""
USUAL: Final[dict[str, frozenset[str]]] = {
    "user": frozenset(
        ["user", "userid", "username", "visitor", "visitorid", "customer", "customerid", "member", "memberid", "client",
         "clientid", "account", "accountid", "session", "sessionid", "reviewerid", "uid"]
    ),
    "item": frozenset(
        ["item", "itemid", "product", "productid", "article", "articleid", "movie", "movieid", "book", "bookid", "video",
         "videoid", "page", "track", "trackid", "business", "businessid", "sku", "asin", "parentasin"]
    ),
    "time": frozenset(["time", "timestamp", "timestampms", "when", "date", "datetime", "ts", "createdat", "eventtime"]),
    "value": frozenset(["value", "rating", "stars", "score", "overall"]),
    "text": frozenset(["text", "comment", "review", "reviewtext"]),
    "scene": frozenset(["scene"]),
    "action": frozenset(["action", "event", "eventtype"]),
}  # fmt: skip
"""Field of models.data.general.Columns -> names that its column usually has, in lower case and only letters."""


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
        return f"{source.path}: a folder without data files; its subfolders are not searched: name one of them"
    described = "; ".join(look_at(source, path) for path in found[:FILES])
    more = f"; and {len(found) - FILES} more" if len(found) > FILES else ""
    return f"{source.path}: a folder of {len(found)} files: {described}{more}"


def look_at(source: Source, path: Path) -> str:
    """Describe one file. Never raises: if the file cannot be opened, the error is the description."""
    try:
        return description(source, path)
    except (DataError, OSError, pl.exceptions.PolarsError) as error:
        return str(error) if str(path) in str(error) else f"{path}: {error}"


def description(source: Source, path: Path) -> str:
    """Describe one file. Raises DataError, OSError or PolarsError if it cannot be read, for example as UTF-8."""
    with open_bytes(path) as file:
        start = file.read(4)
    if start == b"PAR1":
        return f"{path}: Parquet with the columns {', '.join(pl.read_parquet_schema(path))}"
    if start[:2] == b"PK":
        return f"{path}: a zip archive; unpack it first"
    lines = source.head(path, LINES)
    return f"{path}, line 1: {_text(path, lines)}"


def is_empty(path: Path) -> bool:
    """Check whether a file holds nothing but blanks at its beginning. False if it cannot be read."""
    try:
        with open_bytes(path) as file:
            return not file.read(BLANK).removeprefix(BOM_UTF8).strip()
    except (DataError, *BROKEN):
        return False


def _text(path: Path, lines: list[str]) -> str:
    filled = [line for line in lines if line.strip()]
    if not filled:
        return EMPTY
    if "\0" in filled[0] or filled[0].count("\ufffd") > max(2, len(filled[0]) // 4):
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
    """Return the fields of the first line if they are names of columns, else ().

    None of them is a number, a time or empty (but pandas leaves the name of its first column empty), and they differ.
    And they name a user or an item in the usual words, or a later line has a number or a time.
    """
    first, *others = rows
    names = first[1:] if first and not first[0].strip() else first
    if not names or len(set(names)) < len(names) or any(not name.strip() or _VALUE.match(name) for name in names):
        return ()
    usual = {"user", "item"} & set(usual_columns(names))
    values = any(_VALUE.match(field) for row in others for field in row)
    return tuple(first) if usual or values else ()


def usual_columns(names: Sequence[str]) -> dict[str, str]:
    """Return field of models.data.general.Columns -> the first name that usually stands for it, as it is written."""
    plain = {name: re.sub("[^a-z]", "", name.lower()) for name in names}
    found = {field: next((name for name in names if plain[name] in usual), None) for field, usual in USUAL.items()}
    return {field: name for field, name in found.items() if name is not None}


def names_of(source: Source, path: Path) -> tuple[str, ...]:
    """Return the names of a file's columns or fields, () if it has none or cannot be read."""
    try:
        with open_bytes(path) as file:
            if file.read(4) == b"PAR1":
                return tuple(pl.read_parquet_schema(path))
        filled = [line for line in source.head(path, LINES) if line.strip()]
        if filled and filled[0].lstrip().startswith("{"):
            row = json.loads(filled[0])
            return tuple(row) if isinstance(row, dict) else ()
        table = table_of(filled) if filled else None
    except (DataError, OSError, ValueError, RecursionError, pl.exceptions.PolarsError):
        return ()
    return tuple(name.strip() for name in table.header) if table else ()


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
