"""Folders with a log of freshet's own messages: clicks, ratings, comments and items, as .jsonl or .parquet files.

One message a line or row, fields as in stream.events. Files that are missing are empty. Items without a file are taken
from the events; a later line of the same item replaces an earlier one.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final, TypeVar

import msgspec
import polars as pl

from models.data.dataset import NAN, DataSet, Event, dataset
from models.data.rows import json_rows
from stream.errors import DataError
from stream.events import BEHAVIOURS, SOURCE_TOPICS, Click, Comment, Item, Rating

SCALE: Final = (0.5, 5.0)  # of the settings' default; a log does not say its own
KINDS: Final[dict[str, type[Click] | type[Rating] | type[Comment]]] = {
    "clicks": Click,
    "ratings": Rating,
    "comments": Comment,
}
Kind = TypeVar("Kind", bound=msgspec.Struct)


def read_messages(folder: Path) -> DataSet:
    """The rating scale is 0.5 to 5, widened where ratings lie outside it."""
    events: list[Event] = []
    for behaviour, topic in enumerate(SOURCE_TOPICS):
        events += (_event(behaviour, message) for message in _read(folder, topic, KINDS[topic]))
    if not events:
        raise DataError(f"{folder}: no {', no '.join(BEHAVIOURS)} in it")
    items = {item.item: item for item in _read(folder, "items", Item)}
    values = [event.value for event in events if event.value == event.value]
    scale = (min([SCALE[0], *values]), max([SCALE[1], *values]))
    return dataset(folder.name, events, list(items.values()), scale)


def message_files(folder: Path) -> list[Path]:
    """The source topics' files that are there."""
    paths = (folder / f"{topic}.{kind}" for topic in SOURCE_TOPICS for kind in ("jsonl", "parquet"))
    return [path for path in paths if path.exists()]


def _read(folder: Path, topic: str, kind: type[Kind]) -> Iterator[Kind]:
    path = folder / f"{topic}.jsonl"
    if path.exists():
        yield from json_rows(path, lambda row: msgspec.convert(row, kind))
    path = folder / f"{topic}.parquet"
    if path.exists():
        yield from _parquet(path, kind)


def _parquet(path: Path, kind: type[Kind]) -> Iterator[Kind]:
    try:
        table = pl.read_parquet(path)
    except (pl.exceptions.PolarsError, OSError) as error:
        raise DataError(f"{path} cannot be read: {error}") from None
    for number, row in enumerate(table.iter_rows(named=True), start=1):
        filled: dict[str, Any] = {name: value for name, value in row.items() if value is not None}
        try:
            yield msgspec.convert(filled, kind)
        except msgspec.ValidationError as error:
            raise DataError(f"{path}, row {number}: {error}") from None


def _event(behaviour: int, message: Click | Rating | Comment) -> Event:
    value = None if isinstance(message, Click) else message.value
    text = message.text if isinstance(message, Comment) else ""
    value = NAN if value is None else value
    action = (message.action or "") if isinstance(message, Click) else ""
    return Event(message.user, message.item, behaviour, message.time, value, text, message.scene or "", action)
