"""Read dead letters: all of a choice, or one by its place, in bounded memory."""

from __future__ import annotations

import re
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from deploy.clients.dead_letter_headers import HEADER, headers
from deploy.clients.log_reader import KafkaLog, Log, Span, TopicPartition
from deploy.clients.log_reader import Record as LogRecord
from deploy.clients.producer import Sent
from stream.core import times
from stream.core.errors import DataError
from stream.core.origin import origin
from stream.settings import Settings

FIELDS = ("topic", "partition", "offset", "stage", "reason", "field", "message", "failed.at", "truncated")
PREVIEW = 1000  # characters of a value that a list shows

_AGO = re.compile(r"(\d+(?:\.\d+)?)\s*([smhdw])", re.ASCII)
_UNITS = {"s": 1, "m": 60, "h": 3600, "d": 86_400, "w": 7 * 86_400}

Source = tuple[str, str, str]
"""(topic, partition, offset) of a source record, as its dead letter states it."""


@dataclass(frozen=True)
class Letter:
    """One dead letter.

    Attributes:
        place: Its place in the dead-letters topic.
        appended_ms: When the refused record was appended to its topic, epoch ms.
        key: Key as received.
        value: Value as received.
        said: Its `__rec.errors.` headers, without that prefix.
        rest: Its other headers, as received.
    """

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
        """The record that was not accepted."""
        return self.said["topic"], self.said["partition"], self.said["offset"]

    @property
    def failed_ms(self) -> int:
        """When it was set aside, epoch ms; 0 if the letter does not state it."""
        return epoch_ms(self.said["failed.at"])

    def origin(self, settings: Settings) -> str:
        """Return the place of the first record that failed: this letter's source, unless that was itself sent back."""
        return origin(self.rest, settings.sources) or "/".join(self.source)

    def row(self) -> dict[str, Any]:
        """Return what a list shows of it, as JSON types. A long value is cut."""
        return {
            "letter": list(self.place),
            **{name: self.said[name] for name in FIELDS},
            "key": None if self.key is None else self.key.decode(errors="replace"),
            "value": None if self.value is None else self.value[: 4 * PREVIEW].decode(errors="replace")[:PREVIEW],
        }


def epoch_ms(text: str) -> int:
    """Return the epoch ms of a header, or 0 for anything else."""
    return int(text) if text.isascii() and text.isdecimal() and len(text) < 16 else 0


def _appended(said: str, timestamp: int) -> int:
    """Return when the record was appended, epoch ms: never later than the letter itself.

    Letters of older versions do not state it, but have the timestamp of the record.
    """
    return min(epoch_ms(said) or timestamp, timestamp)


@dataclass(frozen=True)
class Choice:
    """Which dead letters are chosen. None matches anything.

    since, until: range of `failed.at` in epoch ms, without the end.
    """

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
    """Reads the dead letters that existed when it was opened. Raises BrokerError, TopologyError."""

    def __init__(self, settings: Settings, log: Log) -> None:
        self.log = log
        self._topic = settings.dead_letters_topic
        self._spans = log.spans([self._topic])

    def read(self, choice: Choice = Choice()) -> Iterator[Letter]:
        """Yield the chosen letters, partition by partition, each in order. Memory holds one letter at a time."""
        for place, span in self._where(choice.partition).items():
            for record in self.log.records(self._topic, {place: span}):
                letter = Letter.of(self._topic, record)
                if choice.has(letter):
                    yield letter

    def find(self, place: tuple[str, int, int]) -> Letter:
        """Return the letter at `place`, or else the newest one whose source record was there.

        Raises DataError if there is none.
        """
        topic, partition, offset = place
        if topic == self._topic:
            span = self._spans.get((topic, partition))
            if span and span.start <= offset < span.end:
                for record in self.log.records(topic, {(topic, partition): Span(offset, offset + 1)}):
                    return Letter.of(topic, record)
        found = max(self.read(Choice(topic, partition, offset)), key=lambda letter: letter.failed_ms, default=None)
        if found is None:
            raise DataError(f"no dead letter is at {topic}/{partition}/{offset} or came from there")
        return found

    def _where(self, partition: int | None) -> dict[TopicPartition, Span]:
        """Return the spans to read. A letter is on the partition with the number of its source record's partition."""
        only = {place: span for place, span in self._spans.items() if place[1] == partition}
        return only or dict(sorted(self._spans.items()))


@contextmanager
def opened(settings: Settings) -> Iterator[DeadLetterReader]:
    """Open a reader with its own consumer, and close it afterwards."""
    log = KafkaLog(settings)
    try:
        yield DeadLetterReader(settings, log)
    finally:
        log.close()


def moment(text: str) -> int:
    """Parse a point in time -> epoch ms: `2h` ago (s, m, h, d, w), or a form that `stream.core.times.moment` reads.

    Raises ValueError.
    """
    if found := _AGO.fullmatch(text):
        return int(1000 * (time.time() - float(found[1]) * _UNITS[found[2]]))
    return times.moment(text, "expected 2h (s, m, h, d, w) or 2026-01-31T12:00:00Z")


def iso(ms: int) -> str:
    """Format epoch ms as ISO 8601 in UTC, to the second; "" for 0 and for times outside the calendar."""
    try:
        return datetime.fromtimestamp(ms / 1000, UTC).strftime("%Y-%m-%dT%H:%M:%SZ") if ms else ""
    except (ValueError, OverflowError, OSError):
        return ""
