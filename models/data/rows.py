"""Lines of files, with the place of whatever is wrong in them."""

from __future__ import annotations

import ast
import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, Final, TypeVar

from models.data.source import numbered
from models.data.table import LINE, headed
from stream.errors import DataError
from stream.events import MAX_TEXT, MAX_TIME

Made = TypeVar("Made")
MAX_ID: Final = 256  # characters of an id that a message may carry


def csv_rows(path: Path, columns: tuple[str, ...], make: Callable[[dict[str, str]], Made]) -> Iterator[Made]:
    """`make` of every row of a CSV file with a header. Raises DataError naming file and line."""
    for block in headed(path, columns):
        for row in block.iter_rows(named=True):
            number = row.pop(LINE)
            try:
                made = make(row)
            except ValueError as error:
                raise DataError(f"{path}, line {number}: {error}") from None
            yield made


def json_rows(path: Path, make: Callable[[dict[str, Any]], Made]) -> Iterator[Made]:
    """`make` of every line of a JSON-lines file; blank lines are passed over. Raises DataError naming file and line."""
    return object_rows(path, json_object, make)


def object_rows(
    path: Path, parse: Callable[[str], dict[str, Any]], make: Callable[[dict[str, Any]], Made]
) -> Iterator[Made]:
    """`make` of what `parse` finds in every line. Raises DataError naming file and line."""
    return (made for _, made in numbered_rows(path, parse, make))


def numbered_rows(
    path: Path, parse: Callable[[str], dict[str, Any]], make: Callable[[dict[str, Any]], Made]
) -> Iterator[tuple[int, Made]]:
    """As object_rows, each with its line number."""
    for number, line in numbered(path):
        if not line.strip():
            continue
        try:
            made = make(parse(line))
        except KeyError as error:
            raise DataError(f"{path}, line {number}: missing field {error}") from None
        except (RecursionError, MemoryError):
            raise DataError(f"{path}, line {number}: nested too deep") from None
        except (ValueError, TypeError, OverflowError) as error:
            raise DataError(f"{path}, line {number}: {error}") from None
        yield number, made


def json_object(line: str) -> dict[str, Any]:
    """One line of JSON. Raises ValueError where it is no object."""
    row = json.loads(line)
    if not isinstance(row, dict):
        raise ValueError("expected a JSON object")
    if "\\u" in line:
        json.dumps(row, ensure_ascii=False).encode()  # a lone surrogate is no text: a ValueError
    return row


def python_object(line: str) -> dict[str, Any]:
    """One line with a Python dict of plain values, as some files of 2014 have it; nothing is ever run. Raises ValueError."""
    try:
        row = ast.literal_eval(line.strip())
    except SyntaxError as error:
        raise ValueError(f"no Python dict: {error.msg}") from None
    if not isinstance(row, dict):
        raise ValueError("expected a Python dict")
    json.dumps(row, ensure_ascii=False).encode()
    return row


def rating(value: Any, scale: tuple[float, float]) -> float:
    """A rating as a float. Raises ValueError where it lies outside the scale (NaN included)."""
    number = float(value)
    if not scale[0] <= number <= scale[1]:
        raise ValueError(f"rating {value}: expected {scale[0]:g} to {scale[1]:g}")
    return number


def moment(value: Any, unit: int = 1) -> int:
    """A time in units of `unit` ms as epoch ms. Raises ValueError where no message may carry it."""
    time = int(value) * unit
    if not 0 <= time <= MAX_TIME:
        raise ValueError(f"time {str(value)[:30]}: expected 0 to {MAX_TIME // unit}")
    return time


def identity(value: Any) -> str:
    """An id. Raises ValueError where it is empty or too long for a message."""
    text = str(value)
    if not 1 <= len(text) <= MAX_ID:
        raise ValueError(f"id of {len(text)} characters: expected 1 to {MAX_ID}")
    return text


def cut(text: str) -> str:
    """A text, cut to the longest that a message may carry (BERT reads far less)."""
    return text[:MAX_TEXT]
