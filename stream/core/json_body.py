"""Reads one message from its bytes: JSON text, then the fields of a struct of stream.core.messages. Pure."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Final, Generic, NoReturn, TypeVar

import msgspec
from msgspec import Struct

from stream.core.errors import RecordError
from stream.core.messages import MAX_ATTRIBUTE, MAX_DEPTH, MAX_ID, MAX_NAME, MAX_VALUES, AttributeValue, Item, Rule
from stream.core.refusals import (
    HEX,
    TIMES,
    Unread,
    expected,
    fields_found,
    fields_of,
    found,
    kind_of,
    malformed,
    time_advice,
)
from stream.core.times import unit
from stream.core.validation import USER

INTEGERS: Final = ("time", "rank", "dwell_ms", "place", "most", "since", "until")
"""Fields that are whole numbers and may be written as 3.0."""

ATTRIBUTES: Final = "attributes"

_CALLED: Final[Mapping[type[Struct], str]] = {Item: "item", Rule: "rule"}
_SHOWN: Final = 60
_LONGEST: Final = 200
"""Characters of a field's name."""

_STRINGS = re.compile(
    r'"(?:[^"\\]|\\.)*+(?:"|\\?\Z)', re.DOTALL
)  # a string that is not closed ends with the text: never quadratic
_FIELD = re.compile(r"at `\$\.?([^`]*)`")
_KEY = re.compile(r"at `key` in `\$\.?([^`]*)`")
_MISSING = re.compile(r"required field `([^`]*)`")
_UNKNOWN = re.compile(r"unknown field `([^`]*)`")
_GOT = re.compile(r"got `([^`]*)`")


def nesting(text: str) -> int:
    """Return the depth of nested arrays and objects in a JSON text, outside strings; if malformed, an upper bound."""
    depth = deepest = 0
    for char in _STRINGS.sub("", text):
        if char in "[{":
            depth += 1
            deepest = max(deepest, depth)
        elif char in "]}":
            depth -= 1
    return deepest


def integral(message: dict[str, object], fields: tuple[str, ...]) -> dict[str, object]:
    """Convert whole floats in these fields to int: JSON Schema counts 3.0 as an integer, msgspec does not."""
    for name in fields:
        number = message.get(name)
        if isinstance(number, float) and number.is_integer() and abs(number) < 2**63:
            message[name] = int(number)
    return message


def text_of(value: bytes | None) -> str:
    """Return a value as text. Raises RecordError if there is none, if it is not UTF-8, or if it is nested too deep."""
    if value is None:
        raise RecordError("decode", "null_value", "", "the value is null; expected a JSON object")
    if not value:
        raise RecordError("decode", "empty_value", "", "the value is empty; expected a JSON object")
    try:
        text = str(value, "utf-8")
    except UnicodeDecodeError as error:
        raise RecordError("decode", "not_utf8", "", f"not UTF-8 at byte {error.start}") from None
    if text.count("[") + text.count("{") > MAX_DEPTH and nesting(text) > MAX_DEPTH:
        raise RecordError("decode", "too_deep", "", f"found more than {MAX_DEPTH} nested arrays and objects")
    return text


Message = TypeVar("Message", bound=Struct)


class JsonDecoder(Generic[Message]):
    """Decodes and validates one message type. Raises RecordError with stage, reason, field and what was expected.

    Args:
        message: The message type.
        texts: As in stream.core.refusals.found: whether errors show all texts. Off for messages with texts of users.
    """

    def __init__(self, message: type[Message], *, texts: bool = False) -> None:
        self._message = message
        self._texts = texts
        self._decoder = msgspec.json.Decoder(message)
        # The second look (see _again) reads the known fields' last values, unparsed: () means that the field is absent.
        fields = [(name, msgspec.Raw, msgspec.Raw()) for name in message.__struct_fields__]
        strict = message.__struct_config__.forbid_unknown_fields
        self._fields = msgspec.json.Decoder(msgspec.defstruct("Fields", fields, forbid_unknown_fields=strict))
        self._ints = tuple(name for name in INTEGERS if name in message.__struct_fields__)

    def decode(self, value: bytes | None) -> Message:
        return self.read(text_of(value))

    def read(self, text: str) -> Message:
        """Decode a text that `text_of` has returned."""
        try:
            return self._decoder.decode(text)
        except msgspec.ValidationError as error:
            return self._again(text, error)
        except msgspec.DecodeError as error:
            raise RecordError("decode", "malformed_json", "", malformed(text, str(error))) from None

    def _again(self, text: str, error: msgspec.ValidationError) -> Message:
        """Look again at what the fast decoder refuses and the schema may allow: whole floats for integers, and repeated
        names, of which the last counts. Unknown fields are ignored here, too."""
        raws: dict[str, bytes] = {}
        try:
            fields = self._fields.decode(text)
            raws = {name: raw for name in self._message.__struct_fields__ if (raw := bytes(getattr(fields, name)))}
            values = {name: msgspec.json.decode(raw) for name, raw in raws.items()}
            return msgspec.convert(integral(values, self._ints), self._message)
        except msgspec.ValidationError as second:
            if "out of range" not in str(second):  # 1e400 in a known field: the first error names the field
                error = second
        except msgspec.DecodeError as second:
            raise RecordError("decode", "malformed_json", "", malformed(text, str(second))) from None
        # an event's error goes into a dead letter's header and the worker's log: no text of a user
        _refuse(error, self._message, {name: _value(raw) for name, raw in raws.items()}, text, texts=self._texts)


def convert(fields: dict[str, object], message: type[Message]) -> Message:
    """Return the message from fields that something else has read, such as a row of a file. Raises RecordError."""
    ints = tuple(name for name in INTEGERS if name in message.__struct_fields__)
    try:
        return msgspec.convert(integral(fields, ints), message)
    except msgspec.ValidationError as error:
        _refuse(error, message, fields)


def _refuse(
    error: msgspec.ValidationError,
    kind: type[Struct],
    fields: Mapping[str, object],
    text: str = "",
    *,
    texts: bool = True,
) -> NoReturn:
    """Raise RecordError with what was found and what was expected.

    Args:
        error: msgspec's error.
        kind: The message type.
        fields: The fields, for the values that msgspec does not repeat.
        text: The text of the whole message, for the names of fields that no message has.
        texts: As in stream.core.refusals.found.
    """
    message = str(error)
    if missing := _MISSING.search(message):
        raise RecordError(
            "validate",
            "missing_field",
            missing[1],
            f"`{missing[1]}` is missing; {fields_found(_names(text) or fields)}",
        )
    if unknown := _UNKNOWN.search(message):
        within = at[1] if (at := _FIELD.search(message)) else ""
        known = fields_of(kind, within)
        detail = f"there is no field {unknown[1][:_SHOWN]!r}" + (
            f"; expected one of {', '.join(known)}" if known else ""
        )
        name = f"{within}.{unknown[1]}" if within else unknown[1]
        raise RecordError("validate", "unexpected_field", name[:_LONGEST], detail)
    named = _FIELD.search(message) or _KEY.search(message)
    name = named[1].partition("[...]")[0] if named else ""
    field = re.split(r"[.\[]", name)[0]
    if not field:
        got = _GOT.search(message)
        many = f": send one {_CALLED.get(kind, 'event')} per record" if got and got[1] == "array" else ""
        wrong = f"found {kind_of(got[1])}, expected a JSON object{many}" if got else message
        raise RecordError("validate", "wrong_type" if got else "out_of_range", name, wrong)
    value = fields.get(field)
    if field == ATTRIBUTES and isinstance(value, dict):
        _refuse_attribute(value, texts=texts)
    detail = f"found {found(value, texts=texts)}, expected " if field in fields else "expected "
    if "regex" in message:
        wanted = expected(kind, field)
        raise RecordError("validate", "out_of_range", name, detail + (wanted if wanted.endswith(HEX) else USER))
    detail += expected(kind, field)
    if "length" in message:
        short = "length >=" in message
        raise RecordError("validate", "out_of_range" if short else "too_large", name, detail)
    wrong = "wrong_type" if "got `" in message else "out_of_range"
    if field not in TIMES:
        raise RecordError("validate", wrong, name, detail)
    advice = time_advice(value)
    likely = unit(value) if wrong == "out_of_range" and isinstance(value, int) else ""
    raise RecordError("validate", wrong, name, detail + (f"; {advice}" if advice else ""), likely)


def _refuse_attribute(attributes: dict[str, object], *, texts: bool) -> None:
    """Raise RecordError for the first attribute that is not acceptable. Return if their number is what is wrong."""
    for name, value in attributes.items():
        if not 1 <= len(name) <= MAX_NAME:
            detail = f"found a name of {len(name)} characters, expected 1 to {MAX_NAME}"
            raise RecordError("validate", "too_large" if name else "out_of_range", ATTRIBUTES, detail)
        try:
            msgspec.convert(value, AttributeValue)
        except msgspec.ValidationError as error:
            message = str(error)
            reason = "too_large" if "length" in message else "wrong_type" if "got `" in message else "out_of_range"
            detail = (
                f"found {found(value, texts=texts)}, expected a number within {MAX_ATTRIBUTE:g}, a text of at most {MAX_ID} "
                f"characters, or a list of at most {MAX_VALUES} such texts"
            )
            raise RecordError("validate", reason, f"{ATTRIBUTES}.{printable(name)}", detail) from None


def printable(name: str) -> str:
    """Return the name of an attribute for people. Nothing in it can control a terminal."""
    return repr(name)[1:-1]


def _value(raw: bytes) -> object:
    try:
        return msgspec.json.decode(raw)
    except msgspec.MsgspecError:
        return Unread(raw[:40].decode() if raw[:1] in b"-0123456789" else "a value")


def _names(text: str) -> list[str]:
    """Return the names of a JSON object's fields; none if the text is not a JSON object."""
    try:
        return list(msgspec.json.decode(text, type=dict[str, msgspec.Raw])) if text else []
    except msgspec.MsgspecError:
        return []
