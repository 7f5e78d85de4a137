"""Read lines of files and their values. Errors name the file and the line."""

from __future__ import annotations

import ast
import json
import math
import re
from collections.abc import Callable, Iterator, Mapping
from decimal import Decimal
from numbers import Integral, Real
from pathlib import Path
from time import time_ns
from typing import Any, Final, TypeVar

from models.data.source import numbered
from models.data.table import LINE, headed, shown
from stream.core import times, validation
from stream.core.errors import DataError, RecordError
from stream.core.messages import FUTURE_MS, MAX_ID, MAX_TEXT, MAX_TIME

__all__ = [
    "MAX_ID",
    "NULLS",
    "csv_rows",
    "cut",
    "field",
    "identity",
    "json_object",
    "json_rows",
    "moment",
    "number",
    "numbered_rows",
    "object_rows",
    "python_object",
    "rating",
    "table_id",
    "words",
]  # fmt: skip

Made = TypeVar("Made")
_DIGITS: Final = re.compile(r"[+-]?([0-9]{1,40}\.?[0-9]{0,40}|\.[0-9]{1,40})([eE][+-]?[0-9]{1,3})?", re.ASCII)
_HALF: Final = re.compile(r"\\ud[89a-f]", re.IGNORECASE)
NULLS: Final = frozenset(
    ["NULL", "Null", "null", "None", "\\N", "NaN", "NAN", "nan", "-NaN", "-nan", "NA", "N/A", "n/a", "<NA>", "#N/A", "#NA", "NaT"]
)  # fmt: skip
"""What databases, pandas, R and spreadsheets write into a table for a missing value."""
_ROUNDED: Final = re.compile(r"[+-]?([0-9]\.[0-9]+[eE]\+?|[0-9][eE]\+)[0-9]{1,3}", re.ASCII)
_COMMA: Final = re.compile(r"[+-]?[0-9]+,[0-9]+", re.ASCII)
_POINT: Final = re.compile(r"[+-]?[0-9]+\.0+", re.ASCII)
_UNITS: Final = {1: "milliseconds", 1000: "seconds"}


def csv_rows(path: Path, columns: tuple[str, ...], make: Callable[[dict[str, str]], Made]) -> Iterator[Made]:
    """Yield `make(row)` for every row of a CSV file with a header. Raises DataError with file and line."""
    for block in headed(path, columns):
        for row in block.iter_rows(named=True):
            number = row.pop(LINE)
            try:
                made = make(row)
            except ValueError as error:
                raise DataError(f"{path}, line {number}: {error}") from None
            yield made


def json_rows(path: Path, make: Callable[[dict[str, Any]], Made]) -> Iterator[Made]:
    """Yield `make(object)` for every line of a JSON-lines file, without blank lines.

    Raises DataError with file and line.
    """
    return object_rows(path, json_object, make)


def object_rows(
    path: Path, parse: Callable[[str], dict[str, Any]], make: Callable[[dict[str, Any]], Made]
) -> Iterator[Made]:
    """Yield `make(parse(line))` for every line, without blank lines. Raises DataError with file and line."""
    return (made for _, made in numbered_rows(path, parse, make))


def numbered_rows(
    path: Path, parse: Callable[[str], dict[str, Any]], make: Callable[[dict[str, Any]], Made]
) -> Iterator[tuple[int, Made]]:
    """Yield what object_rows yields, with line numbers: (line, made) each."""
    for number, line in numbered(path):
        if not line.strip():
            continue
        row: dict[str, Any] = {}
        try:
            row = parse(line)
            made = make(row)
        except KeyError as error:
            raise DataError(f"{path}, line {number}: missing field {error}; found {shown(list(row))}") from None
        except (RecursionError, MemoryError):
            raise DataError(f"{path}, line {number}: nested too deeply") from None
        except (ValueError, TypeError, OverflowError) as error:
            raise DataError(f"{path}, line {number}: {error}") from None
        yield number, made


def json_object(line: str) -> dict[str, Any]:
    """Read one line of JSON. Raises ValueError if it is not an object."""
    row = _object(json.loads(line), line)
    if _HALF.search(line):
        for name, value in row.items():
            if not validation.is_text(json.dumps([name, value], ensure_ascii=False)):
                raise ValueError(
                    f"{shown(name)}: found half of a pair of surrogates in {shown(value)}, expected a text that UTF-8 can hold"
                )
    return row


def python_object(line: str) -> dict[str, Any]:
    """Read one line with a dict of plain values as Python printed it (u'...', True, None), as in some files of 2014.

    The line is never executed. Slow: about 100 microseconds per line. Raises ValueError.
    """
    try:
        row = _object(ast.literal_eval(line.strip()), line)
    except SyntaxError as error:
        raise ValueError(f"expected an object as Python prints it: {error}") from None
    return _joined(row) if _HALF.search(line) else row


def _object(found: Any, line: str) -> dict[str, Any]:
    if not isinstance(found, dict):
        raise ValueError(f"found {shown(line)}; expected an object with named fields")
    return found


def _joined(value: Any) -> Any:
    """Join surrogate pairs. Old Pythons print a character above U+FFFF as two halves; a half alone becomes U+FFFD."""
    if isinstance(value, str):
        return value.encode("utf-16-le", "surrogatepass").decode("utf-16-le", "replace")
    if isinstance(value, list | tuple):
        return [_joined(one) for one in value]
    if isinstance(value, dict):
        return {_joined(key): _joined(one) for key, one in value.items()}
    return value


def field(row: Mapping[str, Any], name: str, make: Callable[[Any], Made]) -> Made:
    """Return `make` of one field.

    Raises ValueError with the field and what was found, and KeyError if it is missing.
    """
    value = row[name]
    try:
        return make(value)
    except (ValueError, TypeError, OverflowError) as error:
        raise ValueError(f"{name} {shown(value)}: {error}") from None


def words(value: Any) -> str:
    """Return a text, or "" for None. Raises ValueError for anything else."""
    if value is None:
        return ""
    if not isinstance(value, str):
        raise ValueError("expected text")
    return cut(value.strip())


def rating(value: Any, scale: tuple[float, float]) -> float:
    """Return a rating, given as a number or as digits, as a float.

    Raises ValueError if it is outside the scale or NaN.
    """
    number = _number(value)
    if number is None or not scale[0] <= number <= scale[1]:
        hint = with_point(value) if number is None else ""
        raise ValueError(f"rating {validation.shown(value)}: expected {validation.scale(*scale)}{hint}")
    return number


def number(text: str) -> float:
    """Return the number that a text of plain digits stands for.

    What only Python reads as a number (`1_0`, Arabic digits, `nan`) is refused. Raises ValueError.
    """
    if (found := _number(text)) is None:
        raise ValueError(f"expected a number{with_point(text)}")
    return found


def with_point(value: Any) -> str:
    """Return how to write a number that has a decimal comma, as the end of a message; "" for anything else."""
    if not isinstance(value, str) or not _COMMA.fullmatch(value.strip()):
        return ""
    return f" with a decimal point: write {value.strip().replace(',', '.')}"


def moment(value: Any, unit: int = 1) -> int:
    """Return a time in units of `unit` ms, given as a number or as digits, as epoch ms.

    If `unit` is above 1, fractions of a millisecond are dropped. Raises ValueError if no message may carry the time: it
    is before 1970, after the year 9999, or more than an hour in the future.
    """
    number, named = _number(value), _UNITS.get(unit, f"units of {unit} ms")
    if number is None or abs(number) > 1e30:  # more digits than any time can have
        raise ValueError(
            f"time {validation.shown(value)}: expected 0 to {MAX_TIME // unit} {named} since 1970, or ISO 8601 such as "
            f"2025-12-31T14:00:00Z{times.with_written(str(value))}"
        )
    exact = int(value) if isinstance(value, Integral) else Decimal(str(value).strip())
    time = int(exact * unit)
    found = f"time {validation.shown(value)}"
    hint = times.with_hint(int(exact), _UNITS[unit]) if unit in _UNITS else ""
    if unit == 1 and time != exact:
        raise ValueError(f"{found}: expected whole milliseconds")
    if not 0 <= time <= MAX_TIME:
        raise ValueError(f"{found}: expected 0 to {MAX_TIME // unit}{hint}")
    if time > time_ns() // 1_000_000 + FUTURE_MS:
        raise ValueError(f"{found}: expected {validation.LATEST} now{hint}")
    return time


def _number(value: Any) -> float | None:
    """Return a number, or the plain digits of one, as a float, which may be rounded. Returns None for anything else."""
    if isinstance(value, str):
        text = value.strip()
        return float(text) if _DIGITS.fullmatch(text) else None
    if not isinstance(value, bool) and isinstance(value, Real | Decimal):
        try:
            number = float(value)
        except OverflowError:
            return None
        return number if math.isfinite(number) else None
    return None


def identity(value: Any, *, whole_floats: bool = False) -> str:
    """Return an id from a text or a whole number.

    Args:
        whole_floats: Read 12.0 and "12.0" as "12", for columns of numbers that a program has turned into floats.

    Raises:
        ValueError: The value is neither, or it is empty or too long for a message.
    """
    try:
        return validation.identity(value, whole_floats)
    except RecordError as error:
        raise ValueError(str(error)) from None


def table_id(text: str, *, whole_floats: bool = False) -> str:
    """Return an id from a text in a table, as `identity` does.

    Also raises ValueError for what programs write for a missing value (NULLS), and for a large number that a program
    has rounded: several ids would become one user or item.
    """
    if text in NULLS:
        raise ValueError(
            f"found {text!r}, which programs write for a missing value; expected a name or a number: leave the row out, or "
            "give the user or item another id"
        )
    if _ROUNDED.fullmatch(text):
        raise ValueError(
            f"found {text!r}, which programs write for a large number that they have rounded; expected a name or a whole number: "
            "write the ids as texts in the program that exports them"
        )
    try:
        return identity(text, whole_floats=whole_floats)
    except ValueError:
        if whole_floats and _POINT.fullmatch(text):
            raise ValueError(
                f"found {text[:40]!r}, expected a whole number below {2**53}, or one without a decimal point: a program that "
                "writes a decimal point may have rounded the number, so write the ids as texts or whole numbers in the "
                "program that exports them"
            ) from None
        raise


def cut(text: str, most: int = MAX_TEXT) -> str:
    """Return prose cut to the length that a message may carry (BERT reads far less).

    Names are never cut: see stream.core.validation. Raises ValueError if it is not a text.

    Args:
        most: Longest length of the field, by default that of `text`.
    """
    if not validation.is_text(text):
        raise ValueError(f"text {validation.shown(text)}: expected a text that UTF-8 can hold")
    return text[:most]
