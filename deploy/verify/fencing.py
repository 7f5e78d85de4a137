"""Whose state records count: writers claim a changelog partition, and what an outdated one still writes is fenced.

A claim is a record with the key CLAIM and the value {"epoch": n, "worker": 32 hex digits, ...}, its header `writer` says n
too; it holds if n is above all before it, by STEP at most. A state record names its writer's epoch in the header `writer`, 0
without. It is fenced if a higher epoch came before it in the log, and forged if its own is beyond what a claim may say: it is no
part of the state. Where no claim is in sight yet, the first state's epoch stands for one: compaction keeps the last claim only.
The log's own order decides, and no clock.
"""

from __future__ import annotations

import re
from typing import Any, NamedTuple

from deploy.clients.log_reader import Record
from deploy.clients.schema import parse
from deploy.verify.keys import TEXT, Keys
from stream.core.errors import TopologyError

CLAIM = b"\xffwriter"
HEADER = "writer"
STEP = 10**6
FIRST = 10**12  # where no epoch is known yet
EARLIER = "utf8"  # the form of keys where a claim names none: versions before the setting
LARGEST = 64 << 10  # bytes of a claim
FENCED, UNCLAIMED, FORGED, NOBODYS = "fenced", "unclaimed", "forged", "of nobody"

_WORKER = re.compile(r"[0-9a-f]{32}")


class Wrong(NamedTuple):
    """What is wrong with a claim. kind: of the violation."""

    kind: str
    message: str


class Fencing:
    """One changelog partition, read in order. keys: of the users."""

    def __init__(self, keys: Keys = TEXT) -> None:
        self._keys = keys
        self.current = 0
        self.epochs: set[int] = set()  # of the claims that held

    def claim(self, record: Record) -> Wrong | None:
        """Take in a claim -> what is wrong with it, None where nothing is: also of one that comes too late to hold.

        Raises TopologyError where one that holds says another form of the users' keys: the settings are not the workers'.
        """
        said = epoch(record)
        value = _parsed(record.value or b"")
        if value is None:
            return Wrong("claim", "a claim that is not JSON of the form {epoch, worker, time, topics, partitions, key}")
        claimed, worker = value["epoch"], value["worker"]
        if said != claimed:
            return Wrong("forged-claim", f"epoch {_short(claimed)}, its header says {said}")
        if not _WORKER.fullmatch(worker):
            return Wrong("forged-claim", f"worker {worker[:40]!r}, expected 32 hex digits")
        if claimed > self._limit():
            return Wrong(
                "forged-claim", f"epoch {_short(claimed)} where {self.current} is in force: no takeover goes so far"
            )
        if claimed > self.current:
            self._same_form(record, value.get("key", EARLIER))
            self.current = claimed
            self.epochs.add(claimed)
        return None

    def _same_form(self, record: Record, form: str) -> None:
        if form not in ("", self._keys.form):
            raise TopologyError(
                f'key: found "{self._keys.form}", expected "{form[:40]}", in which partition {record.partition} of the changelog '
                f"has its users' keys, says the claim at offset {record.offset}: set FRESHET_KEY={form[:40]}, as for the workers"
            )

    def check(self, record: Record) -> str:
        """A state record: NOBODYS, under a key that no user has, whose epoch proves nothing; FENCED, where its epoch is over;
        FORGED, where it is beyond any; UNCLAIMED, where nobody in sight has claimed it; else ""."""
        if self._keys.user(record.key) is None:
            return NOBODYS
        mine = epoch(record) or 0
        if mine < self.current:
            return FENCED
        if mine > self._limit():
            return FORGED
        if mine > self.current:  # proves a claim, perhaps one that compaction took away
            self.current = self.current or mine
            return UNCLAIMED
        return ""

    def _limit(self) -> int:
        return self.current + STEP if self.current else FIRST


def _parsed(raw: bytes) -> dict[str, Any] | None:
    """A claim's fields, an epoch above 0 among them; None where it has another form. Its time may be spelt 5.0, as an event's."""
    try:
        value = parse(raw) if len(raw) <= LARGEST else None
    except (ValueError, RecursionError):
        return None
    if not isinstance(value, dict):
        return None
    when = value.get("time")
    if type(when) is float and when.is_integer() and abs(when) < 2**63:
        value["time"] = int(when)
    numbers = [value.get("epoch"), value.get("time"), value.get("partitions", 0)]
    topics = value.get("topics", {})
    formed = (
        all(type(number) is int for number in numbers)
        and value["epoch"] > 0
        and type(value.get("worker")) is str
        and type(topics) is dict
        and all(type(text) is str for text in topics.values())
        and type(value.get("key", EARLIER)) is str
    )
    return value if formed else None


def _short(number: int) -> str:
    """A number of any length, as text that can be read; Python refuses to write out thousands of digits."""
    return str(number) if number < 10**24 else f"of {number.bit_length()} bits"


def epoch(record: Record) -> int | None:
    """The epoch in the first such header of a record; None without, and where it is not a decimal."""
    for name, value in record.headers or ():
        if name == HEADER:
            text = (value or b"").decode("ascii", "replace")
            return int(text) if text.isdecimal() and len(text) < 19 else None
    return None
