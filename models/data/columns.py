"""Convert columns of text to columns of events, by the same rules as rows (models/data/rows.py).

Each distinct value is checked once. A refused value is reported with the line of its first row.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from pathlib import Path
from typing import Any, Final

import polars as pl

from models.data.dataset import SCHEMA
from models.data.rows import cut, identity, moment, rating, table_id
from models.data.table import LINE, shown
from stream.core.errors import DataError
from stream.core.messages import MAX_TIME

NAMED: Final = 10
"""How many wrong lines an error names. It only counts the others."""
EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)
MILLISECOND: Final = timedelta(milliseconds=1)
ISO: Final = re.compile(r"\d{4}-\d\d-\d\d([ T].+)?", re.ASCII)
WHOLE: Final = re.compile(r"\d{1,20}\.0*|\d{1,10}(\.\d{1,20})?[eE]\+?\d{1,2}", re.ASCII)
Column = Callable[[pl.Series], pl.Series]


class Refused(Exception):
    """A value cannot be read.

    Args:
        row: Its row in the block.
        why: What is wrong with it.
        more: The next wrong rows, (row, why) each.
        count: Number of all wrong rows.
    """

    def __init__(self, row: int, why: str, more: Sequence[tuple[int, str]] = (), count: int = 1) -> None:
        super().__init__(why)
        self.rows = [(row, why), *more]
        self.count = count


class WrongLines(DataError):
    """Lines of one file cannot be read.

    Args:
        lines: The first wrong lines, (line, what is wrong) each. They are kept in order.
        count: Number of all wrong values.
    """

    def __init__(self, path: Path, lines: Sequence[tuple[int, str]], count: int) -> None:
        self.lines, self.count = sorted(lines)[:NAMED], count
        described = [f"line {line}: {why}" for line, why in self.lines]
        left = f"; and {count - len(described):,} more" if count > len(described) else ""
        rest = f"; {count:,} wrong values in all: {'; '.join(described[1:])}{left}" if count > 1 else ""
        super().__init__(f"{path}, {described[0]}{rest}")


def events(path: Path, block: pl.DataFrame, behaviour: int, made: Mapping[str, tuple[str, Column]]) -> pl.DataFrame:
    """Convert a block of models.data.table to rows of the events table.

    Args:
        made: Column of events -> (column of the block, how to convert it).

    Raises:
        DataError: A value is refused. The error names the first lines with such values, and the columns.
    """
    return shaped(pl.DataFrame(converted(path, block, made)), behaviour)


def converted(path: Path, block: pl.DataFrame, made: Mapping[str, tuple[str, Column]]) -> dict[str, pl.Series]:
    """Return converted columns of a block by their new names. Arguments and errors are those of `events`."""
    found: dict[str, pl.Series] = {}
    wrong: list[tuple[int, str]] = []
    count = 0
    for name, (column, make) in made.items():
        try:
            found[name] = make(block[column])
        except Refused as error:
            wrong += [(int(block[LINE][row]), f"{column}: {why}") for row, why in error.rows]
            count += error.count
    if wrong:
        raise WrongLines(path, wrong, count)
    return found


def shaped(table: pl.DataFrame, behaviour: int | pl.Expr | None = None, **columns: pl.Expr) -> pl.DataFrame:
    """Return the table with every column of the events table. Missing columns are filled with NaN or "".

    Args:
        behaviour: For all rows or for each, if the table has no such column.
        columns: Other columns that the table lacks.
    """
    if behaviour is not None:
        columns["behaviour"] = pl.lit(behaviour, pl.UInt8) if isinstance(behaviour, int) else behaviour
    table = table.with_columns(**columns)
    nothing = {pl.Float64: math.nan, pl.String: ""}
    return table.select(
        name if name in table.columns else pl.lit(nothing[dtype], dtype).alias(name) for name, dtype in SCHEMA.items()
    ).cast(SCHEMA)  # type: ignore[arg-type]


def joined(tables: Iterable[pl.DataFrame]) -> pl.DataFrame:
    """Return all rows in one table, in order."""
    return pl.concat([pl.DataFrame(schema=SCHEMA), *tables])


def each(values: pl.Series, make: Callable[[Any], Any], dtype: Any) -> pl.Series:
    """Apply `make` to every value, with one call per distinct value. Raises Refused if `make` raises ValueError."""
    if not len(values):
        return pl.Series(values.name, [], dtype)
    different = values.unique(maintain_order=True)
    made: list[Any] = []
    bad: dict[Any, str] = {}
    for value in different:
        try:
            made.append(make(value))
        except (ValueError, TypeError, OverflowError) as error:
            bad[value] = str(error)
    if bad:
        wrong = values.is_in(pl.Series([value for value in bad if value is not None], dtype=values.dtype).implode())
        rows = (wrong.fill_null(None in bad)).arg_true()
        some = next(iter(bad.values()))  # for NaN, which equals nothing and is not found by a lookup
        (first, why), *more = [(row, bad.get(values[row], some)) for row in rows.head(NAMED)] or [(0, some)]
        raise Refused(first, why, more, max(1, len(rows)))
    if dtype == values.dtype and made == different.to_list():
        return values
    return values.replace_strict(different, pl.Series(made, dtype=dtype), return_dtype=dtype)


def ids(values: pl.Series) -> pl.Series:
    """Read ids of users or items in a table (models.data.rows.table_id)."""
    return each(values, table_id, pl.String)


def names(values: pl.Series) -> pl.Series:
    """Read names that people have given, for example to artists. Such a name may be a word like None."""
    return each(values, identity, pl.String)


def with_ids(path: Path, table: pl.DataFrame, *columns: str) -> pl.DataFrame:
    """Return the table with these columns as ids. Raises DataError if a value is not an id."""
    return table.with_columns(**converted(path, table, {column: (column, ids) for column in columns}))


def with_times(path: Path, table: pl.DataFrame, column: str, unit: int = 1) -> pl.DataFrame:
    """Add `time` (epoch ms) from a column that `times` can read. Raises DataError if a value is not a time."""
    return table.with_columns(**converted(path, table, {"time": (column, times(unit))}))


def with_dates(path: Path, table: pl.DataFrame, column: str, form: str, example: str) -> pl.DataFrame:
    """Add `time` (epoch ms) from text in a strftime format, read as UTC. Raises DataError if a value is not a time."""
    # Polars gets no zone: it would look the name up in a database that a machine may lack.
    time = pl.col(column).str.to_datetime(form, time_unit="ms", strict=False, exact=True).dt.timestamp("ms")
    check(path, table, column, time.is_between(0, MAX_TIME), f"a time such as {example}")
    return table.with_columns(time=time)


def check(path: Path, table: pl.DataFrame, column: str, good: pl.Expr, expected: str) -> None:
    """Raise DataError for the first row that is not good. Null counts as not good."""
    bad = table.filter(~good.fill_null(False)).head(1)
    if len(bad):
        raise DataError(f"{path}, line {bad[LINE][0]}: {column} {shown(bad[column][0])}: expected {expected}")


def numbers(values: pl.Series) -> pl.Series:
    """Read ids that must be whole numbers, for forms without a header: nothing else tells one column from another."""
    return each(values, number, pl.String)


def number(text: str) -> str:
    """Return an id of digits. Raises ValueError for anything else."""
    if not re.fullmatch(r"[0-9]{1,18}", text):
        raise ValueError(f"{text[:30]!r}: expected a whole number")
    return identity(text)


def ratings(scale: tuple[float, float]) -> Column:
    """Return a converter for ratings within the scale."""
    return lambda values: each(values, lambda value: rating(value, scale), pl.Float64)


def texts(values: pl.Series) -> pl.Series:
    """Return prose cut to the length that a message may carry."""
    return each(values, cut, pl.String)


def times(unit: int, least: int = 0) -> Column:
    """Return a converter of times in units of `unit` ms, or in ISO 8601, to epoch ms.

    Args:
        unit: Unit of times that are numbers, in ms.
        least: Epoch ms. An older time cannot be a time of the form.
    """

    digits = {1: 0, 1000: 3}.get(unit, 0)  # digits of the fraction that a time in ms keeps
    plain = r"^[0-9]{1,15}(\.[0-9]*)?$" if digits else r"^[0-9]{1,15}(\.0*)?$"

    def one(text: str, of: int = unit) -> int:
        time = instant(text, of)
        if time < least:
            raise ValueError(f"time {text[:30]}: expected {least // unit} or later")
        return time

    def column(values: pl.Series) -> pl.Series:
        if len(values) and values.str.contains(plain).all():
            parts = values.to_frame("time").select(
                pl.col("time").str.extract("^([0-9]+)").cast(pl.Int64) * unit,
                part=pl.col("time")
                .str.extract(r"\.([0-9]*)")
                .fill_null("")
                .str.pad_end(digits, "0")
                .str.slice(0, digits),
            )
            found = parts["time"] if digits == 0 else parts["time"] + parts["part"].cast(pl.Int64)
            try:  # if the smallest and the largest time are accepted, all are
                one(str(found.min()), 1)
                one(str(found.max()), 1)
            except ValueError:
                pass
            else:
                return found
        return each(values, one, pl.Int64)

    return column


def instant(text: str, unit: int) -> int:
    """Return one time as epoch ms.

    It is a whole number of units (978300760, 978300760.0, 9.7830076e8), or ISO 8601. Raises ValueError.
    """
    if ISO.fullmatch(text):
        return moment(iso(text))
    return moment(whole(text), unit)


def whole(text: str) -> str:
    """Return a whole number that was written as a float in digits, and anything else unchanged."""
    if WHOLE.fullmatch(text):
        exact = Decimal(text)
        if exact == exact.to_integral_value():
            return str(int(exact))
    return text


def iso(text: str) -> int:
    """Return 2015-10-27, 2015-10-27 21:34:11 or 2015-10-27T21:34:11.5+02:00 as epoch ms.

    A time without a zone is read as UTC. Raises ValueError.
    """
    try:
        at = datetime.fromisoformat(text)
    except ValueError:
        raise ValueError(f"time {text[:30]!r}: expected a date, or a date and time, in ISO 8601") from None
    return (at.replace(tzinfo=at.tzinfo or UTC) - EPOCH) // MILLISECOND
