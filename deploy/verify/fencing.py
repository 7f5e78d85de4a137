"""Decides whose state records count. Writers claim a changelog partition, and what an outdated writer still writes is fenced.

A claim is a record with the key CLAIM and the value {"epoch": n, "worker": 32 hex digits, ...}. Its header `writer` holds n as
well. The claim holds if n is above all epochs before it, by STEP at most. A state record names its writer's epoch in the header
`writer`; without the header the epoch is 0. The record is fenced if a higher epoch came before it in the log. It is forged, and
does not count, if its epoch is beyond what a claim may name. If no claim has been read yet, the first state's epoch is taken for
one, because compaction keeps the last claim only. Only the order of the log decides, never a clock.
"""

from __future__ import annotations

import re
from typing import Any, NamedTuple

from deploy.clients.log_reader import Record
from deploy.clients.schema import parse
from deploy.verify.keys import TEXT, Keys
from deploy.verify.report import Kind
from stream.core.errors import TopologyError

CLAIM = b"\xffwriter"
HEADER = "writer"
STEP = 10**6
FIRST = 10**12  # the highest epoch that is accepted while none is known
EARLIER = "utf8"  # the form of keys if a claim names none: it is of a version before the setting
LARGEST = 64 << 10  # bytes of a claim
FENCED, UNCLAIMED, FORGED, NOBODYS = "fenced", "unclaimed", "forged", "of nobody"

_WORKER = re.compile(r"[0-9a-f]{32}")


class Wrong(NamedTuple):
    """What is wrong with a claim. `kind` is the kind of the violation."""

    kind: Kind
    message: str


class Fencing:
    """Checks the writers of one changelog partition, which is read in order. keys: The form of the users' keys."""

    def __init__(self, keys: Keys = TEXT) -> None:
        self._keys = keys
        self.current = 0
        self.workers: dict[int, str] = {}  # epoch -> name of the worker, of the claims that held

    def claim(self, record: Record) -> Wrong | None:
        """Read a claim. Return what is wrong with it, or None if it is right, even if it comes too late to hold.

        Raises TopologyError if a claim that holds names another form of the users' keys: the settings are not the workers'.
        """
        named = epoch(record)
        value = _parsed(record.value or b"")
        if value is None:
            return Wrong("claim", "it is not JSON of the form {epoch, worker, time, topics, partitions, key}")
        claimed, worker = value["epoch"], value["worker"]
        if named != claimed:
            return Wrong("forged-claim", f"it names epoch {_short(claimed)}, but its header names {named}")
        if not _WORKER.fullmatch(worker):
            return Wrong("forged-claim", f"it names worker {worker[:40]!r}, expected 32 hex digits")
        if claimed > self._limit():
            return Wrong(
                "forged-claim",
                f"it names epoch {_short(claimed)}, but {self.current} is in force: no takeover goes so far",
            )
        if claimed > self.current:
            self._same_form(record, value.get("key", EARLIER))
            self.current = claimed
            self.workers[claimed] = worker
        return None

    def _same_form(self, record: Record, form: str) -> None:
        if form not in ("", self._keys.form):
            raise TopologyError(
                f'key: found "{self._keys.form}", expected "{form[:40]}", the form of the users\' keys by the claim in '
                f"partition {record.partition} of the changelog at offset {record.offset}: set FRESHET_KEY={form[:40]}, as the "
                "workers have"
            )

    def check(self, record: Record) -> str:
        """Check a state record by its key and epoch.

        Returns:
            NOBODYS if no user has its key; its epoch then proves nothing. FENCED if its epoch is over. FORGED if its epoch is
            beyond any that a claim may name. UNCLAIMED if no claim of its epoch has been read. Otherwise "".
        """
        if self._keys.user(record.key) is None:
            return NOBODYS
        mine = epoch(record) or 0
        if mine < self.current:
            return FENCED
        if mine > self._limit():
            return FORGED
        if mine > self.current:  # it proves a claim, which compaction may have removed
            self.current = self.current or mine
            return UNCLAIMED
        return ""

    def _limit(self) -> int:
        return self.current + STEP if self.current else FIRST


def _parsed(raw: bytes) -> dict[str, Any] | None:
    """Return a claim's fields, with an epoch above 0; None if it has another form. Like an event's, its time may be spelt 5.0."""
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
    """Return a number of any length as readable text. Python refuses to write out thousands of digits."""
    return str(number) if number < 10**24 else f"of {number.bit_length()} bits"


def epoch(record: Record) -> int | None:
    """Return the epoch in the first `writer` header of a record; None if there is none, or it is not a decimal."""
    for name, value in record.headers or ():
        if name == HEADER:
            text = (value or b"").decode("ascii", "replace")
            return int(text) if text.isdecimal() and len(text) < 19 else None
    return None
