"""The folder that `freshet capture` fills with the source topics. Its form is in models/data/forms/capture.py.

    capture.json                                         what is captured: topics, partitions, rating scale, form of keys
    clicks/partition=0/FIRST-NEXT/day=2026-11-28.parquet events by the day (UTC) of their `time`
    clicks/partition=0/FIRST-NEXT/refused.parquet        records that a worker would not accept, as they are
    clicks/partition=0/FIRST-NEXT/range.json             counts, what is missing before it, and users to erase
    ratings/, comments/, items/                          the same

FIRST and NEXT are offsets of 20 digits: the first of the range, and the one after its last. A range is a folder that comes
into being by one rename, so it is there as a whole or not at all. Ranges of a partition follow each other without a gap,
so the last one's NEXT is the offset to go on from. What is hidden (`.`) is unfinished.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any, Final

import msgspec
import polars as pl

from stream.core.errors import DataError, RecordError
from stream.core.json_body import convert
from stream.core.messages import Item

VERSION: Final = 1
MARK: Final = "capture.json"
RANGE: Final = "range.json"
REFUSED: Final = "refused.parquet"
ITEMS: Final = "items"
DAY: Final = "day="
PARTITION: Final = "partition="

POSITION: Final = {"partition": pl.Int32, "offset": pl.Int64, "appended": pl.Int64}
EVENTS: Final = {
    "user": pl.String,
    "item": pl.String,
    "time": pl.Int64,
    "value": pl.Float64,
    "text": pl.String,
    "scene": pl.String,
    "action": pl.String,
    "id": pl.String,
    "slate": pl.String,
    "rank": pl.Int32,
    "dwell_ms": pl.Int64,
    **POSITION,
}
"""Columns of events. What a message does not have is null. `appended` is the record's time in Kafka, epoch ms."""
CHANGES: Final = {"item": pl.String, "message": pl.String, **POSITION}
"""Columns of items. `message` is the item as JSON, null if it was removed."""
REFUSALS: Final = {"key": pl.Binary, "value": pl.Binary, "reason": pl.String, "error": pl.String, **POSITION}

_NAME = re.compile(r"(\d{20})-(\d{20})")


class Mark(msgspec.Struct, frozen=True, rename={"version": "capture"}):
    """What a folder holds: the content of capture.json.

    Attributes:
        version: Of this layout.
        topics: Kind (clicks, ratings, comments, items) -> name of its topic.
        partitions: Partitions of a source topic.
        rating_scale: Least and greatest rating.
        key: The setting `key`.
        envelope: The setting `envelope`.
    """

    version: int
    topics: dict[str, str]
    partitions: int
    rating_scale: tuple[float, float]
    key: str
    envelope: str


class Content(msgspec.Struct):
    """What a range holds: the content of range.json.

    Attributes:
        days: Day -> records.
        refused: Reason -> records that a worker would not accept.
        missing: Offsets right before the range that Kafka had deleted before they were captured.
        forget: User -> offset of the control record that asks to forget the user, while earlier events of the user may
            still be in the folder.
    """

    days: dict[str, int] = {}  # msgspec gives each its own
    refused: dict[str, int] = {}
    missing: int = 0
    forget: dict[str, int] = {}


@dataclass(frozen=True)
class Range:
    """Some records of one partition.

    Attributes:
        path: Its folder.
        first: Its first offset.
        next: The offset after its last.
    """

    path: Path
    first: int
    next: int

    def content(self) -> Content:
        """Return what range.json says. Raises DataError."""
        content: Content = decoded(self.path / RANGE, Content)
        return content

    def files(self) -> list[Path]:
        """Return the files of its days, oldest first."""
        return sorted(self.path.glob(f"{DAY}*.parquet"))


def range_path(folder: Path, kind: str, partition: int, first: int, end: int) -> Path:
    """Return where the records [first, end) of a partition are kept."""
    return folder / kind / f"{PARTITION}{partition}" / f"{first:020}-{end:020}"


def ranges(folder: Path, kind: str, partition: int) -> list[Range]:
    """Return the ranges of a partition in their order.

    Raises:
        DataError: They overlap, or there is a gap between them that no range explains, or a folder has another name.
    """
    home = folder / kind / f"{PARTITION}{partition}"
    found = []
    for path in sorted(home.iterdir()) if home.is_dir() else ():
        if path.name.startswith("."):
            continue
        if not (match := _NAME.fullmatch(path.name)) or not path.is_dir():
            raise DataError(f"{path}: expected a folder FIRST-NEXT of two offsets with 20 digits each: move it away")
        found.append(Range(path, int(match[1]), int(match[2])))
    for before, after in pairwise(found):
        if after.first != before.next and after.first - after.content().missing != before.next:
            raise DataError(
                f"{after.path}: begins at offset {after.first}, expected {before.next}, where {before.path.name} ends: restore "
                "what is between them, or capture into another folder"
            )
    return found


def mark_of(folder: Path) -> Mark | None:
    """Return what a folder holds; None if nothing was captured into it. Raises DataError."""
    path = folder / MARK
    if not path.is_file():
        return None
    mark: Mark = decoded(path, Mark)
    if mark.version != VERSION:
        raise DataError(f"{path}: written as version {mark.version}, expected {VERSION}: capture into another folder")
    return mark


def decoded(path: Path, kind: type[Any]) -> Any:
    """Return the content of a JSON file. Raises DataError."""
    try:
        return msgspec.json.decode(path.read_bytes(), type=kind)
    except OSError as error:
        raise DataError(f"{path} cannot be read: {error.strerror}") from None
    except msgspec.MsgspecError as error:
        raise DataError(f"{path}: {error}") from None


def table(path: Path) -> pl.DataFrame:
    """Read one of the folder's Parquet files. Raises DataError."""
    try:
        return pl.read_parquet(path, hive_partitioning=False)
    except (OSError, pl.exceptions.PolarsError) as error:
        raise DataError(f"{path} cannot be read as Parquet: {str(error)[:200]}") from None


def events(folder: Path, kind: str, partitions: int) -> Iterator[pl.DataFrame]:
    """Yield the events of a kind, one file at a time: columns as in EVENTS. Raises DataError."""
    for partition in range(partitions):
        for one in ranges(folder, kind, partition):
            for path in one.files():
                yield table(path)


def items(folder: Path) -> list[Item]:
    """Return the items as their last messages have them. Raises DataError."""
    latest: dict[str, str | None] = {}
    for one in ranges(folder, ITEMS, 0):
        changes = [table(path) for path in one.files()]
        if changes:
            latest.update(pl.concat(changes).sort("offset").select("item", "message").iter_rows())
    try:
        return [convert(msgspec.json.decode(message), Item) for message in latest.values() if message is not None]
    except (RecordError, msgspec.MsgspecError) as error:
        raise DataError(f"{folder / ITEMS}: {error}") from None
