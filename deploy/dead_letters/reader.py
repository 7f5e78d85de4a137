"""Read dead letters: all of a choice, or one by its position, in bounded memory."""

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
class DeadLetter:
    """One dead letter.

    Attributes:
        position: Where it is in the dead-letters topic.
        appended_ms: When the refused record was appended to its topic, epoch ms.
        key: Key as received.
        value: Value as received.
        fields: Its `__rec.errors.` headers, without that prefix.
        headers: Its other headers, as received.
    """

    position: Sent
    appended_ms: int
    key: bytes | None
    value: bytes | None
    fields: dict[str, str]
    headers: tuple[tuple[str, bytes | None], ...]

    @classmethod
    def of(cls, topic: str, record: LogRecord) -> DeadLetter:
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
        return self.fields["topic"], self.fields["partition"], self.fields["offset"]

    @property
    def failed_ms(self) -> int:
        """When it was set aside, epoch ms; 0 if it does not state it."""
        return epoch_ms(self.fields["failed.at"])

    def origin(self, settings: Settings) -> str:
        """Return the position of the first record that failed: the source, unless that was itself sent back."""
        return origin(self.headers, settings.sources) or "/".join(self.source)

    def row(self) -> dict[str, Any]:
        """Return what a list shows of it, as JSON types. A long value is cut."""
        return {
            "letter": list(self.position),
            **{name: self.fields[name] for name in FIELDS},
            "key": None if self.key is None else self.key.decode(errors="replace"),
            "value": None if self.value is None else self.value[: 4 * PREVIEW].decode(errors="replace")[:PREVIEW],
        }


def epoch_ms(text: str) -> int:
    """Return the epoch ms of a header, or 0 for anything else."""
    return int(text) if text.isascii() and text.isdecimal() and len(text) < 16 else 0


def _appended(text: str, timestamp: int) -> int:
    """Return when the record was appended, epoch ms: never later than the dead letter itself.

    Dead letters of older versions do not state it, but have the timestamp of the record.
    """
    return min(epoch_ms(text) or timestamp, timestamp)


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

    def has(self, dead_letter: DeadLetter) -> bool:
        fields = dead_letter.fields
        return (
            (self.topic is None or fields["topic"] == self.topic)
            and (self.partition is None or fields["partition"] == str(self.partition))
            and (self.offset is None or fields["offset"] == str(self.offset))
            and (self.stage is None or fields["stage"] == self.stage)
            and (self.reason is None or fields["reason"] == self.reason)
            and (self.since is None or dead_letter.failed_ms >= self.since)
            and (self.until is None or dead_letter.failed_ms < self.until)
        )


class DeadLetterReader:
    """Reads the dead letters that existed when it was opened. Raises BrokerError, TopologyError."""

    def __init__(self, settings: Settings, log: Log) -> None:
        self.log = log
        self._topic = settings.dead_letters_topic
        self._spans = log.spans([self._topic])

    def read(self, choice: Choice = Choice()) -> Iterator[DeadLetter]:
        """Yield the chosen dead letters, partition by partition, each in order. Memory holds one at a time."""
        for tp, span in self._where(choice.partition).items():
            for record in self.log.records(self._topic, {tp: span}):
                dead_letter = DeadLetter.of(self._topic, record)
                if choice.has(dead_letter):
                    yield dead_letter

    def find(self, position: tuple[str, int, int]) -> DeadLetter:
        """Return the dead letter at `position`, or else the newest one whose source record was there.

        Raises DataError if there is none.
        """
        topic, partition, offset = position
        if topic == self._topic:
            span = self._spans.get((topic, partition))
            if span and span.start <= offset < span.end:
                for record in self.log.records(topic, {(topic, partition): Span(offset, offset + 1)}):
                    return DeadLetter.of(topic, record)
        found = max(
            self.read(Choice(topic, partition, offset)), key=lambda dead_letter: dead_letter.failed_ms, default=None
        )
        if found is None:
            raise DataError(f"no dead letter is at {topic}/{partition}/{offset} or came from there")
        return found

    def _where(self, partition: int | None) -> dict[TopicPartition, Span]:
        """Return the spans to read. A dead letter is on the partition with the number of its source record's partition."""
        only = {tp: span for tp, span in self._spans.items() if tp[1] == partition}
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
