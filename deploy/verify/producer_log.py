"""Checks the producer log, which notes every send, against what the source topics hold.

The producer log has one JSON object per line: {"id": chosen by the sender, "topic", "partition"?, "offset"?, "key": the user,
"sha256": of the value, in hex, "status": "acked" | "failed" | "indeterminate"}. An acked send must lie where the broker placed
it; if the line does not say where, it may lie anywhere in its partition. The other sends are looked up by the record header
`send-id`, or else by key and sha256.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from hashlib import blake2b
from pathlib import Path
from typing import Any, NamedTuple

from deploy.clients.log_reader import Record
from deploy.clients.murmur2 import murmur2
from deploy.clients.schema import parse
from deploy.verify.keys import TEXT, Keys
from deploy.verify.report import Report, Violation
from deploy.verify.source_index import SourceIndex
from deploy.verify.source_partition import ABSENT
from stream.core.errors import DataError

SEND_ID = "send-id"
STATUSES = ACKED, FAILED, INDETERMINATE = "acked", "failed", "indeterminate"
LAST_OFFSET = 2**63 - 1
_PARTITION = re.compile(rb'"partition"\s*:\s*(\d+)')
_SHA256 = re.compile(r"[0-9a-fA-F]{64}")


class Send(NamedTuple):
    """One line of the producer log.

    Attributes:
        id: Chosen by the sender.
        topic: A source topic.
        partition, offset: Where the record lies; -1 if the line does not say it.
        key: The record's key; None for a record without one.
        sha256: 32 bytes, of the value.
        status: One of STATUSES.
    """

    id: str
    topic: str
    partition: int
    offset: int
    key: bytes | None
    sha256: bytes
    status: str

    @property
    def placed(self) -> bool:
        return self.status == ACKED and self.offset >= 0


class ProducerLog:
    """The part of the file that belongs to one partition. Lines with an offset are read again for the check, never stored."""

    def __init__(self, file: Path, topics: tuple[str, ...], partition: int, partitions: int, keys: Keys = TEXT) -> None:
        self._file = file
        self._form = Form(file, topics, partitions, keys)
        self._keys = keys
        self._partition = partition
        self._partitions = partitions
        self._wanted: dict[bytes, list[tuple[str, int]]] = {}  # digest -> (topic, offset) where it was found
        self._wanted_ids: dict[str, list[tuple[str, int]]] = {}
        for send in self._lines():
            if not send.placed:
                self._wanted[_digest(send.topic, send.key, send.sha256)] = []
                self._wanted_ids[send.id] = []

    def see(self, topic: str, record: Record, hashed: bytes) -> None:
        """Note a source record if a send without an offset may be it. hashed: The sha256 of its value."""
        if not self._wanted:
            return
        found = self._wanted.get(_digest(topic, record.key, hashed))
        if found is not None:
            found.append((topic, record.offset))
        for name, value in record.headers:
            if (
                name == SEND_ID
                and (found := self._wanted_ids.get((value or b"").decode("utf-8", "replace"))) is not None
            ):
                found.append((topic, record.offset))

    def acked(self, topic: str, start: int, end: int) -> int:
        """Return how many offsets from `start` to `end` (exclusive) hold an acknowledged send: they were records."""
        return len(
            {one.offset for one in self._lines() if one.placed and one.topic == topic and start <= one.offset < end}
        )

    def check(self, source_index: SourceIndex, ends: dict[tuple[str, int], int], report: Report) -> None:
        """Count every send, and report those that were acked but are not there. ends: The current ends of the topics."""
        candidates = {one for found in self._wanted.values() for one in found}
        taken = set()
        for send in self._lines():
            if send.placed:
                report.acked += 1
                self._check(send, source_index, ends, report)
                if (send.topic, send.offset) in candidates:
                    taken.add((send.topic, send.offset))
        for send in self._lines():
            if send.placed:
                continue
            found = self._find(send, taken)
            if found:
                taken.add(found)
            if send.status == ACKED:
                report.acked += 1
                if not found:
                    narrowed = any(source.narrowed or source.first for source in source_index.sources)
                    if narrowed:
                        report.unverifiable += 1
                    else:
                        self._blame(send, "it was acked, but is nowhere in the topic", report)
            elif send.status == FAILED:
                report.failed += 1
                report.failed_found += found is not None
            else:
                report.indeterminate += 1
                report.indeterminate_found += found is not None

    def _check(self, send: Send, source_index: SourceIndex, ends: dict[tuple[str, int], int], report: Report) -> None:
        source = source_index.sources[source_index.topic_index(send.topic)]
        index = send.offset - source.start
        if send.offset >= ends[send.topic, self._partition]:
            self._blame(send, "it was acked at an offset beyond the log's end", report)
        elif send.offset < source.first:
            report.unverifiable += 1
        elif not 0 <= index < len(source.state):
            return  # it came while the check ran, or lies before what is read
        elif source.state[index] == ABSENT:
            self._blame(send, "it was acked, but there is no record at this offset", report)
        elif source.sent[8 * index : 8 * index + 8] != send.sha256[:8]:
            self._blame(send, "it was acked, but the record at this offset has another value", report)

    def _find(self, send: Send, taken: set[tuple[str, int]]) -> tuple[str, int] | None:
        found = self._wanted_ids.get(send.id) or self._wanted[_digest(send.topic, send.key, send.sha256)]
        return next((one for one in found if one not in taken), None)

    def _blame(self, send: Send, message: str, report: Report) -> None:
        user = self._keys.name(send.key)
        message = f"{message} (send {send.id[:100]})"
        report.add(Violation("ledger", message, user, -1, send.topic, self._partition, send.offset))

    def _lines(self) -> Iterator[Send]:
        """Yield this partition's sends. Most others are skipped by a look at their bytes, which is much cheaper."""
        mine = b"%d" % self._partition
        for number, line in _read(self._file):
            named = _PARTITION.findall(line)
            if named and mine not in named and b"\\u" not in line:  # a field's name can be spelt with escapes
                continue
            send = self._form.send(number, line)
            partition = send.partition
            if partition < 0:
                partition = murmur2(send.key) % self._partitions if send.key is not None else 0
            if partition == self._partition:
                yield send


def refuse_unreadable(file: Path, topics: tuple[str, ...], partitions: int, keys: Keys = TEXT) -> None:
    """Check every line once. A line with an unknown topic or partition would otherwise belong to no partition and be ignored.

    Raises DataError with the line number, the field, what was found and what was expected.
    """
    form = Form(file, topics, partitions, keys)
    for number, line in _read(file):
        form.send(number, line)


def _read(file: Path) -> Iterator[tuple[int, bytes]]:
    """Yield (number, line) of every line that is not empty."""
    try:
        with file.open("rb") as lines:
            for number, line in enumerate(lines, start=1):
                if line.strip():
                    yield number, line
    except OSError as error:
        raise DataError(f"{file} cannot be read: {error}") from None


class Form:
    """Checks and reads the lines of the file, field by field. keys: The form of the users' keys."""

    def __init__(self, file: Path, topics: tuple[str, ...], partitions: int, keys: Keys = TEXT) -> None:
        self._keys = keys
        self._file = file
        self._topics = topics
        self._partitions = partitions

    def send(self, number: int, line: bytes) -> Send:
        """Read one line. Raises DataError if it is malformed."""

        def field(name: str, fits: Callable[[Any], bool], expected: str) -> Any:
            value = fields.get(name)
            if not fits(value):
                raise self._refused(number, name, value, expected)
            return value

        try:
            fields = parse(line)
        except ValueError:
            fields = None
        if not isinstance(fields, dict):
            raise self._refused(number, "", line.decode("utf-8", "replace").strip(), "one JSON object")
        name = field("id", lambda v: type(v) in (str, int), "text or a whole number")
        topic = field("topic", lambda v: v in self._topics, f"one of {', '.join(self._topics)}")
        partition = field("partition", _up_to(self._partitions - 1), f"0 to {self._partitions - 1}, or none")
        offset = field("offset", _up_to(LAST_OFFSET), f"0 to {LAST_OFFSET}, or none")
        if partition is None and offset is not None:
            raise self._refused(number, "offset", offset, "no offset, since there is no partition")
        user = field("key", self._has_key, LONG_KEY if self._keys.form == "long" else "text, or none")
        hashed = field("sha256", lambda v: type(v) is str and bool(_SHA256.fullmatch(v)), "64 hex digits")
        status = field("status", lambda v: v in STATUSES, f"one of {', '.join(STATUSES)}")
        return Send(
            str(name), topic, NOWHERE if partition is None else partition, NOWHERE if offset is None else offset,
            None if user is None else self._keys.of(user), bytes.fromhex(hashed), status,
        )  # fmt: skip

    def _has_key(self, user: object) -> bool:
        return user is None or (isinstance(user, str) and self._keys.of(user) is not None)

    def _refused(self, number: int, field: str, found: object, expected: str) -> DataError:
        named = f", {field}" if field else ""
        return DataError(
            f"{self._file}, line {number}{named}: found {_shown(found)}, expected {expected}; correct the line, or check that "
            "the producer log belongs to this deployment"
        )


def _up_to(last: int) -> Callable[[Any], bool]:
    return lambda value: value is None or (type(value) is int and 0 <= value <= last)


def _shown(value: object) -> str:
    """Return a line's value, short enough for a message."""
    if value is None:
        return "nothing"
    if isinstance(value, float | int) and abs(value) >= 10**24:
        return "a number of more than 24 digits"
    return repr(value)[:80]


NOWHERE = -1
LONG_KEY = "a whole number of 64 bits as text, or none"


def _digest(topic: str, key: bytes | None, hashed: bytes) -> bytes:
    return blake2b(b"%b\0%b\0%b" % (topic.encode(), key or b"", hashed), digest_size=16).digest()
