"""Read any one file with named columns: CSV (separated by , ; tab or |, with a header), JSON lines, or Parquet.

The caller says which column is what. Without a time column the lines are in order, oldest first, and only the order
within a user means anything. If there is a column of behaviours, it says what each event is (click, rating, comment).
Otherwise all events are comments if a text column is named, ratings if a value column is named, and clicks if neither
is. A column of actions may say what a click did.

Times are ISO 8601 (UTC if they name no zone) or whole numbers since 1970. The unit of numbers is the one in which every
time is between 1990 and 2100: seconds, ms, us and ns of these years have no number in common. Any other time, or two
units in one column, is an error.
"""

from __future__ import annotations

import difflib
import math
import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import astuple, dataclass, replace
from pathlib import Path
from typing import Any, Final

import polars as pl

from models.data.columns import ISO, NAMED, Column, WrongLines, converted, each, instant, shaped, texts, whole
from models.data.dataset import DataSet, dataset
from models.data.folders import finished
from models.data.forms.lines import ORDER_START, ORDER_STEP
from models.data.forms.messages import parquet
from models.data.ids import number_id, whole_ids
from models.data.looks import look_at
from models.data.rows import identity, json_object, numbered_rows, rating, table_id
from models.data.source import Source, open_bytes, source
from models.data.table import LINE, blocks, header, split
from stream.core import times
from stream.core.errors import DataError
from stream.core.messages import BEHAVIOURS, CLICK, COMMENT, RATING

SEPARATORS: Final = (",", ";", "\t", "|")
YEAR_1990: Final = 631_152_000
YEAR_2100: Final = 4_102_444_800
UNITS: Final = {"s": 1, "ms": 1000, "us": 10**6, "ns": 10**9}
"""Name of a unit -> how many of it make a second."""
MOST: Final = 1e9  # largest value that a message may carry
ROWS: Final = 100_000  # rows of JSON in a block
SCALE: Final = (0.5, 5.0)  # if nothing is rated
NAME: Final = "columns by name"
_DIGITS: Final = "(?:[0-9]{1,18}|[1-8][0-9]{18})"
"""Whole numbers that fit 64 bits."""


@dataclass(frozen=True)
class Columns:
    """Names of columns. "" means that there is no such column."""

    user: str
    item: str
    time: str = ""
    value: str = ""
    behaviour: str = ""
    text: str = ""
    scene: str = ""
    action: str = ""

    def names(self) -> set[str]:
        """Return the columns that hold names. Numbers in them are read by the rule for ids (models/data/ids.py)."""
        return {self.user, self.item, self.scene, self.action} - {""}

    def named(self) -> list[str]:
        """Return every column name, each once."""
        return list(dict.fromkeys(name for name in astuple(self) if name))


def read_columns(path: Path, columns: Columns, scale: tuple[float, float] | None = None) -> DataSet:
    """Read one file by its column names.

    Args:
        scale: (min, max) of the values. By default it is the smallest and the largest value found.

    Raises:
        DataError: The file cannot be read. The error names file and line (for Parquet the row).
    """
    if path.is_dir():
        raise DataError(f"{path} is a folder; if you name columns, name one file in it")
    found = source(path)
    tables: list[pl.DataFrame] = []
    wrong: list[tuple[int, str]] = []
    count = 0
    try:
        for block in _blocks(found, path, columns):
            try:
                if len(block):
                    tables.append(_converted(path, block, columns, scale))
            except WrongLines as error:  # read the other blocks too, so that people can fix all lines at once
                wrong = sorted(wrong + error.lines)[:NAMED]
                count += error.count
    except DataError:
        if not wrong:  # otherwise report the wrong lines before it first
            raise
    if wrong:
        raise WrongLines(path, wrong, count)
    if not tables:
        raise DataError(f"{path}: found no rows; expected at least one")
    table = pl.concat(tables)
    notes: list[str] = []
    oldest = ""
    if columns.time:
        table, unit = _timed(path, table, columns.time)
        notes.append(f"times of {columns.time} read as {unit}")
        line, cell = table.sort("time", LINE).select(LINE, "written").row(0)
        oldest = f"{path}, line {line}: {columns.time}: found {cell[:40]!r}"
    else:
        at = pl.int_range(pl.len(), dtype=pl.Int64).over("user")
        table = table.with_columns(time=ORDER_START + at * ORDER_STEP)
        notes.append("no time column: events are in the order of the lines, and times cannot be compared between users")
    if scale is None and columns.value:
        scale = _scale(path, table, columns.value)
        notes.append(
            f"rating scale {scale[0]:g} to {scale[1]:g}: the smallest and the largest value of {columns.value}"
        )
    made = dataset(found.name, shaped(table), [], scale or SCALE, timed=bool(columns.time))
    return finished(replace(made, notes=tuple(notes), oldest=oldest), NAME, found)


def _blocks(found: Source, path: Path, columns: Columns) -> Iterator[pl.DataFrame]:
    """Yield LINE and the named columns as text. A missing value is null."""
    with open_bytes(path) as file:
        start = file.read(4)
    if start == b"PAR1":
        yield _parquet(path, columns)
        return
    first = next((line for line in found.head(path) if line.strip()), "")
    if first.lstrip().startswith("{"):
        yield from _json(path, columns)
        return
    separator = next((one for one in SEPARATORS if set(columns.named()) <= set(split(first, one) or ())), None)
    if separator is None:
        missing = min((set(columns.named()) - set(split(first, one) or ()) for one in SEPARATORS), key=len)
        names = max((split(first, one) or [] for one in SEPARATORS), key=len)
        looks = f"; {look_at(found, path)}" if len(names) < 2 else ""
        raise DataError(f"{path}, line 1: {_absent(sorted(missing), names)}{looks}")
    for block in blocks(path, header(path, separator), separator, skip=1):
        yield block.select(LINE, *columns.named())


def _absent(missing: list[str], names: Sequence[str]) -> str:
    """Return the error text for columns that a file lacks. names: the columns that it has."""
    near = [close[0] for name in missing if (close := difflib.get_close_matches(name, names, 1, cutoff=0.7))]
    meant = f"; {' and '.join(near)} meant?" if len(near) > 1 else f"; is {near[0]} meant?" if near else ""
    columns = ", ".join(name[:30] for name in names[:20]) + (", ..." if len(names) > 20 else "")
    return f"no column {', no column '.join(missing)}" + (f"; columns found: {columns}{meant}" if columns else "")


def _json(path: Path, columns: Columns) -> Iterator[pl.DataFrame]:
    names = columns.named()
    schema = {LINE: pl.UInt32, **dict.fromkeys(names, pl.String)}
    rows: list[tuple[Any, ...]] = []
    needed = {columns.user, columns.item}
    called = columns.names()
    made = numbered_rows(
        path, json_object, lambda row: [_cell(name, row, name in needed, name in called) for name in names]
    )
    for number, cells in made:
        rows.append((number, *cells))
        if len(rows) == ROWS:
            yield pl.DataFrame(rows, schema=schema, orient="row")
            rows = []
    if rows:
        yield pl.DataFrame(rows, schema=schema, orient="row")


def _cell(name: str, row: dict[str, Any], needed: bool, called: bool) -> str | None:
    """Return a value of JSON as text, or None if there is none.

    Args:
        name: Field in the row.
        needed: Must the field be present?
        called: Is the value the name of something?

    Raises:
        ValueError: The value is neither a text nor a number, or it is a number that cannot be a name.
        KeyError: The field is needed and missing.
    """
    value = row[name] if needed else row.get(name)
    if value is None:
        return None
    if called and not isinstance(value, str):
        try:
            return number_id(value)
        except ValueError as error:
            raise ValueError(f"{name}: {error}") from None
    if isinstance(value, bool) or not isinstance(value, str | int | float):
        raise ValueError(f"{name}: found {str(value)[:30]!r}, expected a text or a number")
    return value if isinstance(value, str) else str(value)


def _parquet(path: Path, columns: Columns) -> pl.DataFrame:
    table = parquet(path)
    if missing := sorted(set(columns.named()) - set(table.columns)):
        raise DataError(f"{path}: {_absent(missing, table.columns)}")
    table = table.with_columns(pl.int_range(1, pl.len() + 1, dtype=pl.UInt32).alias(LINE))
    made: dict[str, pl.Series] = {LINE: table[LINE]}
    called = sorted(name for name in columns.names() if table[name].dtype.is_float() or table[name].dtype.is_decimal())
    made |= converted(path, table, {name: (name, _number_ids) for name in called})
    for name in columns.named():
        if name in made:
            continue
        cells = table[name]
        if isinstance(cells.dtype, pl.Datetime):
            cells = cells.dt.convert_time_zone("UTC") if cells.dtype.time_zone else cells
            cells = cells.dt.to_string("%Y-%m-%dT%H:%M:%S%.6f")
        elif cells.dtype not in (pl.String, pl.Categorical, pl.Date, *pl.datatypes.group.NUMERIC_DTYPES):
            raise DataError(f"{path}: column {name}: found {cells.dtype}, expected texts, numbers or times")
        made[name] = cells.cast(pl.String)
    return pl.DataFrame(made)


def _number_ids(values: pl.Series) -> pl.Series:
    """Return numbers as ids.

    This comes before the conversion to text, because a text no longer shows that it was a float.
    """
    if values.dtype.is_float():
        return whole_ids(values)
    return each(values, lambda value: None if value is None else number_id(value), pl.String)


def _converted(path: Path, block: pl.DataFrame, columns: Columns, scale: tuple[float, float] | None) -> pl.DataFrame:
    """Return LINE and columns of events, with `time` as it was read (`iso`: is it in ms already?)."""
    given: dict[str, pl.Series] = {LINE: block[LINE]}
    wanted: dict[str, tuple[str, Column]] = {
        "user": (columns.user, _each(_id, pl.String)),
        "item": (columns.item, _each(_id, pl.String)),
    }
    if columns.behaviour:
        wanted["behaviour"] = columns.behaviour, _each(_behaviour, pl.UInt8)
    else:
        behaviour = COMMENT if columns.text else RATING if columns.value else CLICK
        given["behaviour"] = pl.repeat(behaviour, len(block), dtype=pl.UInt8, eager=True)
    if columns.time:
        given["written"] = written = block[columns.time].fill_null("")
        if written.str.contains(f"^{_DIGITS}$").all():
            given["time"] = written.cast(pl.Int64)
            given["iso"] = pl.repeat(False, len(block), eager=True)
        else:
            wanted["time"] = columns.time, _each(_stamp, pl.Int64)
            given["iso"] = written.str.contains(r"^\d{4}-\d\d-\d\d")
    if columns.value:
        wanted["value"] = columns.value, _each(lambda text: _value(text, scale), pl.Float64)
    if columns.text:
        wanted["text"] = columns.text, lambda values: texts(values.fill_null(""))
    for field in ("scene", "action"):
        if column := getattr(columns, field):
            wanted[field] = column, _each(_name, pl.String)
    table = pl.DataFrame(given | converted(path, block, wanted))
    _agree(path, table, columns)
    return table


def _agree(path: Path, table: pl.DataFrame, columns: Columns) -> None:
    """Raise DataError if a row has a field that an event of its behaviour cannot have, or lacks one that it needs."""
    behaviour = pl.col("behaviour")
    if columns.value:
        _refuse(
            path,
            table,
            (behaviour == RATING) & pl.col("value").is_nan(),
            f"{columns.value}: empty; a rating needs a value",
        )
        _refuse(
            path, table, (behaviour == CLICK) & pl.col("value").is_not_nan(), f"{columns.value}: a click has no value"
        )
    elif columns.behaviour:
        _refuse(path, table, behaviour == RATING, "a rating, but no value column is named: add --value")
    if columns.text:
        _refuse(
            path, table, (behaviour != COMMENT) & (pl.col("text") != ""), f"{columns.text}: only a comment has a text"
        )
    if columns.action and len(wrong := table.filter((behaviour != CLICK) & (pl.col("action") != ""))):
        line, action, kind = wrong.select(LINE, "action", "behaviour").row(0)
        cure = (
            "leave it empty on this line"
            if columns.behaviour
            else "name the column that says which lines are clicks: --behaviour"
        )
        raise DataError(
            f"{path}, line {line}: {columns.action}: found {action!r} with a {BEHAVIOURS[kind]}; only a click has an action: "
            f"{cure}"
        )


def _refuse(path: Path, table: pl.DataFrame, wrong: pl.Expr, why: str) -> None:
    if len(found := table.filter(wrong)):
        raise DataError(f"{path}, line {found[LINE][0]}: {why}")


def _each(make: Callable[[Any], Any], dtype: Any) -> Column:
    return lambda values: each(values, make, dtype)


def _id(text: str | None) -> str:
    """Return an id. A whole number that a program has turned into a float is a whole number: 12.0 is 12."""
    if text is None:
        raise ValueError("empty; expected a name or a number")
    return table_id(text, whole_floats=True)


def _behaviour(text: str | None) -> int:
    if text not in BEHAVIOURS:
        raise ValueError(
            f"found {str(text)[:30]!r}, expected {', '.join(BEHAVIOURS)}; if the column says what a click did (view, cart "
            "...), name it with --action-column"
        )
    return BEHAVIOURS.index(text)


def _stamp(text: str | None) -> int:
    """Return a number as it is, and ISO 8601 as epoch ms."""
    text = whole(text or "")
    if ISO.fullmatch(text):
        return instant(text, 1)
    if not re.fullmatch(_DIGITS, text):
        raise ValueError(
            f"time {text[:30]!r}: expected a whole number since 1970, or ISO 8601 such as 2025-12-31T14:00:00Z"
            f"{times.with_written(text)}"
        )
    return int(text)


def _value(text: str | None, scale: tuple[float, float] | None) -> float:
    return math.nan if not text else rating(text, scale or (-MOST, MOST))


def _name(text: str | None) -> str:
    """Return the name of a scene or an action, "" for none."""
    return identity(text) if text else ""


def _timed(path: Path, table: pl.DataFrame, name: str) -> tuple[pl.DataFrame, str]:
    """Return (table with times in ms, their unit in words). Raises DataError if the times do not share one unit."""
    time = pl.col("time")
    bands = [
        (called, time.is_between(YEAR_1990 * count, YEAR_2100 * count, closed="left"))
        for called, count in UNITS.items()
    ]
    units = [pl.when(is_so).then(pl.lit(called)) for called, is_so in [("ISO 8601", pl.col("iso")), *bands]]
    found = table.select(LINE, "time", unit=pl.coalesce(units))
    if len(none := found.filter(pl.col("unit").is_null())):
        line, time_found, _ = none.row(0)
        raise DataError(
            f"{path}, line {line}: {name}: {time_found} is not between 1990 and 2100 in any unit (s, ms, us, ns); if it is "
            "not a time, leave out --time: the events are then in the order of the lines"
        )
    firsts = found.unique("unit", keep="first", maintain_order=True)
    if len(firsts) > 1:
        (first, _, one), (line, _, other) = firsts.rows()[:2]
        raise DataError(
            f"{path}, line {line}: {name}: a time in {other}, but line {first} has {one}; expected one unit in the column"
        )
    called = str(firsts["unit"][0])
    count = UNITS.get(called, 1000)
    made = time * (1000 // count) if count <= 1000 else time // (count // 1000)
    return table.with_columns(made.alias("time")), called


def _scale(path: Path, table: pl.DataFrame, name: str) -> tuple[float, float]:
    values = table["value"].drop_nans()
    if not len(values):
        raise DataError(f"{path}: {name}: found no values; leave out --value")
    low, high = float(values.min()), float(values.max())  # type: ignore[arg-type]
    if low == high:
        raise DataError(
            f"{path}: {name}: every value is {low:g}, so the values say nothing; leave out --value: the events are then clicks"
        )
    return low, high
