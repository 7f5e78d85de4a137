"""What the forms share: rows of text files with the place of whatever is wrong in them, the first lines for `fits`, clicks,
items and the data set made of both. Forms of tens of millions of rows read columns instead (models/data/forms/columns.py).
"""

from __future__ import annotations

import ast
import csv
import json
import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Final, TypeVar

import polars as pl

from models.data.dataset import NAN, DataSet, Event, dataset
from models.data.rows import cut, identity
from models.data.source import Source, numbered
from stream.errors import DataError
from stream.events import CLICK, Item

VIEW: Final = "view"
CART: Final = "cart"
PURCHASE: Final = "purchase"
ORDER_START: Final = 1_388_534_400_000
ORDER_STEP: Final = 60_000
"""Where a form has no times, an event is dated ORDER_STEP ms after the one before it, the first at ORDER_START."""

MAX_TITLE: Final = 1024
MAX_NAME: Final = 256
MAX_NAMES: Final = 64
SHOWN: Final = 60  # characters of a wrong value that an error shows
HALF: Final = re.compile(r"\\ud[89a-f]", re.IGNORECASE)
Made = TypeVar("Made")


def click(user: str, item: str, time: int, action: str = "", scene: str = "") -> Event:
    """A click (time: epoch ms). action: what the user did (VIEW, CART, PURCHASE)."""
    return Event(user, item, CLICK, time, NAN, scene=scene, action=action)


def item(name: str, title: str = "", text: str = "", categories: Iterable[str] = ()) -> Item:
    """An item with its texts cut to what a message may carry; categories in their order, each once."""
    kept = tuple(dict.fromkeys(category.strip()[:MAX_NAME] for category in categories if category.strip()))[:MAX_NAMES]
    return Item(name, title[:MAX_TITLE], cut(text) or None, kept)


def collected(
    name: str,
    events: Sequence[Event] | pl.DataFrame,
    items: Iterable[Item],
    scale: tuple[float, float] = (0.5, 5.0),
    *,
    timed: bool = True,
) -> DataSet:
    """As models.data.dataset.dataset; of two items with one id the later one counts, and items that only events name are
    added, without a title. The scale is that of the settings where nothing is rated. Raises DataError without events."""
    if not len(events):
        raise DataError(f"{name}: no events in it; expected at least one row that is an event")
    listed = {one.item: one for one in items}
    if listed:
        if isinstance(events, pl.DataFrame):
            found: Iterable[str] = events["item"].unique(maintain_order=True).to_list()
        else:
            found = (event.item for event in events)
        for one in found:
            if one not in listed:
                listed[one] = Item(one, "")
    return dataset(name, events, list(listed.values()), scale, timed=timed)


def json_rows(path: Path, make: Callable[[dict[str, Any]], Made]) -> Iterator[Made]:
    """`make` of every line of a JSON-lines file; blank lines are passed over. Raises DataError with file and line."""
    return _rows(path, _json, make)


def dict_rows(path: Path, make: Callable[[dict[str, Any]], Made]) -> Iterator[Made]:
    """As `json_rows`, for lines that Python printed (u'...', True, None). Slow: about 100 microseconds a line."""
    return _rows(path, _literal, make)


def csv_rows(path: Path, columns: tuple[str, ...], make: Callable[[dict[str, str]], Made]) -> Iterator[Made]:
    """`make` of every row of a CSV file with a header and quoted cells. Raises DataError with file and line."""
    reader = csv.reader((line + "\n" for _, line in numbered(path)), strict=True)
    header: list[str] | None = None
    while True:
        try:
            cells = next(reader, None)
            if cells is None:
                break
            if header is None:
                header = cells
                require_columns(path, header, columns)
                continue
            if not cells:
                continue
            if len(cells) != len(header):
                raise ValueError(f"{len(cells)} fields; expected {len(header)}")
            made = make(dict(zip(header, cells, strict=True)))
        except (csv.Error, ValueError) as error:
            raise DataError(f"{path}, line {reader.line_num}: {error}") from None
        yield made
    if header is None:
        require_columns(path, [], columns)


def require_columns(path: Path, header: Sequence[str], columns: Sequence[str]) -> None:
    """Raises DataError where the first line lacks a column."""
    if missing := [name for name in columns if name not in header]:
        found = ",".join(header)[:SHOWN] or "an empty line"
        raise DataError(
            f"{path}, line 1: missing the columns {', '.join(missing)}; found {found}; expected {', '.join(columns)}"
        )


def field(row: Mapping[str, Any], name: str, make: Callable[[Any], Made]) -> Made:
    """`make` of one field. Raises ValueError naming the field and what was found, KeyError where it is missing."""
    value = row[name]
    try:
        return make(value)
    except (ValueError, TypeError, OverflowError) as error:
        raise ValueError(f"{name} {shown(value)}: {error}") from None


def shown(value: object) -> str:
    """A value for an error, cut."""
    text = repr(value)
    return text if len(text) <= SHOWN else text[:SHOWN] + "..."


def named(value: Any) -> str:
    """An id that is text or a whole number in the file. Raises ValueError for anything else."""
    if isinstance(value, bool) or not isinstance(value, str | int):
        raise ValueError("expected an id: text or a whole number")
    return identity(value)


def words(value: Any) -> str:
    """A text, or "" where there is none. Raises ValueError for anything else."""
    if value is None:
        return ""
    if not isinstance(value, str):
        raise ValueError("expected text")
    return cut(value.strip())


def names(value: Any) -> list[str]:
    """A list of texts, or [] where there is none. Raises ValueError for anything else."""
    if value is None or value == "":
        return []
    if not isinstance(value, list) or not all(isinstance(one, str) for one in value):
        raise ValueError("expected a list of texts")
    return value


def first_lines(source: Source, *files: str, lone: bool = True, count: int = 5) -> list[str]:
    """The first lines of the first of these files that is there; with `lone`, of a file that was named alone, whatever its
    name; [] where there is none or it cannot be read. Never raises: it is for `fits`."""
    path = chosen(source, *files, lone=lone)
    return [] if path is None else head(source, path, count)


def head(source: Source, path: Path, count: int = 5) -> list[str]:
    """The first lines; [] where the file cannot be read (the reader tells why, the sniffer does not)."""
    try:
        return source.head(path, count)
    except DataError:
        return []


def chosen(source: Source, *files: str, lone: bool = True) -> Path | None:
    """The first of these files that is there, or the file that was named alone."""
    found = source.find(*files)
    return source.path if found is None and lone and source.path.is_file() else found


def matching(source: Source, start: str, end: str) -> list[Path]:
    """The files whose name, in lower case and unpacked, starts and ends so, in the order of their names."""
    names_in_order = sorted(name for name in source.files if name.startswith(start) and name.endswith(end))
    return [source.files[name] for name in names_in_order]


def has_fields(lines: Sequence[str], fields: Iterable[str], parse: Callable[[str], Any] | None = None) -> bool:
    """Is the first line that is not blank an object of JSON (or of `parse`) with these fields? Never raises."""
    line = next((line for line in lines if line.strip()), "")
    try:
        row = (parse or json.loads)(line)
    except (ValueError, SyntaxError, TypeError, MemoryError, RecursionError):
        return False
    return isinstance(row, dict) and set(fields) <= row.keys()


def literal(line: str) -> Any:
    """What Python printed, without running any of it. Raises ValueError, SyntaxError, MemoryError or RecursionError."""
    row = ast.literal_eval(line.strip())
    return _joined(row) if HALF.search(line) else row


def _joined(value: Any) -> Any:
    """Old Pythons print a character above U+FFFF as two halves; they become one, and a half alone becomes U+FFFD."""
    if isinstance(value, str):
        return value.encode("utf-16-le", "surrogatepass").decode("utf-16-le", "replace")
    if isinstance(value, list | tuple):
        return [_joined(one) for one in value]
    if isinstance(value, dict):
        return {_joined(key): _joined(one) for key, one in value.items()}
    return value


def _json(line: str) -> Any:
    row = json.loads(line)
    if HALF.search(line):
        json.dumps(row, ensure_ascii=False).encode()  # half a character is no text: a ValueError
    return row


def _literal(line: str) -> Any:
    try:
        return literal(line)
    except (SyntaxError, MemoryError) as error:
        raise ValueError(f"expected an object as Python prints it: {error}") from None


def _rows(path: Path, parse: Callable[[str], Any], make: Callable[[dict[str, Any]], Made]) -> Iterator[Made]:
    for number, line in numbered(path):
        if not line.strip():
            continue
        try:
            row = parse(line)
            if not isinstance(row, dict):
                raise ValueError(f"found {shown(line)}; expected an object with named fields")
            made = make(row)
        except KeyError as error:
            raise DataError(f"{path}, line {number}: missing field {error}; found {shown(list(row))}") from None
        except RecursionError:
            raise DataError(f"{path}, line {number}: nested too deep") from None
        except (ValueError, TypeError, OverflowError) as error:
            raise DataError(f"{path}, line {number}: {error}") from None
        yield made
