"""The topic `bundles`: which bundle is to be served, and which bundle makes the slates (docs/swap.md). Pure: no Kafka, no ONNX.

    key b"activate"          Activate: serve this bundle from now on. Its offset is the number of the activation
    key: a process's name    Loaded, Refused: what one worker or gateway has made of an activation
    key: a worker's name     Switched: from which offset on slates of a partition are made by which bundle

A rollback is an activation that names the bundle before. The topic keeps all of its records, in order.
"""

from __future__ import annotations

import re
from bisect import bisect_right
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Annotated, Final, Literal, NamedTuple

import msgspec
from msgspec import Meta, Struct

from stream.core.errors import RecordError
from stream.core.json_body import JsonDecoder, text_of
from stream.core.messages import MAX_TIME
from stream.core.refusals import found as said

ACTIVATE_KEY: Final = b"activate"
CURRENT: Final = -1
"""The number that stands for no activation: the bundle is the one that the file CURRENT names."""
MAX_REASON: Final = 1024
FENCED: Final = "fenced"
"""Why a `switched` does not count: a worker with a greater epoch has written one for the partition before."""
KINDS: Final = ("activate", "loaded", "refused", "switched")

BundleId = Annotated[str, Meta(pattern="^[0-9a-f]{64}$", description="id of the bundle: 64 hex digits")]
Name = Annotated[
    str, Meta(pattern="^[0-9a-f]{32}$", description="name of the process, new at each start: 32 hex digits")
]
Moment = Annotated[int, Meta(ge=0, le=MAX_TIME, description="epoch milliseconds, UTC")]
Number = Annotated[int, Meta(ge=0, description="offset of the activation in this topic")]
Reason = Annotated[str, Meta(max_length=MAX_REASON)]
Process = Annotated[Literal["worker", "gateway"], Meta(description="what it is")]


class Activate(Struct, frozen=True, tag_field="kind", tag="activate"):
    """An order to serve a bundle. The key is `activate`. The newest one counts."""

    bundle: BundleId
    time: Moment
    reason: Annotated[Reason, Meta(description="why, for people")] = ""


class Loaded(Struct, frozen=True, tag_field="kind", tag="loaded"):
    """A process has loaded and checked the bundle of an activation. The key is its name."""

    activation: Number
    bundle: BundleId
    worker: Name
    process: Process
    time: Moment
    seconds: Annotated[float, Meta(ge=0, description="how long that took")]


class Refused(Struct, frozen=True, tag_field="kind", tag="refused"):
    """A process cannot use the bundle of an activation and goes on with the one that it has. The key is its name."""

    activation: Number
    bundle: BundleId
    worker: Name
    process: Process
    time: Moment
    reason: Annotated[Reason, Meta(description="why, in one sentence")]


class Switched(Struct, frozen=True, tag_field="kind", tag="switched"):
    """From offset `slates` of a partition of the topic `recommendations` on, its slates are made by `bundle`. The key is the
    worker's name. The partition's owner writes it before its first slate with the bundle. Before the first one of a partition
    it writes one with activation -1, which has the bundle that made the slates until then."""

    activation: Annotated[
        int, Meta(ge=CURRENT, description="offset of the activation in this topic; -1: none, CURRENT names the bundle")
    ]
    bundle: BundleId
    partition: Annotated[int, Meta(ge=0, description="partition of the topic recommendations")]
    slates: Annotated[int, Meta(ge=0, description="the first offset there that the bundle may have made")]
    worker: Name
    epoch: Annotated[int, Meta(ge=0, description="the epoch with which the worker has claimed the partition")]
    time: Moment


MESSAGES: Final[dict[str, type[Struct]]] = {
    "bundle-activate": Activate,
    "bundle-loaded": Loaded,
    "bundle-refused": Refused,
    "bundle-switched": Switched,
}
"""Name -> message, for the published schemas and the page of all messages."""

Record = Activate | Loaded | Refused | Switched
Report = Loaded | Refused

_DECODERS: Final[
    dict[str, JsonDecoder[Activate] | JsonDecoder[Loaded] | JsonDecoder[Refused] | JsonDecoder[Switched]]
] = {
    "activate": JsonDecoder(Activate, texts=True),
    "loaded": JsonDecoder(Loaded, texts=True),
    "refused": JsonDecoder(Refused, texts=True),
    "switched": JsonDecoder(Switched, texts=True),
}
_ANY: Final = msgspec.json.Decoder(dict[str, msgspec.Raw])
_encode: Final = msgspec.json.Encoder().encode
_SPACES: Final = re.compile(r"\s+")


def key_of(record: Record) -> bytes:
    """Return the key of a record."""
    return ACTIVATE_KEY if isinstance(record, Activate) else record.worker.encode()


def encode(record: Record) -> bytes:
    """Return the value of a record."""
    return _encode(record)


def sentence(reason: str) -> str:
    """Return a reason in one line that fits into a record."""
    return _SPACES.sub(" ", reason).strip()[:MAX_REASON]


def decode(key: bytes | None, value: bytes | None) -> Record:
    """Return the record with this key and value. Raises RecordError, which names the field."""
    text = text_of(value)
    kind: object = None
    try:
        fields = _ANY.decode(text)
        raw = fields.get("kind")
        kind = None if raw is None else msgspec.json.decode(raw)
    except msgspec.MsgspecError:
        kind = KINDS[0]  # its decoder says what is wrong with the value as a whole
    if kind is None:
        raise RecordError("validate", "missing_field", "kind", f"`kind` is missing; expected one of {', '.join(KINDS)}")
    if not isinstance(kind, str) or kind not in _DECODERS:
        reason = "out_of_range" if isinstance(kind, str) else "wrong_type"
        raise RecordError("validate", reason, "kind", f"found {said(kind)}, expected one of {', '.join(KINDS)}")
    record: Record = _DECODERS[kind].read(text)
    if key is None:
        raise RecordError("key", "null_key", "kind", f"there is no key; expected {key_of(record).decode()}")
    if key != key_of(record):
        raise RecordError(
            "key", "key_mismatch", "kind", f"found the key {key!r:.60}, expected {key_of(record).decode()}"
        )
    return record


class Activation(NamedTuple):
    """One activation with its number.

    Attributes:
        number: Its offset; CURRENT for none.
        bundle: Hex id of its bundle.
        time: When it was written, epoch ms.
        reason: Why, for people; may be empty.
    """

    number: int
    bundle: str
    time: int = 0
    reason: str = ""


class LeftOut(NamedTuple):
    """A record that does not count.

    Attributes:
        offset: Its offset.
        reason: One of stream.core.errors.REASONS, or FENCED.
        field: The field; "" for none.
        message: Why, in words.
    """

    offset: int
    reason: str
    field: str
    message: str


@dataclass(frozen=True)
class Switches:
    """Which bundle has made the slates of one partition.

    Attributes:
        records: What the owners have written, in order. Their `slates` rise: a record drops the ones before it that begin at
            its `slates` or later, for no slate of theirs was written.
    """

    records: tuple[Switched, ...] = ()

    @property
    def last(self) -> Switched | None:
        """The switch in force; None before the first."""
        return self.records[-1] if self.records else None

    def at(self, offset: int) -> Switched | None:
        """Return the switch that a slate at this offset falls under; None for one before the first."""
        place = bisect_right(self.records, offset, key=lambda one: one.slates)
        return self.records[place - 1] if place else None

    def with_(self, record: Switched) -> Switches:
        kept = bisect_right(self.records, record.slates - 1, key=lambda one: one.slates)
        return Switches((*self.records[:kept], record))


@dataclass
class BundleLog:
    """What the topic says, as far as it is read. It must have only one writer thread.

    Attributes:
        offset: The last applied offset; -1 for none.
        activations: All activations, the newest last.
        partitions: Partition -> its switches.
        reports: Name of a process -> its last report, and the offset of that.
    """

    offset: int = -1
    activations: list[Activation] = field(default_factory=list)
    partitions: dict[int, Switches] = field(default_factory=dict)
    reports: dict[str, tuple[int, Report]] = field(default_factory=dict)
    _epochs: dict[int, int] = field(default_factory=dict)

    def apply(self, records: Sequence[tuple[int, bytes | None, bytes | None]]) -> list[LeftOut]:
        """Apply records (offset, key, value) in the order of the topic. Return those that do not count."""
        left_out: list[LeftOut] = []
        for offset, key, value in records:
            self.offset = offset
            try:
                record = decode(key, value)
            except RecordError as error:
                left_out.append(LeftOut(offset, error.reason, error.field, str(error)))
                continue
            if isinstance(record, Activate):
                self.activations.append(Activation(offset, record.bundle, record.time, record.reason))
            elif isinstance(record, Switched):
                known = self._epochs.get(record.partition, 0)
                if record.epoch < known:
                    message = (
                        f"partition {record.partition} was switched with epoch {known} before, this has {record.epoch}"
                    )
                    left_out.append(LeftOut(offset, FENCED, "epoch", message))
                    continue
                self._epochs[record.partition] = record.epoch
                self.partitions[record.partition] = self.partitions.get(record.partition, Switches()).with_(record)
            else:
                self.reports[record.worker] = offset, record
        return left_out

    @property
    def newest(self) -> Activation | None:
        """The newest activation; None before the first."""
        return self.activations[-1] if self.activations else None

    def candidates(self) -> list[Activation]:
        """Return what a process that starts should try, in this order: the newest activation of each bundle, the newest first.

        If none of them can be loaded, or there is none, it takes the bundle that CURRENT names.
        """
        tried: dict[str, Activation] = {}
        for one in reversed(self.activations):
            tried.setdefault(one.bundle, one)
        return list(tried.values())

    def last(self, partition: int) -> Switched | None:
        """Return the switch of a partition that is in force; None if there is none."""
        return self.partitions.get(partition, Switches()).last

    def must_switch(self, partition: int, serving: Activation) -> bool:
        """Return whether a worker that takes over a partition has to write a `Switched` before its first slate there.

        That is so if it serves something else than the last switch says. A partition without one needs none as long as
        nothing was ever activated.
        """
        last = self.last(partition)
        if last is None:
            return serving.number != CURRENT
        return (last.activation, last.bundle) != (serving.number, serving.bundle)
