"""Reading dead letters: all of a choice, one by its place, in bounded memory however many there are."""

from __future__ import annotations

import re
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from deploy.clients.dead_letter_headers import HEADER, headers
from deploy.clients.log_reader import KafkaLog, Log, Place, Span
from deploy.clients.log_reader import Record as LogRecord
from deploy.clients.producer import Sent
from stream.core import times
from stream.core.errors import DataError
from stream.core.origin import origin
from stream.settings import Settings

FIELDS = ("topic", "partition", "offset", "stage", "reason", "field", "message", "failed.at", "truncated")
PREVIEW = 1000  # characters of a value in a list

_AGO = re.compile(r"(\d+(?:\.\d+)?)\s*([smhdw])", re.ASCII)
_UNITS = {"s": 1, "m": 60, "h": 3600, "d": 86_400, "w": 7 * 86_400}

Source = tuple[str, str, str]
"""(topic, partition, offset) of a source record, as its dead letter says it."""


@dataclass(frozen=True)
class Letter:
    """One dead letter. place: where it lies in the dead-letters topic; appended_ms: when the record that could not be taken was
    appended to its topic, epoch ms; said: its `__rec.errors.` headers, without that prefix; rest: its other headers,
    as they were received."""

    place: Sent
    appended_ms: int
    key: bytes | None
    value: bytes | None
    said: dict[str, str]
    rest: tuple[tuple[str, bytes | None], ...]

    @classmethod
    def of(cls, topic: str, record: LogRecord) -> Letter:
        named = {name.removeprefix(HEADER): text for name, text in headers(record).items()}
        return cls(
            Sent(topic, record.partition, record.offset),
            _appended(named.get("appended.at", ""), record.timestamp),
            record.key,
            record.value,
            dict.fromkeys(FIELDS, "") | named,
            tuple((name, value) for name, value in record.headers if not name.startswith(HEADER)),
        )

    @property
    def source(self) -> Source:
        """The record that could not be taken."""
        return self.said["topic"], self.said["partition"], self.said["offset"]

    @property
    def failed_ms(self) -> int:
        """When it was set aside, epoch ms; 0 where the letter does not say it."""
        return epoch_ms(self.said["failed.at"])

    def origin(self, settings: Settings) -> str:
        """The place of the first record that failed: this letter's source, unless that had been sent back already."""
        return origin(self.rest, settings.sources) or "/".join(self.source)

    def row(self) -> dict[str, Any]:
        """What a list shows of it, as JSON types; a long value is cut."""
        return {
            "letter": list(self.place),
            **{name: self.said[name] for name in FIELDS},
            "key": None if self.key is None else self.key.decode(errors="replace"),
            "value": None if self.value is None else self.value[: 4 * PREVIEW].decode(errors="replace")[:PREVIEW],
        }


def epoch_ms(text: str) -> int:
    """Epoch ms in a header; 0 for anything else."""
    return int(text) if text.isascii() and text.isdecimal() and len(text) < 16 else 0


def _appended(said: str, timestamp: int) -> int:
    """Not after the letter itself. A letter of an older version does not say it, and has the record's own timestamp."""
    return min(epoch_ms(said) or timestamp, timestamp)


@dataclass(frozen=True)
class Choice:
    """Which dead letters are meant; None leaves a part open. since, until: epoch ms of `failed.at`, the end not included."""

    topic: str | None = None
    partition: int | None = None
    offset: int | None = None
    stage: str | None = None
    reason: str | None = None
    since: int | None = None
    until: int | None = None

    @property
    def everything(self) -> bool:
        return self == Choice()

    def has(self, letter: Letter) -> bool:
        said = letter.said
        return (
            (self.topic is None or said["topic"] == self.topic)
            and (self.partition is None or said["partition"] == str(self.partition))
            and (self.offset is None or said["offset"] == str(self.offset))
            and (self.stage is None or said["stage"] == self.stage)
            and (self.reason is None or said["reason"] == self.reason)
            and (self.since is None or letter.failed_ms >= self.since)
            and (self.until is None or letter.failed_ms < self.until)
        )


class DeadLetterReader:
    """The dead letters that were there when it was opened. Raises BrokerError, TopologyError."""

    def __init__(self, settings: Settings, log: Log) -> None:
        self.log = log
        self._topic = settings.dead_letters_topic
        self._spans = log.spans([self._topic])

    def read(self, choice: Choice = Choice()) -> Iterator[Letter]:
        """Those that are meant, partition by partition, each in order; one at a time in memory."""
        for place, span in self._where(choice.partition).items():
            for record in self.log.records(self._topic, {place: span}):
                letter = Letter.of(self._topic, record)
                if choice.has(letter):
                    yield letter

    def find(self, place: tuple[str, int, int]) -> Letter:
        """The letter that lies at `place`, or the newest one whose source record did. Raises DataError where none is."""
        topic, partition, offset = place
        if topic == self._topic:
            span = self._spans.get((topic, partition))
            if span and span.start <= offset < span.end:
                for record in self.log.records(topic, {(topic, partition): Span(offset, offset + 1)}):
                    return Letter.of(topic, record)
        found = max(self.read(Choice(topic, partition, offset)), key=lambda letter: letter.failed_ms, default=None)
        if found is None:
            raise DataError(f"no dead letter lies at or came from {topic}/{partition}/{offset}")
        return found

    def _where(self, partition: int | None) -> dict[Place, Span]:
        """A letter lies on the partition number of its source record."""
        only = {place: span for place, span in self._spans.items() if place[1] == partition}
        return only or dict(sorted(self._spans.items()))


@contextmanager
def opened(settings: Settings) -> Iterator[DeadLetterReader]:
    """A reader with a consumer of its own."""
    log = KafkaLog(settings)
    try:
        yield DeadLetterReader(settings, log)
    finally:
        log.close()


def moment(text: str) -> int:
    """A point in time -> epoch ms: `2h` ago (s, m, h, d, w), or what `stream.core.times.moment` reads.

    Raises ValueError.
    """
    if found := _AGO.fullmatch(text):
        return int(1000 * (time.time() - float(found[1]) * _UNITS[found[2]]))
    return times.moment(text, "expected 2h (s, m, h, d, w) or 2026-01-31T12:00:00Z")


def iso(ms: int) -> str:
    """Epoch ms -> ISO 8601 in UTC, to the second; empty for 0 and for what no calendar has."""
    try:
        return datetime.fromtimestamp(ms / 1000, UTC).strftime("%Y-%m-%dT%H:%M:%SZ") if ms else ""
    except (ValueError, OverflowError, OSError):
        return ""
