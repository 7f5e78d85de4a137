"""From raw records to events: what the schemas say, and the rules that they cannot say (stream.events names them)."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Final, Generic, TypeVar

import msgspec
from aiokafka.partitioner import murmur2
from msgspec import Struct

from stream.errors import RecordError
from stream.events import CLICK, FUTURE_MS, MAX_DEPTH, NAN, RATING, SOURCE_TOPICS, Click, Comment, Rating, SourceEvent
from stream.origin import Headers, mark, origin

_STRINGS = re.compile(
    r'"(?:[^"\\]|\\.)*+(?:"|\\?\Z)', re.DOTALL
)  # one that does not end goes to the end: never quadratic
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

    partitions: partition count of the source topics; rating_scale: (min, max), both inclusive; topics: names of the source
    topics, for the header `replay`.
    """

    def __init__(
        self, partitions: int, rating_scale: tuple[float, float], topics: Sequence[str] = SOURCE_TOPICS
    ) -> None:
        self._partitions = partitions
        self._topics = tuple(topics)
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
        self,
        behaviour: int,
        partition: int,
        offset: int,
        append_ms: int,
        key: bytes | None,
        value: bytes | None,
        headers: Headers = (),
    ) -> SourceEvent:
        """One record -> SourceEvent. Raises RecordError: the record is a dead letter."""
        if key is None:
            raise RecordError("key", "null_key", "user", "the key is null; expected the user id in UTF-8")
        rating = NAN
        text = action = ""
        if behaviour == CLICK:
            event: Click | Rating | Comment = (click := self._click.decode(value))
            action = click.action or ""
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
        found = SourceEvent(
            behaviour, partition, offset, append_ms, key, event.item, event.time, rating,
            event.scene or "", text, event.id or "", value or b"", action=action,
        )  # fmt: skip
        if found.id:
            found.mark = mark(found.id, self._topics)
        if headers:
            found.headers = headers
            found.id = found.id or origin(headers, self._topics)
        return found

    def _in_scale(self, value: float) -> float:
        low, high = self._scale
        if not low <= value <= high:
            raise RecordError(
                "validate", "rating_out_of_scale", "value", f"expected {low:g} to {high:g}, got {value!r}"
            )
        return value
