"""The producer's ledger: what a sender says that it sent, against what the source topics hold.

One JSON object a line: {"id": the sender's own, "topic", "partition"?, "offset"?, "key", "sha256": of the value, hex,
"status": "acked" | "failed" | "indeterminate"}. An acked send must lie where the broker said, or, where the line does not
say where, anywhere in its partition. The others are looked for: by the record header `send-id`, else by key and sha256.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from hashlib import blake2b
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from deploy.verify.judge import murmur2
from deploy.verify.log import Record
from deploy.verify.report import Report, Violation
from stream.errors import DataError

if TYPE_CHECKING:
    from deploy.verify.ledger import Ledger

SEND_ID = "send-id"
ACKED, FAILED, INDETERMINATE = "acked", "failed", "indeterminate"
_PARTITION = re.compile(rb'"partition"\s*:\s*(\d+)')


class Send(NamedTuple):
    """One line of the ledger. partition, offset: -1 where it does not say; sha256: 32 bytes."""

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


class Sends:
    """One partition's part of a ledger file. Lines with a place are read again when they are judged, never kept."""

    def __init__(self, file: Path, topics: tuple[str, ...], partition: int, partitions: int) -> None:
        self._file = file
        self._topics = topics
        self._partition = partition
        self._partitions = partitions
        self._wanted: dict[bytes, list[tuple[str, int]]] = {}  # digest -> places where it was seen
        self._wanted_ids: dict[str, list[tuple[str, int]]] = {}
        for send in self._lines():
            if not send.placed:
                self._wanted[_digest(send.topic, send.key, send.sha256)] = []
                self._wanted_ids[send.id] = []

    def see(self, topic: str, record: Record, hashed: bytes) -> None:
        """A source record passes by. hashed: sha256 of its value."""
        if not self._wanted:
            return
        found = self._wanted.get(_digest(topic, record.key, hashed))
        if found is not None:
            found.append((topic, record.offset))
        for name, value in record.headers:
            if (
                name == SEND_ID
                and (places := self._wanted_ids.get((value or b"").decode("utf-8", "replace"))) is not None
            ):
                places.append((topic, record.offset))

    def acked(self, topic: str, start: int, end: int) -> int:
        """How many offsets from `start` to before `end` hold an acknowledged send: they were records."""
        return len(
            {one.offset for one in self._lines() if one.placed and one.topic == topic and start <= one.offset < end}
        )

    def judge(self, ledger: Ledger, ends: dict[tuple[str, int], int], report: Report) -> None:
        """Count every send, blame what was acked and is not there. ends: the topics' ends as of now."""
        candidates = {place for places in self._wanted.values() for place in places}
        taken = set()
        for send in self._lines():
            if send.placed:
                report.acked += 1
                self._check(send, ledger, ends, report)
                if (send.topic, send.offset) in candidates:
                    taken.add((send.topic, send.offset))
        for send in self._lines():
            if send.placed:
                continue
            place = self._find(send, taken)
            if place:
                taken.add(place)
            if send.status == ACKED:
                report.acked += 1
                if not place:
                    narrowed = any(shelf.narrowed or shelf.first for shelf in ledger.shelves)
                    if narrowed:
                        report.unverifiable += 1
                    else:
                        self._blame(send, "acked, but it is nowhere in the topic", report)
            elif send.status == FAILED:
                report.failed += 1
                report.failed_found += place is not None
            else:
                report.indeterminate += 1
                report.indeterminate_found += place is not None

    def _check(self, send: Send, ledger: Ledger, ends: dict[tuple[str, int], int], report: Report) -> None:
        shelf = ledger.shelves[ledger.topic_index(send.topic)]
        index = send.offset - shelf.start
        if send.offset >= ends[send.topic, self._partition]:
            self._blame(send, "acked at an offset beyond the log's end", report)
        elif send.offset < shelf.first:
            report.unverifiable += 1
        elif not 0 <= index < len(shelf.state):
            return  # came while the check ran, or lies before what it looks at
        elif shelf.state[index] == 0:
            self._blame(send, "acked, but there is no such record", report)
        elif shelf.sent[8 * index : 8 * index + 8] != send.sha256[:8]:
            self._blame(send, "acked, but the record there has another value", report)

    def _find(self, send: Send, taken: set[tuple[str, int]]) -> tuple[str, int] | None:
        places = self._wanted_ids.get(send.id) or self._wanted[_digest(send.topic, send.key, send.sha256)]
        return next((place for place in places if place not in taken), None)

    def _blame(self, send: Send, message: str, report: Report) -> None:
        user = (send.key or b"").decode(errors="replace")
        message = f"{message} (send {send.id[:100]})"
        report.add(Violation("ledger", message, user, -1, send.topic, self._partition, send.offset))

    def _lines(self) -> Iterator[Send]:
        """This partition's sends to the source topics."""
        try:
            with self._file.open("rb") as lines:
                for number, line in enumerate(lines, start=1):
                    named = _PARTITION.search(line)
                    if (named and int(named[1]) != self._partition) or not line.strip():
                        continue
                    send = self._line(number, line)
                    if send.topic not in self._topics:
                        continue
                    partition = send.partition
                    if partition < 0:
                        partition = murmur2(send.key) % self._partitions if send.key is not None else 0
                    if partition == self._partition:
                        yield send
        except OSError as error:
            raise DataError(f"{self._file} cannot be read: {error}") from None

    def _line(self, number: int, line: bytes) -> Send:
        try:
            said = json.loads(line)
            if said["status"] not in (ACKED, FAILED, INDETERMINATE):
                raise ValueError
            key = said.get("key")
            partition, offset = (NOWHERE if said.get(n) is None else int(said[n]) for n in ("partition", "offset"))
            return Send(
                str(said["id"]), str(said["topic"]), partition, offset if partition >= 0 else NOWHERE,
                None if key is None else str(key).encode(), bytes.fromhex(said["sha256"]), said["status"],
            )  # fmt: skip
        except (ValueError, KeyError, TypeError, AttributeError, OverflowError, RecursionError):
            raise DataError(
                f"{self._file}, line {number}: expected {{id, topic, partition?, offset?, key, sha256, status}}, status one of "
                f"{ACKED}, {FAILED}, {INDETERMINATE}"
            ) from None


NOWHERE = -1


def _digest(topic: str, key: bytes | None, hashed: bytes) -> bytes:
    return blake2b(b"%b\0%b\0%b" % (topic.encode(), key or b"", hashed), digest_size=16).digest()
