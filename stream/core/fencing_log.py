"""Who may write a partition of the changelog: claims in the log itself, so that its own order decides and no clock.

A worker that takes a partition over appends a claim: key CLAIM_KEY, an epoch above every one before it. Each state record
carries its writer's epoch in the header WRITER (a record without one: epoch 0). Read in order, a claim is valid where its
epoch is above that of the claims before; after it, records of a lower epoch are fenced: they are no part of any state.
docs/decisions/0008 compares this with Kafka's transactions.

A takeover raises the epoch by one. What no worker can have written is forged, counts for nothing and is named: a claim that
raises it by more than STEP, that has another form than ours, or whose header names another epoch; and a state so far ahead.
Who may write the changelog can still claim a partition from outside by an epoch that is near: its worker ends with 75, and
the next one claims it back. A worker never deletes a state, so a tombstone is fenced, whatever epoch it names.

A claim says in which form its writer has the users' keys (stream.core.keys), and what follows is read by that form.
Compaction may
have left states that come before any claim: there a user's key of any form is taken. So a worker whose setting is another one
reads all states back, too, and the folder is whole once the setting is right again.
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
"""No user has it in any form of a key (stream.core.keys)."""

WRITER: Final = "writer"
MAX_EPOCH_DIGITS: Final = 18
MAX_CLAIM: Final = 64 << 10  # bytes
STEP: Final = 1_000_000
"""Takeovers that compaction may hide from a reader whose own copy is old: one every half a minute for a year."""

FIRST: Final = 10**12
"""The highest epoch that a reader takes who knows none yet, since compaction keeps the last claim only."""

log = logging.getLogger("freshet.claims")

_NAME = re.compile(r"[0-9a-f]{32}")  # a worker's, uuid4


class LogRecord(Protocol):
    """What is looked at of a changelog record, aiokafka's or our own."""

    @property
    def offset(self) -> int: ...

    @property
    def key(self) -> bytes | None: ...

    @property
    def value(self) -> bytes | None: ...

    @property
    def headers(self) -> Any: ...


class Written(NamedTuple):
    """A record that we have written ourselves, at the offset that the broker gave it."""

    offset: int
    key: bytes | None
    value: bytes | None
    headers: list[tuple[str, bytes]]


class Claim(msgspec.Struct, frozen=True):
    """The value of a claim, as JSON. worker: random, one per process; time: epoch ms; topics: source topic -> topic id;
    partitions: how many those have, 0 where the claim does not say; key: the form of the users' keys, as of the setting."""

    epoch: int
    worker: str
    time: int
    topics: dict[str, str] = {}
    partitions: int = 0
    key: str = UTF8

    @property
    def form(self) -> str:
        """The form of the users' keys behind this claim; "" where nobody has said it: no claim, or one that compaction has taken
        away."""
        return self.key if self.worker else ""


NO_CLAIM: Final = Claim(0, "", 0)

_DECODER = JsonDecoder(Claim)  # as for events: at most 32 nested, of a repeated name the last counts


def encode(claim: Claim) -> bytes:
    return msgspec.json.encode(claim)


def decode(value: bytes | None) -> Claim:
    """NO_CLAIM for what is no claim: it then never counts."""
    if value is None or len(value) > MAX_CLAIM:
        return NO_CLAIM
    try:
        claim = _DECODER.decode(value)
    except RecordError:
        return NO_CLAIM
    return claim if claim.epoch > 0 else NO_CLAIM


def stamp(epoch: int) -> list[tuple[str, bytes]]:
    """The headers of a record of this epoch."""
    return [(WRITER, b"%d" % epoch)]


def epoch_of(headers: Iterable[tuple[str, bytes | None]] | None) -> int:
    """The epoch that the first WRITER among a record's headers names, 0 where it names none: no later one takes its part."""
    for name, value in headers or ():
        if name == WRITER:
            return int(value) if value and len(value) <= MAX_EPOCH_DIGITS and value.isdigit() else 0
    return 0


def limit(current: int) -> int:
    """The highest epoch that a writer can have, where `current` is in force; 0: none is known."""
    return current + STEP if current else FIRST


def judge(record: LogRecord, current: int) -> tuple[Claim, str]:
    """A record under CLAIM_KEY, `current` the epoch in force -> the claim, NO_CLAIM where it does not hold; and why it is
    forged, "" where it is not: a claim that only comes too late is none that holds, and no worse."""
    claim = decode(record.value)
    if not claim.epoch:
        return NO_CLAIM, "it is no claim"
    if epoch_of(record.headers) != claim.epoch:
        return NO_CLAIM, f"its header and its value name different epochs, {epoch_of(record.headers)} and {claim.epoch}"
    if not _NAME.fullmatch(claim.worker):
        return NO_CLAIM, f"{claim.worker[:40]!r} is no worker's name, expected 32 hex digits"
    if claim.epoch > limit(current):
        return NO_CLAIM, f"epoch {claim.epoch} is beyond {limit(current)}, the epoch in force is {current}"
    return (claim, "") if claim.epoch > current else (NO_CLAIM, "")


def of_user(key: bytes | None, form: str = "") -> bool:
    """A user can have this key: what the schemas take for a user's id, written in this form; in any form, where this is "" or
    one that this version does not know. Any other key in the changelog is no worker's: it may be one under which a folder keeps
    its own notes, or `*`, which has a slate and never a state."""
    if form in FORMS:
        return user_of(key, form) is not None
    return any(user_of(key, one) is not None for one in FORMS)


class Forged(NamedTuple):
    """A record that no worker wrote. what: a claim, or any other record."""

    offset: int
    why: str
    what: str = "claim"


class LeftOut(NamedTuple):
    """Changelog records that are part of no state. fenced: states; forged: claims and records that no worker wrote."""

    fenced: int = 0
    forged: int = 0


class Sifted(NamedTuple):
    """claim: the one in force after the records; states: (key, value) that stand, in order; fenced: keys of those that do not;
    forged: what no worker wrote; exposed: the keys, each once, whose last record is a fenced one."""

    claim: Claim
    states: list[tuple[bytes, bytes]]
    fenced: list[bytes]
    forged: list[Forged]
    exposed: dict[bytes, None]


def sift(records: Iterable[LogRecord], claim: Claim) -> Sifted:
    """Records of one partition in order, `claim` in force before them.

    Where none is known, a state's own epoch proves that there was one: a forged claim after it is then too far away.
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
        if key is None or not of_user(key, claim.form):  # its epoch proves nothing either
            found.forged.append(of_nobody(record))
            continue
        epoch = epoch_of(record.headers)
        if record.value is None or epoch < current or epoch > limit(current):
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
    """A record under a key that no user can have."""
    return Forged(record.offset, f"no user has the key {record.key!r:.80}", "record")


def log_forged(partition: int, forged: Forged) -> None:
    """Name a record of the changelog that no worker wrote."""
    log.error(
        "forged %s in the changelog, left out: %s",
        forged.what,
        forged.why,
        extra={"partition": partition, "offset": forged.offset},
    )
