"""Lines of files, with the place of whatever is wrong in them."""

from __future__ import annotations

import csv
import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, Final, TypeVar

from stream.errors import DataError
from stream.events import MAX_TEXT, MAX_TIME

Made = TypeVar("Made")
MAX_ID: Final = 256  # characters of an id that a message may carry


def csv_rows(path: Path, columns: tuple[str, ...], make: Callable[[dict[str, str]], Made]) -> Iterator[Made]:
    """`make` of every row of a CSV file with a header. Raises DataError naming file and line."""
    with open_text(path) as file:
        reader = csv.DictReader(lines(path, file), strict=True)
        missing = set(columns) - set(reader.fieldnames or ())
        if missing:
            raise DataError(f"{path}, line 1: expected the columns {', '.join(columns)}; missing {sorted(missing)}")
        rows = iter(reader)
        while True:
            try:
                row = next(rows)
                if None in row or None in row.values():
                    raise ValueError(f"expected {len(reader.fieldnames or ())} fields")
                made = make(row)
            except StopIteration:
                return
            except (csv.Error, ValueError) as error:
                raise DataError(f"{path}, line {reader.line_num}: {error}") from None
            yield made


def json_rows(path: Path, make: Callable[[dict[str, Any]], Made]) -> Iterator[Made]:
    """`make` of every line of a JSON-lines file; blank lines are passed over. Raises DataError naming file and line."""
    with open_text(path) as file:
        for number, line in enumerate(lines(path, file), start=1):
            if not line.strip():
                continue
            try:
                row = json.loads(line)
                if not isinstance(row, dict):
                    raise ValueError("expected a JSON object")
                if "\\u" in line:
                    json.dumps(row, ensure_ascii=False).encode()  # a lone surrogate is no text: a ValueError
                made = make(row)
            except KeyError as error:
                raise DataError(f"{path}, line {number}: missing field {error}") from None
            except RecursionError:
                raise DataError(f"{path}, line {number}: nested too deep") from None
            except (ValueError, TypeError, OverflowError) as error:
                raise DataError(f"{path}, line {number}: {error}") from None
            yield made


def lines(path: Path, file: Iterator[str]) -> Iterator[str]:
    """The lines of an open text file. Raises DataError where they are not UTF-8."""
    try:
        yield from file
    except UnicodeDecodeError as error:
        raise DataError(f"{path}: not UTF-8: {error}") from None


def read_text(path: Path) -> str:
    """The whole of a text file. Raises DataError where it cannot be read or is not UTF-8."""
    with open_text(path) as file:
        return "".join(lines(path, file))


def open_text(path: Path) -> Any:
    """Open for reading. Raises DataError where that fails."""
    try:
        return path.open(encoding="utf-8", newline="")
    except OSError as error:
        raise DataError(f"{path} cannot be read: {error.strerror}") from None


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
