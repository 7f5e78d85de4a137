"""What published forms share: the first lines for `fits`, files by their names, clicks, and the times of what has none."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any, Final

from models.data.dataset import NAN, Event
from models.data.rows import json_object
from models.data.source import Source
from stream.core.errors import DataError
from stream.core.messages import CLICK

VIEW: Final = "view"
CART: Final = "cart"
PURCHASE: Final = "purchase"
ORDER_START: Final = 1_388_534_400_000
ORDER_STEP: Final = 60_000
"""Where a form has no times, an event is dated ORDER_STEP ms after the one before it, the first at ORDER_START."""


def click(user: str, item: str, time: int, action: str = "", scene: str = "") -> Event:
    """A click (time: epoch ms). action: what the user did (VIEW, CART, PURCHASE)."""
    return Event(user, item, CLICK, time, NAN, scene=scene, action=action)


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


def first_of(source: Source, *files: str) -> list[str]:
    """The name of the first of these files that is there: of several names of one file the others are not read."""
    return [name for name in files if source.find(name)][:1]


def matching(source: Source, start: str, end: str) -> list[Path]:
    """The files whose name, in lower case and unpacked, starts and ends so, in the order of their names."""
    names_in_order = sorted(name for name in source.files if name.startswith(start) and name.endswith(end))
    return [source.files[name] for name in names_in_order]


def has_fields(
    lines: Sequence[str], fields: Iterable[str], parse: Callable[[str], dict[str, Any]] = json_object
) -> bool:
    """Is the first line that is not blank an object of JSON (or of `parse`) with these fields? Never raises."""
    line = next((line for line in lines if line.strip()), "")
    try:
        return set(fields) <= parse(line).keys()
    except (ValueError, TypeError, MemoryError, RecursionError):
        return False
