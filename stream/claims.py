"""Who may write a partition of the changelog: claims in the log itself, so that its own order decides and no clock.

A worker that takes a partition over appends a claim: key CLAIM_KEY, an epoch above every one before it. Each state record
carries its writer's epoch in the header WRITER (a record without one: epoch 0). Read in order, a claim is valid where its
epoch is above that of the claims before; after it, records of a lower epoch are fenced: they are no part of any state.
docs/decisions/0008 compares this with Kafka's transactions.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, Final, NamedTuple, Protocol

import msgspec

CLAIM_KEY: Final = b"\xffwriter"
"""Never a user: their ids are UTF-8."""

WRITER: Final = "writer"
MAX_EPOCH_DIGITS: Final = 18
MAX_CLAIM: Final = 64 << 10  # bytes


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
    partitions: how many those have, 0 where the claim does not say."""

    epoch: int
    worker: str
    time: int
    topics: dict[str, str] = {}
    partitions: int = 0


NO_CLAIM: Final = Claim(0, "", 0)


def encode(claim: Claim) -> bytes:
    return msgspec.json.encode(claim)


def decode(value: bytes | None) -> Claim:
    """NO_CLAIM for what is no claim: it then never counts."""
    if value is None or len(value) > MAX_CLAIM:
        return NO_CLAIM
    try:
        claim = msgspec.json.decode(value, type=Claim)
    except (msgspec.DecodeError, ValueError, RecursionError):
        return NO_CLAIM
    return claim if claim.epoch > 0 else NO_CLAIM


def stamp(epoch: int) -> list[tuple[str, bytes]]:
    """The headers of a record of this epoch."""
    return [(WRITER, b"%d" % epoch)]


def epoch_of(headers: Iterable[tuple[str, bytes]] | None) -> int:
    """The epoch that a record's headers name, 0 where they name none."""
    for name, value in headers or ():
        if name == WRITER and len(value) <= MAX_EPOCH_DIGITS and value.isdigit():
            return int(value)
    return 0


class Sifted(NamedTuple):
    """claim: the one in force after the records; states: (key, value) that stand, in order; fenced: keys of those that do not."""

    claim: Claim
    states: list[tuple[bytes, bytes | None]]
    fenced: list[bytes]


def sift(records: Iterable[LogRecord], claim: Claim) -> Sifted:
    """Records of one partition in order, `claim` in force before them."""
    states: list[tuple[bytes, bytes | None]] = []
    fenced: list[bytes] = []
    current = claim.epoch
    for record in records:
        key = record.key
        if key is None:
            continue
        if key == CLAIM_KEY:
            found = decode(record.value)
            if found.epoch > current:
                claim, current = found, found.epoch
        elif current and epoch_of(record.headers) < current:
            fenced.append(key)
        else:
            states.append((key, record.value))
    return Sifted(claim, states, fenced)
