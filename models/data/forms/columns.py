"""Plain separated files of many millions of rows, read by blocks into columns of text, and the checks of those columns.
Every check names the line, the field, what was found and what was expected.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Final

import polars as pl

from models.data.dataset import SCHEMA
from models.data.forms.lines import require_columns, shown
from models.data.rows import identity
from models.data.source import BROKEN, numbered, open_text
from stream.errors import DataError
from stream.events import CLICK, MAX_TIME

BLOCK: Final = 1 << 26  # characters read at a time
LINE: Final = "line"  # the column that holds the line number, from 1


def fields(
    path: Path,
    columns: Sequence[str],
    separator: str = ",",
    *,
    header: bool = True,
    quotes: bool = False,
    name: Callable[[str], str] = str,
) -> Iterator[pl.DataFrame]:
    """Blocks of rows: `line` i64 and the asked columns as text. Blank lines are passed over. Without a header the file has
    exactly these columns. name: the header's names -> ours. quotes: may a quotation mark stand in a field? It is a plain
    character there; else a row with one is refused, as this reader knows no quoted fields. Raises DataError."""
    places = dict(zip(columns, range(len(columns)), strict=True))
    count, headed = len(columns), not header
    for table in blocks(path):
        table = table.filter(pl.col("text").str.strip_chars(" \t") != "")
        if not headed and len(table):
            found = [name(one.strip()) for one in table["text"][0].split(separator)]
            require_columns(path, found, columns)
            places, count, headed = {one: found.index(one) for one in columns}, len(found), True
            table = table.slice(1)
        if not quotes:
            check(
                path, table, "text", ~pl.col("text").str.contains('"', literal=True), "fields without quotation marks"
            )
        found_count = pl.col("text").str.count_matches(separator, literal=True) + 1
        check(path, table, "text", found_count == count, f"{count} fields with {separator!r} between")
        cells = table.select(LINE, cells=pl.col("text").str.split(separator))
        yield cells.select(LINE, *(pl.col("cells").list.get(at).alias(one) for one, at in places.items()))
    if not headed:
        require_columns(path, [], columns)


def blocks(path: Path) -> Iterator[pl.DataFrame]:
    """`line` i64 | `text` str, a block of lines at a time. Raises DataError, with the line, where it is no UTF-8 text."""
    number, rest = 1, ""
    with open_text(path) as file:
        try:
            while more := file.read(BLOCK):
                whole, end, rest = (rest + more).rpartition("\n")
                if end:
                    table = _lines(whole, number)
                    number += len(table)
                    yield table
        except (UnicodeDecodeError, *BROKEN):
            deque(numbered(path), maxlen=0)  # reads it once more, line by line, and raises with the line
            raise
    if rest:
        yield _lines(rest, number)


def _lines(text: str, number: int) -> pl.DataFrame:
    lines = pl.DataFrame({"text": [text]}).select(pl.col("text").str.split("\n")).explode("text")
    return lines.with_columns(pl.int_range(number, number + pl.len(), dtype=pl.Int64).alias(LINE))


def check(path: Path, table: pl.DataFrame, column: str, good: pl.Expr, expected: str) -> None:
    """Raises DataError for the first row that is not good (null is not)."""
    bad = table.filter(~good.fill_null(False)).head(1)
    if len(bad):
        found = "" if column == "text" else f"{column} "
        raise DataError(f"{path}, line {bad[LINE][0]}: {found}{shown(bad[column][0])}: expected {expected}")


def ids(path: Path, table: pl.DataFrame, *columns: str) -> pl.DataFrame:
    """The table with these columns as ids. Raises DataError where one is no id (models.data.rows.identity)."""
    for column in columns:
        changed: dict[str, str] = {}
        for value in table[column].unique().to_list():
            try:
                if (name := identity(value)) != value:
                    changed[value] = name
            except ValueError as error:
                line = table.filter(pl.col(column) == value)[LINE][0]
                raise DataError(f"{path}, line {line}: {column} {shown(value)}: {error}") from None
        if changed:
            table = table.with_columns(pl.col(column).replace(changed))
    return table


def moments(path: Path, table: pl.DataFrame, column: str, unit: int = 1) -> pl.DataFrame:
    """Adds `time` (epoch ms): the column times `unit` ms, whole or with a point. Raises DataError where it is no time."""
    number = pl.col(column).cast(pl.Float64, strict=False)
    # A float holds whole milliseconds up to the year 9999 exactly; a fraction of seconds is rounded to the millisecond.
    time = (number * unit).round()
    plain = pl.col(column).str.contains(r"^\d+(\.\d*)?([eE]\+?\d+)?$")
    good = plain & number.is_not_nan() & time.is_between(0, MAX_TIME)
    what = {1: "milliseconds", 1000: "seconds"}[unit]
    check(path, table, column, good, f"{what} since 1970, 0 to {MAX_TIME // unit}")
    return table.with_columns(time=time.cast(pl.Int64))


def dates(path: Path, table: pl.DataFrame, column: str, form: str, example: str) -> pl.DataFrame:
    """Adds `time` (epoch ms) from text of the form of strftime, read as UTC. Raises DataError where it is no time."""
    # The zone is not told to polars: each name of one would be looked up in a database that a machine may lack.
    time = pl.col(column).str.to_datetime(form, time_unit="ms", strict=False, exact=True).dt.timestamp("ms")
    check(path, table, column, time.is_between(0, MAX_TIME), f"a time such as {example}")
    return table.with_columns(time=time)


def events(table: pl.DataFrame, behaviour: pl.Expr | int = CLICK, **columns: pl.Expr) -> pl.DataFrame:
    """user, item, time and what `columns` adds -> the columns of models.data.dataset.SCHEMA, in its order."""
    made: dict[str, pl.Expr] = {
        "user": pl.col("user"),
        "item": pl.col("item"),
        "behaviour": pl.lit(behaviour) if isinstance(behaviour, int) else behaviour,
        "time": pl.col("time"),
        "value": pl.lit(float("nan")),
        "text": pl.lit(""),
        "scene": pl.lit(""),
        "action": pl.lit(""),
    } | columns
    return table.select(**{name: made[name].cast(kind) for name, kind in SCHEMA.items()})


def empty() -> pl.DataFrame:
    """No events."""
    return pl.DataFrame(schema=SCHEMA)
