"""Claims: which worker may write a partition of the changelog. The order of the log itself decides, not a clock.

A worker that takes over a partition appends a claim: key CLAIM_KEY, and an epoch above all earlier ones. Each state
record carries its writer's epoch in the header WRITER (a record without one has epoch 0). The log is read in order. A
claim is valid if its epoch is above that of all claims before it. After it, records of a lower epoch are fenced: they
are not part of any state. docs/decisions/0008 compares this with Kafka's transactions.

A takeover raises the epoch by one. What no worker can have written is forged. It counts for nothing, and it is logged.
Forged are a claim that raises the epoch by more than STEP, a claim in another form than ours, and a claim whose header
names another epoch. A state whose epoch is that far ahead counts for nothing either. Anyone with write access to the
changelog can still claim a partition with an epoch that is near. Then the partition's worker ends with 75, and the next
worker claims it back.

A worker deletes the state of a user who was forgotten (stream.core.forgetting). Its tombstone names the epoch in force.
A tombstone without an epoch is fenced: no worker wrote it.

A claim names the form in which its writer writes the users' keys (stream.core.keys). The records after it are read in
that form. After compaction there may be states before the first claim. There, a user's key is accepted in any form. So
a worker with another setting also reads all states back, and the folder is complete once the setting is right again.
"""

from __future__ import annotations

import logging
import re
from collections.abc import Iterable
from typing import Any, Final, NamedTuple, Protocol

import msgspec

from stream.core.errors import RecordError
from stream.core.json_body import JsonDecoder
from stream.core.keys import FORMS, UTF8, user_of

CLAIM_KEY: Final = b"\xffwriter"
"""The key of a claim. No user has this key, in any form of a key (stream.core.keys)."""

WRITER: Final = "writer"
MAX_EPOCH_DIGITS: Final = 18
MAX_CLAIM: Final = 64 << 10  # bytes
STEP: Final = 1_000_000
"""Takeovers that compaction may hide from a reader whose copy is old: one every half minute for a year."""

FIRST: Final = 10**12
"""The highest epoch that a reader accepts if it knows none yet: compaction keeps the last claim only."""

log = logging.getLogger("freshet.claims")

_NAME = re.compile(r"[0-9a-f]{32}")  # a worker's, uuid4


class LogRecord(Protocol):
    """The part of a changelog record that is read here, whether aiokafka's or our own."""

    @property
    def offset(self) -> int: ...

    @property
    def key(self) -> bytes | None: ...

    @property
    def value(self) -> bytes | None: ...

    @property
    def headers(self) -> Any: ...


class Written(NamedTuple):
    """A record that this worker has written, at the offset that the broker assigned."""

    offset: int
    key: bytes | None
    value: bytes | None
    headers: list[tuple[str, bytes]]


class Claim(msgspec.Struct, frozen=True):
    """The value of a claim, as JSON.

    Attributes:
        epoch: The writer's epoch.
        worker: A random name, one per process.
        time: Epoch ms.
        topics: Source topic -> topic id.
        partitions: Number of partitions of the source topics; 0 if the claim does not say.
        key: The form of the users' keys, as in the setting `key`.
    """

    epoch: int
    worker: str
    time: int
    topics: dict[str, str] = {}
    partitions: int = 0
    key: str = UTF8

    @property
    def form(self) -> str:
        """The form of the users' keys after this claim; "" if unknown: no claim, or one that compaction removed."""
        return self.key if self.worker else ""


NO_CLAIM: Final = Claim(0, "", 0)

_DECODER = JsonDecoder(Claim)  # as for events: at most 32 levels; the last value of a repeated name counts


def encode(claim: Claim) -> bytes:
    return msgspec.json.encode(claim)


def decode(value: bytes | None) -> Claim:
    """Return the claim, or NO_CLAIM for a value that is not a claim and so never counts."""
    if value is None or len(value) > MAX_CLAIM:
        return NO_CLAIM
    try:
        claim = _DECODER.decode(value)
    except RecordError:
        return NO_CLAIM
    return claim if claim.epoch > 0 else NO_CLAIM


def stamp(epoch: int) -> list[tuple[str, bytes]]:
    """Return the headers of a record of this epoch."""
    return [(WRITER, b"%d" % epoch)]


def epoch_of(headers: Iterable[tuple[str, bytes | None]] | None) -> int:
    """Return the epoch in a record's first WRITER header, or 0 if it names none. Later WRITER headers do not count."""
    for name, value in headers or ():
        if name == WRITER:
            return int(value) if value and len(value) <= MAX_EPOCH_DIGITS and value.isdigit() else 0
    return 0


def limit(current: int) -> int:
    """Return the highest epoch that a writer can have while `current` is in force. `current` is 0 if none is known."""
    return current + STEP if current else FIRST


def judge(record: LogRecord, current: int) -> tuple[Claim, str]:
    """Judge a record whose key is CLAIM_KEY.

    Args:
        record: The record.
        current: The epoch in force before it.

    Returns:
        The claim, or NO_CLAIM if it is not valid; and why it is forged, or "" if it is not. A claim that only comes too
        late is not valid, but not forged either.
    """
    claim = decode(record.value)
    if not claim.epoch:
        return NO_CLAIM, "its value is not a claim"
    if epoch_of(record.headers) != claim.epoch:
        return NO_CLAIM, f"its header and its value name different epochs, {epoch_of(record.headers)} and {claim.epoch}"
    if not _NAME.fullmatch(claim.worker):
        return NO_CLAIM, f"{claim.worker[:40]!r} is not a worker's name, expected 32 hex digits"
    if claim.epoch > limit(current):
        return NO_CLAIM, f"epoch {claim.epoch} is beyond {limit(current)}; the epoch in force is {current}"
    return (claim, "") if claim.epoch > current else (NO_CLAIM, "")


def of_user(key: bytes | None, form: str = "") -> bool:
    """Check whether a user can have this key: an id that the schemas accept, written in this form.

    If the form is "" or unknown to this version, any form is accepted. No worker writes any other key to the changelog.
    Such a key may be one that a folder uses for its own notes, or `*`, which has a slate and never a state.
    """
    if form in FORMS:
        return user_of(key, form) is not None
    return any(user_of(key, one) is not None for one in FORMS)


class Forged(NamedTuple):
    """A record that no worker wrote. `what` says what it is: a claim, or another record."""

    offset: int
    why: str
    what: str = "claim"


class LeftOut(NamedTuple):
    """Counts of the changelog records that are not part of any state.

    Attributes:
        fenced: Fenced states.
        forged: Claims and records that no worker wrote.
    """

    fenced: int = 0
    forged: int = 0


class Sifted(NamedTuple):
    """The result of `sift`.

    Attributes:
        claim: The claim in force after the records.
        states: (key, value) of the valid states, in order; the value is None if the state is deleted.
        fenced: Keys of the fenced states.
        forged: Records that no worker wrote.
        exposed: The keys whose last record is fenced, each once.
    """

    claim: Claim
    states: list[tuple[bytes, bytes | None]]
    fenced: list[bytes]
    forged: list[Forged]
    exposed: dict[bytes, None]


def sift(records: Iterable[LogRecord], claim: Claim) -> Sifted:
    """Sift the records of one partition, given in order. `claim` is in force before them.

    If no claim is known, a state's epoch proves that there was one. A forged claim after that state is then too far
    ahead.
    """
    found = Sifted(claim, [], [], [], {})
    current = claim.epoch
    for record in records:
        key = record.key
        if key == CLAIM_KEY:
            holds, why = judge(record, current)
            if why:
                found.forged.append(Forged(record.offset, why))
            elif holds.epoch:
                claim, current = holds, holds.epoch
            continue
        if key is None or not of_user(key, claim.form):  # nor does its epoch prove anything
            found.forged.append(of_nobody(record))
            continue
        epoch = epoch_of(record.headers)
        if epoch < current or epoch > limit(current) or (record.value is None and not epoch):
            found.fenced.append(key)
            found.exposed[key] = None
            continue
        if epoch and not current:
            claim, current = Claim(epoch, "", 0), epoch
        found.states.append((key, record.value))
        if found.exposed:
            found.exposed.pop(key, None)
    return found._replace(claim=claim)


def of_nobody(record: LogRecord) -> Forged:
    """Return the finding for a record whose key no user can have."""
    return Forged(record.offset, f"no user has the key {record.key!r:.80}", "record")


def log_forged(partition: int, forged: Forged) -> None:
    """Log a record of the changelog that no worker wrote."""
    log.error(
        "forged %s in the changelog, left out: %s",
        forged.what,
        forged.why,
        extra={"partition": partition, "offset": forged.offset},
    )
