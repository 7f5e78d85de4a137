"""The wire contract: every message that freshet reads or writes, as msgspec structs.

JSON Schemas are generated from these structs into docs/schemas (`python -m stream.schemas`). Unknown fields are
ignored, so that producers may add their own. All times are epoch milliseconds, UTC.

What the schemas cannot say, and `EventDecoder` checks besides: the value is UTF-8 JSON of at most `MAX_DEPTH` nested
arrays and objects; the key is the user id in UTF-8; `value` lies within the rating scale; `time` is at most one hour
after the append time; the record lies on partition murmur2(key) mod n.
"""

from __future__ import annotations

import re
from typing import Annotated, Final, Generic, TypeVar

import msgspec
import numpy as np
from aiokafka.partitioner import murmur2
from msgspec import Meta, Struct
from numpy.typing import NDArray

from stream.errors import RecordError

CLICK: Final = 0
RATING: Final = 1
COMMENT: Final = 2
BEHAVIOURS: Final = ("click", "rating", "comment")
"""Names of the behaviours; a behaviour's index is its source topic's index everywhere (fences, folded lists, inputs)."""

SOURCE_TOPICS: Final = ("clicks", "ratings", "comments")

MAX_ID: Final = 256
MAX_TEXT: Final = 16_384
MAX_TIME: Final = 253_402_300_799_999  # the year 9999
MAX_DEPTH: Final = 32
FUTURE_MS: Final = 3_600_000

Id = Annotated[str, Meta(min_length=1, max_length=MAX_ID)]
User = Annotated[
    str,
    Meta(
        min_length=1,
        max_length=MAX_ID,
        pattern=r"^(\*[^\u0000]+|[^*\u0000][^\u0000]*)$",
        description="user id; `*` stands for anyone unknown, and U+0000 belongs to the store",
    ),
]
Time = Annotated[int, Meta(ge=0, le=MAX_TIME, description="epoch milliseconds, UTC")]
Count = Annotated[int, Meta(ge=0, le=10**12)]
Text = Annotated[str, Meta(max_length=MAX_TEXT)]
Value = Annotated[float, Meta(ge=-1e9, le=1e9, description="within the setting rating_scale")]
Label = Annotated[str, Meta(max_length=MAX_ID)]


class Click(Struct, frozen=True):
    """A user opened or chose an item. `scene` is where (home, search, a site); `slate` and `rank` name the
    recommendation that led here and the place in it, from 0."""

    user: User
    item: Id
    time: Time
    scene: Label | None = None
    slate: Label | None = None
    rank: Count | None = None
    dwell_ms: Count | None = None
    id: Label | None = None


class Rating(Struct, frozen=True):
    """A user rated an item."""

    user: User
    item: Id
    time: Time
    value: Value
    scene: Label | None = None
    slate: Label | None = None
    id: Label | None = None


class Comment(Struct, frozen=True):
    """A user wrote a text about an item, perhaps with a rating."""

    user: User
    item: Id
    time: Time
    text: Text
    value: Value | None = None
    scene: Label | None = None
    slate: Label | None = None
    id: Label | None = None


class Item(Struct, frozen=True):
    """One item of the catalogue; the record's key is the item id, a null value (tombstone) removes the item."""

    item: Id
    title: Annotated[str, Meta(max_length=1024)]
    text: Text | None = None
    categories: Annotated[tuple[Label, ...], Meta(max_length=64)] | None = None
    scenes: Annotated[tuple[Label, ...], Meta(max_length=64)] | None = None
    available: bool = True


class Scored(Struct, frozen=True):
    """One place of a slate; higher scores are better, and comparable within one slate only."""

    item: str
    score: float


class Recommendation(Struct, frozen=True):
    """A slate: the state of `user` after `seq` events, scored. `user` `*` stands for anyone unknown."""

    user: str
    slate: str
    seq: int
    chain: Annotated[str, Meta(description="32 hex digits")]
    items: list[Scored]
    time: int
    latency_ms: Annotated[int, Meta(description="send time less append time of the newest event; -1: none")]
    events: Annotated[
        list[tuple[str, int, int]], Meta(description="(topic, partition, offset) of exactly the events newly taken in")
    ]
    applied: Annotated[dict[str, int], Meta(description='"topic/partition" -> offset last applied for this user')]
    catalogue: Annotated[int, Meta(description="offset in the items topic that the catalogue had reached; -1: empty")]
    bundle: str
    strategy: Annotated[str, Meta(description="interest | popularity")]
    replay: bool


class DeadLetterHeaders(Struct, frozen=True, rename=lambda name: "__rec.errors." + name.replace("_", ".")):
    """Headers of a dead letter; all are UTF-8 text on the wire. Key, value, timestamp and other headers are as received."""

    topic: str
    partition: str
    offset: str
    stage: Annotated[str, Meta(description="key | partition | decode | validate | encode | inference | catalogue")]
    reason: Annotated[str, Meta(description="one of stream.errors.REASONS")]
    field: Annotated[str, Meta(description="the offending field, or empty")]
    exception: str
    message: Annotated[str, Meta(max_length=512)]
    attempt: str
    app_version: str
    model_sha256: str
    host: str
    failed_at: Annotated[str, Meta(description="epoch milliseconds")]
    payload_sha256: str
    truncated: Annotated[str, Meta(description="true | false")]


MESSAGES: Final[dict[str, type[Struct]]] = {
    "click": Click,
    "rating": Rating,
    "comment": Comment,
    "item": Item,
    "recommendation": Recommendation,
    "dead-letter-headers": DeadLetterHeaders,
}


class SourceEvent(Struct, gc=False):
    """One accepted event with its place in Kafka.

    `behaviour` indexes BEHAVIOURS and SOURCE_TOPICS; `value` is NaN where there is none; `payload` is the value as
    received (it enters the chain); `vector` is the text's, float32 [text width], once a comment has been encoded.
    """

    behaviour: int
    partition: int
    offset: int
    append_ms: int
    user: bytes
    item: str
    time: int
    value: float
    scene: str
    text: str
    id: str
    payload: bytes
    vector: NDArray[np.float32] | None = None


NAN: Final = float("nan")
_STRINGS = re.compile(r'"(?:[^"\\]|\\.)*"', re.DOTALL)
_FIELD = re.compile(r"at `\$\.?([^`]*)`")
_MISSING = re.compile(r"required field `([^`]*)`")
_PARTITIONS: Final = 1_000_000  # size at which the key -> partition cache starts afresh


def nesting(text: str) -> int:
    """Depth of nested arrays and objects in a JSON text, strings left out (an upper bound where it is malformed)."""
    depth = deepest = 0
    for char in _STRINGS.sub("", text):
        if char in "[{":
            depth += 1
            deepest = max(deepest, depth)
        elif char in "]}":
            depth -= 1
    return deepest


def integral(message: dict[str, object], fields: tuple[str, ...]) -> dict[str, object]:
    """JSON Schema counts 3.0 as an integer, msgspec does not: whole floats of these fields made int."""
    for name in fields:
        number = message.get(name)
        if isinstance(number, float) and number.is_integer() and abs(number) < 2**63:
            message[name] = int(number)
    return message


Message = TypeVar("Message", bound=Struct)


class JsonDecoder(Generic[Message]):
    """Decodes and validates one message type; raises RecordError with stage, reason, field and what was expected."""

    def __init__(self, message: type[Message]) -> None:
        self._message = message
        self._decoder = msgspec.json.Decoder(message)
        # The second look (see _again) reads the known fields' last values, unparsed: () is a field that is absent.
        fields = [(name, msgspec.Raw, msgspec.Raw()) for name in message.__struct_fields__]
        self._fields = msgspec.json.Decoder(msgspec.defstruct("Fields", fields))
        self._ints = tuple(name for name in ("time", "rank", "dwell_ms") if name in message.__struct_fields__)

    def decode(self, value: bytes | None) -> Message:
        if value is None:
            raise RecordError("decode", "null_value", "", "the value is null; expected a JSON object")
        if not value:
            raise RecordError("decode", "empty_value", "", "the value is empty; expected a JSON object")
        try:
            text = str(value, "utf-8")
        except UnicodeDecodeError as error:
            raise RecordError("decode", "not_utf8", "", f"not UTF-8 at byte {error.start}") from None
        if text.count("[") + text.count("{") > MAX_DEPTH and nesting(text) > MAX_DEPTH:
            raise RecordError("decode", "too_deep", "", f"more than {MAX_DEPTH} nested arrays and objects")
        try:
            return self._decoder.decode(text)
        except msgspec.ValidationError as error:
            return self._again(text, error)
        except msgspec.DecodeError as error:
            raise RecordError("decode", "malformed_json", "", str(error)) from None

    def _again(self, text: str, error: msgspec.ValidationError) -> Message:
        """A second look at what the fast decoder refuses and the schema may not: whole floats for integers, and names
        that are repeated, of which the last counts. Unknown fields are not looked at, here either."""
        try:
            fields = self._fields.decode(text)
            raws = {name: bytes(getattr(fields, name)) for name in self._message.__struct_fields__}
            said = {name: msgspec.json.decode(raw) for name, raw in raws.items() if raw}
            return msgspec.convert(integral(said, self._ints), self._message)
        except msgspec.ValidationError as second:
            if "out of range" not in str(second):  # 1e400 in a known field: the first error names the field
                error = second
        except msgspec.DecodeError as second:
            raise RecordError("decode", "malformed_json", "", str(second)) from None
        message = str(error)
        if missing := _MISSING.search(message):
            raise RecordError("validate", "missing_field", missing[1], message)
        found = _FIELD.search(message)
        name = found[1] if found else ""
        if "regex" in message:
            raise RecordError("validate", "out_of_range", name, "expected a user id other than `*`, without U+0000")
        if "length" in message:
            short = "length >=" in message
            raise RecordError("validate", "out_of_range" if short else "too_large", name, message)
        wrong = "wrong_type" if "got `" in message else "out_of_range"
        raise RecordError("validate", wrong, name, message)


class EventDecoder:
    """Turns raw records of the three source topics into events, or says exactly what is wrong with them.

    partitions: partition count of the source topics; rating_scale: (min, max), both inclusive.
    """

    def __init__(self, partitions: int, rating_scale: tuple[float, float]) -> None:
        self._partitions = partitions
        self._scale = rating_scale
        self._partition_of: dict[bytes, int] = {}
        self._click = JsonDecoder(Click)
        self._rating = JsonDecoder(Rating)
        self._comment = JsonDecoder(Comment)

    def partition(self, key: bytes) -> int:
        """murmur2(key) mod n, as the Java client and kafka-python place a key."""
        found = self._partition_of.get(key)
        if found is None:
            if len(self._partition_of) >= _PARTITIONS:
                self._partition_of.clear()
            found = self._partition_of[key] = (murmur2(key) & 0x7FFFFFFF) % self._partitions
        return found

    def decode(
        self, behaviour: int, partition: int, offset: int, append_ms: int, key: bytes | None, value: bytes | None
    ) -> SourceEvent:
        """One record -> SourceEvent. Raises RecordError: the record is a dead letter."""
        if key is None:
            raise RecordError("key", "null_key", "user", "the key is null; expected the user id in UTF-8")
        rating = NAN
        text = ""
        if behaviour == CLICK:
            event: Click | Rating | Comment = self._click.decode(value)
        elif behaviour == RATING:
            event = scored = self._rating.decode(value)
            rating = self._in_scale(scored.value)
        else:
            event = comment = self._comment.decode(value)
            text = comment.text
            if comment.value is not None:
                rating = self._in_scale(comment.value)
        if event.user.encode() != key:
            raise RecordError("key", "key_mismatch", "user", "the key is not the body's user in UTF-8")
        if self.partition(key) != partition:
            raise RecordError(
                "partition",
                "mispartitioned",
                "user",
                f"on partition {partition}, expected {self.partition(key)} = murmur2(key) mod {self._partitions}; "
                "librdkafka clients: set partitioner=murmur2_random",
            )
        if event.time > append_ms + FUTURE_MS:
            raise RecordError("validate", "far_future", "time", f"more than one hour after the append time {append_ms}")
        return SourceEvent(
            behaviour, partition, offset, append_ms, key, event.item, event.time, rating,
            event.scene or "", text, event.id or "", value or b"",
        )  # fmt: skip

    def _in_scale(self, value: float) -> float:
        low, high = self._scale
        if not low <= value <= high:
            raise RecordError(
                "validate", "rating_out_of_scale", "value", f"expected {low:g} to {high:g}, got {value:g}"
            )
        return value
