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
from models.data.rows import given_scale, json_rows, rating
from stream.body import convert
from stream.errors import DataError, RecordError
from stream.events import BEHAVIOURS, SOURCE_TOPICS, Click, Comment, Item, Rating

SCALE: Final = (0.5, 5.0)  # of the settings' default; a log does not say its own
WIDENED: Final = (
    "the rating scale is {0:g} to {1:g}: widened from {2:g} to {3:g} to hold the ratings found; if theirs is another, say "
    "--rating-scale LOW HIGH; the worker needs rating_scale = [{0}, {1}]"
)
KINDS: Final[dict[str, type[Click] | type[Rating] | type[Comment]]] = {
    "clicks": Click,
    "ratings": Rating,
    "comments": Comment,
}
Kind = TypeVar("Kind", bound=msgspec.Struct)


def read_messages(folder: Path) -> DataSet:
    """The rating scale is the one that is given (models.data.rows.rated_on), else 0.5 to 5, widened where ratings lie outside."""
    events: list[Event] = []
    for behaviour, topic in enumerate(SOURCE_TOPICS):
        events += (_event(behaviour, message) for message in _read(folder, topic, KINDS[topic]))
    if not events:
        raise DataError(f"{folder}: no {', no '.join(BEHAVIOURS)} in it")
    items = {item.item: item for item in _read(folder, "items", Item)}
    values = [event.value for event in events if event.value == event.value]
    scale = (min([SCALE[0], *values]), max([SCALE[1], *values]))
    notes = () if scale == SCALE or given_scale() else (WIDENED.format(*scale, *SCALE),)
    return dataset(folder.name, events, list(items.values()), scale, notes=notes)


def message_files(folder: Path) -> list[Path]:
    """The source topics' files that are there."""
    paths = (folder / f"{topic}.{kind}" for topic in SOURCE_TOPICS for kind in ("jsonl", "parquet"))
    return [path for path in paths if path.exists()]


def _read(folder: Path, topic: str, kind: type[Kind]) -> Iterator[Kind]:
    path = folder / f"{topic}.jsonl"
    if path.exists():
        yield from json_rows(path, lambda row: _made(row, kind))
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
            yield _made(filled, kind)
        except ValueError as error:
            raise DataError(f"{path}, row {number}: {error}") from None


def _made(row: dict[str, Any], kind: type[Kind]) -> Kind:
    """A row as the wire would read it. Raises ValueError."""
    try:
        made = convert(row, kind)
        if (scale := given_scale()) and (value := getattr(made, "value", None)) is not None:
            rating(value, scale)
        return made
    except RecordError as error:
        raise ValueError(f"{error.field}: {error}") from None


def _event(behaviour: int, message: Click | Rating | Comment) -> Event:
    value = None if isinstance(message, Click) else message.value
    text = message.text if isinstance(message, Comment) else ""
    value = NAN if value is None else value
    action = (message.action or "") if isinstance(message, Click) else ""
    return Event(message.user, message.item, behaviour, message.time, value, text, message.scene or "", action)
