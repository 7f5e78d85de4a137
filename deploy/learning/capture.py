"""Capture the source topics and the items into a folder of Parquet files, each record exactly once.

models/data/capture.py describes the folder. The offsets of what is captured are the names of its folders, and each of
them comes into being by a rename, so a capture that is killed at any moment goes on where the last whole range ends.

A control record that asks to forget a user erases the user's earlier events of the same partition, in all ranges. It is
in its range's range.json until that is done, so a kill delays it only.
"""

from __future__ import annotations

import fcntl
import json
import shutil
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Final

import msgspec
import polars as pl

from deploy.clients.log_reader import Log, Record, Span
from deploy.clients.murmur2 import murmur2
from deploy.learning.durable import sync
from models.data.capture import (
    CHANGES,
    DAY,
    EVENTS,
    ITEMS,
    MARK,
    RANGE,
    REFUSALS,
    REFUSED,
    VERSION,
    Content,
    Mark,
    Range,
    mark_of,
    range_path,
    ranges,
    table,
)
from stream.core.decoder import EventDecoder
from stream.core.envelopes import NONE, unwrap
from stream.core.errors import DataError, DiskError, LossError, RecordError
from stream.core.json_body import JsonDecoder, text_of
from stream.core.keys import key_of, user_of
from stream.core.messages import CLICK, MAX_TIME, SOURCE_TOPICS, Item
from stream.core.times import date
from stream.settings import Settings

ROWS: Final = 100_000
"""Offsets of a range at most; its records are in memory until it is written."""
HALF: Final = ".half-"
LOCK: Final = ".lock"


@dataclass
class Captured:
    """What one run captured.

    Attributes:
        records: Kind -> records, without control records.
        refused: Reason -> records that a worker would not accept.
        missing: Offsets that Kafka had deleted before they were captured.
        forgotten: Events erased because their users asked to be forgotten.
        ranges: Ranges written.
    """

    records: Counter[str] = field(default_factory=Counter)
    refused: Counter[str] = field(default_factory=Counter)
    missing: int = 0
    forgotten: int = 0
    ranges: int = 0


class Extra(msgspec.Struct, frozen=True):
    """Fields of a click, rating or comment that the worker does not read."""

    slate: str | None = None
    rank: float | None = None
    dwell_ms: float | None = None


@dataclass
class Rows:
    """The records of one range as they are decoded."""

    days: dict[str, list[dict[str, Any]]] = field(default_factory=dict)
    refused: list[dict[str, Any]] = field(default_factory=list)
    forget: dict[str, int] = field(default_factory=dict)

    def add(self, day_ms: int, row: dict[str, Any]) -> None:
        """Add a record to the day (UTC) of an epoch ms; a producer may write an impossible one as a record's time."""
        day = datetime.fromtimestamp(_possible(day_ms) / 1000, UTC).date().isoformat()
        self.days.setdefault(day, []).append(row)

    def refuse(self, record: Record, error: RecordError) -> None:
        """Keep a record that a worker would not accept."""
        self.refused.append(
            {
                "key": record.key,
                "value": record.value,
                "reason": error.reason,
                "error": str(error),
                **_position(record),
            }
        )


class Capture:
    """Captures into one folder. One process at a time may; use it as a context manager.

    Args:
        settings: Names of the topics, partitions, rating scale, form of keys.
        folder: Is made if it is not there.
        log: The topics.
        accept_loss: Go on although Kafka has deleted records that were not captured.
        rows: Offsets of a range at most.
    """

    def __init__(
        self, settings: Settings, folder: Path, log: Log, *, accept_loss: bool = False, rows: int = ROWS
    ) -> None:
        self._settings, self._folder, self._log = settings, folder, log
        self._accept_loss, self._most = accept_loss, rows
        self._mark = Mark(
            VERSION,
            {**dict(zip(SOURCE_TOPICS, settings.sources, strict=True)), ITEMS: settings.items_topic},
            settings.partitions,
            settings.rating_scale,
            settings.key,
            settings.envelope,
        )
        self._decoder = EventDecoder(
            murmur2, settings.partitions, settings.rating_scale, settings.sources, settings.oldest, settings.envelope,
            settings.key,
        )  # fmt: skip
        self._extra: msgspec.json.Decoder[Extra] = msgspec.json.Decoder(Extra, strict=False)
        self._item = JsonDecoder(Item)

    def run(self) -> Captured:
        """Capture everything up to the present ends of the topics.

        Raises:
            LossError: Kafka has deleted records that were not captured, or a topic ends before what was captured.
            DataError: The folder holds other topics, or is damaged.
            DiskError: It cannot be written.
            BrokerError, TopologyError: As in KafkaLog.
        """
        done = Captured()
        with _disk(self._folder), self._alone():
            self._prepare()
            spans = self._log.spans(list(self._mark.topics.values()))
            for kind, topic in self._mark.topics.items():
                for partition in range(1 if kind == ITEMS else self._mark.partitions):
                    if (topic, partition) not in spans:
                        raise DataError(f"{topic} has no partition {partition}, expected {self._mark.partitions}")
                    self._partition(kind, topic, partition, spans[topic, partition], done)
        return done

    @contextmanager
    def _alone(self) -> Iterator[None]:
        self._folder.mkdir(parents=True, exist_ok=True)
        with (self._folder / LOCK).open("w") as lock:
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                raise DataError(f"{self._folder}: another process captures into it") from None
            yield

    def _prepare(self) -> None:
        """Check that the folder holds the same topics, and finish what a killed capture left."""
        found = mark_of(self._folder)
        if found is None:
            others = [one.name for one in self._folder.iterdir() if not one.name.startswith(".")]
            if others:
                raise DataError(
                    f"{self._folder}: holds {others[0]!r} and no {MARK}, expected an empty folder or one of a capture"
                )
            _write(self._folder / MARK, _json(self._mark))
        elif found != self._mark:
            name = next(name for name in Mark.__struct_fields__ if getattr(found, name) != getattr(self._mark, name))
            raise DataError(
                f"{self._folder / MARK}: {name} is {getattr(found, name)}, the settings say {getattr(self._mark, name)}: "
                "capture into another folder, or correct the settings"
            )
        for half in self._folder.glob(f"*/*/{HALF}*"):
            shutil.rmtree(half)

    def _partition(self, kind: str, topic: str, partition: int, span: Span, done: Captured) -> None:
        before = ranges(self._folder, kind, partition)
        if before and (forget := before[-1].content().forget):  # killed before it was done: no range was made since
            done.forgotten += self._erase(kind, partition, before[-1], forget)
        at = before[-1].next if before else span.start
        if at > span.end:
            raise LossError(
                f"{topic}/{partition} ends at offset {span.end}, but {self._folder} has it up to {at}: the topic was deleted and "
                "made again, or cut; capture into another folder"
            )
        if at < span.end:
            self._require_same(topic, partition, before, span)
        missing = max(0, span.start - at)
        if missing and not self._accept_loss:
            raise LossError(
                f"{topic}/{partition} begins at offset {span.start}, but {self._folder} has it up to {at} only: {missing} "
                "offsets were deleted before they were captured; --accept-loss goes on without them"
            )
        at += missing
        while at < span.end:
            end = min(at + self._most, span.end)
            rows = self._rows(kind, topic, partition, Span(at, end))
            one = self._write(
                kind, partition, Range(range_path(self._folder, kind, partition, at, end), at, end), rows, missing
            )
            done.ranges += 1
            done.missing += missing
            done.records[kind] += sum(map(len, rows.days.values()))
            done.refused.update(row["reason"] for row in rows.refused)
            if rows.forget:
                done.forgotten += self._erase(kind, partition, one, rows.forget)
            at, missing = end, 0

    def _require_same(self, topic: str, partition: int, before: list[Range], span: Span) -> None:
        """Check by the newest record of the folder that the topic is the one it was captured from. Raises LossError."""
        for one in reversed(before):
            paths = [*one.files(), *(path for path in [one.path / REFUSED] if path.exists())]
            if not paths:
                continue  # only control records
            offset, appended = max(table(path).select("offset", "appended").row(-1) for path in paths)
            if offset < span.start:
                return  # it is deleted
            for record in self._log.records(topic, {(topic, partition): Span(offset, offset + 1)}):
                if record.timestamp != appended:
                    there, ours = (date(_possible(time)) for time in (record.timestamp, appended))
                    raise LossError(
                        f"{topic}/{partition}: the record at offset {offset} was appended at {there}, but {self._folder} has one "
                        f"of {ours} there: the topic was deleted and made again, or the brokers are of another cluster; capture "
                        "into another folder"
                    )
            return

    def _rows(self, kind: str, topic: str, partition: int, span: Span) -> Rows:
        rows = Rows()
        read = self._read_item if kind == ITEMS else self._event_reader(SOURCE_TOPICS.index(kind))
        for record in self._log.records(topic, {(topic, partition): span}):
            try:
                read(record, rows)
            except RecordError as error:
                rows.refuse(record, error)
        return rows

    def _event_reader(self, behaviour: int) -> Callable[[Record, Rows], None]:
        def read(record: Record, rows: Rows) -> None:
            event = self._decoder.decode(
                behaviour, record.partition, record.offset, record.timestamp, record.key, record.value, record.headers
            )
            user = user_of(event.user, self._settings.key) or ""
            if event.forget:
                rows.forget[user] = record.offset
                return
            extra = self._extra_of(record.value)
            rows.add(
                event.time,
                {
                    "user": user,
                    "item": event.item,
                    "time": event.time,
                    "value": None if event.value != event.value else event.value,
                    "text": event.text or None,
                    "scene": event.scene or None,
                    "action": event.action or None if behaviour == CLICK else None,
                    "id": event.id or None,
                    "slate": extra.slate,
                    "rank": None if extra.rank is None else int(extra.rank),
                    "dwell_ms": None if extra.dwell_ms is None else int(extra.dwell_ms),
                    **_position(record),
                },
            )

        return read

    def _extra_of(self, value: bytes | None) -> Extra:
        body = text_of(value)
        if self._settings.envelope != NONE:
            body, _ = unwrap(body, self._settings.envelope)
        return self._extra.decode(body)

    def _read_item(self, record: Record, rows: Rows) -> None:
        if record.key is None:
            raise RecordError("key", "null_key", "item", "the key is null; expected the item's id as UTF-8")
        if not record.value:
            item, message = record.key.decode("utf-8", "replace"), None
        else:
            found = self._item.read(text_of(record.value))
            if found.item.encode() != record.key:
                raise RecordError(
                    "key", "key_mismatch", "item", f"found the key {record.key!r:.80}, expected {found.item!r}"
                )
            item, message = found.item, _json(found).decode()
        rows.add(record.timestamp, {"item": item, "message": message, **_position(record)})

    def _write(self, kind: str, partition: int, made: Range, rows: Rows, missing: int) -> Range:
        """Write a range: all of it in a hidden folder, which then gets its name."""
        half = made.path.with_name(HALF + made.path.name)
        half.mkdir(parents=True)
        schema = CHANGES if kind == ITEMS else EVENTS
        content = Content(missing=missing, forget=rows.forget)
        about = {
            "topic": self._mark.topics[kind],
            "partition": str(partition),
            "first": str(made.first),
            "next": str(made.next),
        }
        for day, listed in sorted(rows.days.items()):
            kept = [row for row in listed if row["offset"] >= rows.forget.get(row.get("user", ""), -1)]
            if kept:
                _write_table(half / f"{DAY}{day}.parquet", pl.DataFrame(kept, schema), about)
                content.days[day] = len(kept)
        forget = {key_of(user, self._settings.key): offset for user, offset in rows.forget.items()}
        if refused := [row for row in rows.refused if row["offset"] >= forget.get(row["key"], -1)]:
            _write_table(half / REFUSED, pl.DataFrame(refused, REFUSALS), about)
        content.refused = dict(Counter(row["reason"] for row in refused))
        _write(half / RANGE, _json(content))
        sync(half)
        half.rename(made.path)
        sync(made.path.parent)
        return made

    def _erase(self, kind: str, partition: int, asked: Range, forget: dict[str, int]) -> int:
        """Erase the earlier events of users who asked in range `asked`. Return how many."""
        erased = 0
        for one in ranges(self._folder, kind, partition):
            if one.first > max(forget.values()):
                break
            for path in one.files():
                erased += _without(path, pl.col("user").is_in(list(forget)), forget)
            if (path := one.path / REFUSED).exists():
                keys = {key_of(user, self._settings.key): offset for user, offset in forget.items()}
                erased += _without(path, pl.col("key").is_in(list(keys)), keys)
            content = one.content()
            days = {path.stem.removeprefix(DAY): table(path).height for path in one.files()}
            if content.days != days:
                content.days = days
                _write(one.path / RANGE, _json(content))
        content = asked.content()
        content.forget = {}
        _write(asked.path / RANGE, _json(content))
        return erased


def _without(path: Path, theirs: pl.Expr, forget: dict[Any, int]) -> int:
    """Rewrite a file without the rows before their users' control records. Return how many rows went."""
    rows = table(path)
    column = "key" if path.name == REFUSED else "user"
    limit = pl.DataFrame(
        {column: list(forget), "limit": list(forget.values())}, {column: rows.schema[column], "limit": pl.Int64}
    )
    if not rows.select(theirs.any()).item():
        return 0
    kept = rows.join(limit, on=column, how="left").filter(
        pl.col("limit").is_null() | (pl.col("offset") > pl.col("limit"))
    )
    if kept.height == rows.height:
        return 0
    if kept.height:
        _write_table(path, kept.drop("limit"), pl.read_parquet_metadata(path))
    else:
        path.unlink()
        sync(path.parent)
    return rows.height - kept.height


def _possible(time: int) -> int:
    """Return the nearest epoch ms that is a date."""
    return min(max(time, 0), MAX_TIME)


def _position(record: Record) -> dict[str, int]:
    return {"partition": record.partition, "offset": record.offset, "appended": record.timestamp}


def _write_table(path: Path, rows: pl.DataFrame, about: dict[str, str]) -> None:
    half = path.with_name(HALF + path.name)
    own = {name: about[name] for name in ("topic", "partition", "first", "next")}
    rows.write_parquet(half, compression="zstd", metadata=own)
    _into_place(half, path)


def _write(path: Path, content: bytes) -> None:
    half = path.with_name(HALF + path.name)
    half.write_bytes(content)
    _into_place(half, path)


def _into_place(half: Path, path: Path) -> None:
    sync(half)
    half.replace(path)
    sync(path.parent)


def _json(value: Any) -> bytes:
    return msgspec.json.encode(value, order="deterministic")


@contextmanager
def _disk(folder: Path) -> Iterator[None]:
    try:
        yield
    except (OSError, pl.exceptions.PolarsError) as error:
        raise DiskError(f"{folder} cannot be written: {str(error)[:200]}") from None


def report(done: Captured) -> str:
    """Return one JSON object for people and programs."""
    return json.dumps(
        {
            "records": dict(sorted(done.records.items())),
            "refused": dict(sorted(done.refused.items())),
            "missing": done.missing,
            "forgotten": done.forgotten,
            "ranges": done.ranges,
        }
    )
