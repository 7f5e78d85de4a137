"""Envelopes around events, and other forms than plain JSON. Pure.

This module takes an event out of the envelope that the setting `envelope` names. For an unreadable record, it says what
the record looks like, and what to set.

A record without the names of the envelope is taken as it is. So `freshet send` and a producer without an envelope may
write to the same topics.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Final, NamedTuple

import msgspec

from stream.core.errors import RecordError
from stream.core.messages import MAX_ID

NONE: Final = "none"
CONNECT: Final = "connect"
DEBEZIUM: Final = "debezium"
CLOUDEVENTS: Final = "cloudevents"

_NAMES: Final = ("schema", "payload", "op", "before", "after", "source", "specversion", "data", "data_base64", "id")
_READ: Final = msgspec.json.Decoder(
    msgspec.defstruct(
        "Envelope", [(name, msgspec.Raw, msgspec.Raw()) for name in _NAMES]
    )  # () means that the name is absent
)


class Inner(NamedTuple):
    """An event taken out of its envelope.

    Attributes:
        text: The event's JSON.
        id: The id that the envelope gives it, or "".
    """

    text: str
    id: str = ""


def unwrap(text: str, envelope: str) -> Inner:
    """Return the event in a JSON text. A text that is not an envelope, or not a JSON object, is returned as it is.

    Raises RecordError for a deleted row, and for a CloudEvent without JSON data.
    """
    found = _parts(text)
    if found is None:
        return Inner(text)
    if envelope == CLOUDEVENTS:
        return _cloud_event(found, text) if found["specversion"] else Inner(text)
    within = ""
    if found["schema"] and found["payload"]:
        text, within = found["payload"], "payload."
        found = (_parts(text) or {}) if envelope == DEBEZIUM else {}
    if envelope == DEBEZIUM and found.get("op") and (found["before"] or found["after"] or found["source"]):
        if _value(found["op"]) == "d" or found["after"] in ("", "null"):
            message = (
                "the row was deleted: deletes of events cannot be applied, since a state keeps the events that it has applied; "
                "skip them in the connector (skipped.operations=d,t) or leave this dead letter"
            )
            raise RecordError("validate", "deleted", within + "after", message)
        return Inner(found["after"])
    return Inner(text)


def _cloud_event(found: dict[str, str], text: str) -> Inner:
    if not found["data"]:
        message = "missing, expected the event as a JSON object"
        if found["data_base64"]:
            message += " in data, not data_base64: set datacontenttype to application/json"
        raise RecordError("validate", "missing_field", "data", message)
    source, own = _value(found["source"]), _value(found["id"])
    named = f"{source} {own}" if isinstance(source, str) and isinstance(own, str) and source and own else ""
    return Inner(found["data"], named if len(named) <= MAX_ID else "")


def _parts(text: str) -> dict[str, str] | None:
    """Return the unparsed JSON of each envelope name in a JSON object, "" if absent; None if it is not an object."""
    try:
        found = _READ.decode(text)
    except (msgspec.DecodeError, RecursionError):
        return None
    return {name: str(bytes(getattr(found, name)), "utf-8").strip() for name in _NAMES}


def _value(raw: str) -> object:
    try:
        return msgspec.json.decode(raw) if raw else None
    except msgspec.DecodeError:
        return None


# what an unreadable record looks like

UNREAD: Final = {"not_utf8", "malformed_json", "missing_field", "wrong_type"}
"""Reasons for which it is worth finding out what a record looks like."""

_PACKED: Final = {b"\x1f\x8b": "gzip", b"\x28\xb5\x2f\xfd": "zstd", b"\x04\x22\x4d\x18": "lz4", b"\x82SNAPPY": "snappy"}
_XML = re.compile(rb"\s*<[?!A-Za-z]")
_CONTROL = re.compile(rb"[\x00-\x08\x0e-\x1f\x7f-\xff]")
_PLAIN: Final = "freshet reads plain JSON in UTF-8"


def looks_like(value: bytes, envelope: str, headers: Sequence[tuple[str, bytes | None]] = ()) -> str:
    """Return the form of a value that could not be read as an event, and what to set; "" if the form is unknown."""
    if value[:1] == b"\x00" and len(value) > 5 and (schema := int.from_bytes(value[1:5])):
        return (
            f"it looks like Confluent Schema Registry's form (byte 0, then schema id {schema}). {_PLAIN}: give the producer a "
            "plain JSON serializer; in Connect value.converter=org.apache.kafka.connect.json.JsonConverter, "
            "value.converter.schemas.enable=false"
        )
    if value.startswith(b"Obj\x01"):
        return f"it looks like an Avro object container file. {_PLAIN}: write one event per record, as JSON"
    if value.startswith(b"\xc3\x01"):
        return f"it looks like Avro's single-object form. {_PLAIN}: give the producer a JSON serializer"
    for magic, name in _PACKED.items():
        if value.startswith(magic):
            return (
                f"it looks like {name}. {_PLAIN}: do not compress the value; set compression.type={name} in the producer, "
                "and Kafka's clients will compress and decompress"
            )
    if _XML.match(value.removeprefix(b"\xef\xbb\xbf")):
        return f"it looks like XML. {_PLAIN}: convert it before it is sent"
    if form := _json_form(value, envelope):
        return form
    if value[:1] and (0x80 <= value[0] <= 0x8F or value[0] in (0xDE, 0xDF)) and _is_messagepack(value):
        return f"it looks like MessagePack. {_PLAIN}: give the producer a JSON serializer"
    if _is_protobuf(value):
        return f"it may be Protocol Buffers. {_PLAIN}: give the producer a JSON serializer (protobuf's JsonFormat)"
    if any(name.startswith("ce_") for name, _ in headers):
        return (
            "it has the headers ce_... of a CloudEvent in binary mode. The value must be the event itself as JSON: "
            "set datacontenttype to application/json, and give `user`, `item` and `time` in data"
        )
    return ""


def explained_item(error: RecordError, value: bytes) -> RecordError:
    """Return the error of an item. If its value is in an envelope, the error says that items are never unwrapped."""
    if error.reason not in UNREAD or not (form := _json_form(value, "")):
        return error
    kind = form.split(":")[0].removeprefix("it ")
    message = (
        f"{error}; it {kind}, but items are never taken out of an envelope, whatever the setting `envelope` says: send the "
        "item itself"
    )
    return RecordError(error.stage, error.reason, error.field, message, error.unit)


def _json_form(value: bytes, envelope: str) -> str:
    try:
        found = _parts(str(value, "utf-8"))
    except UnicodeDecodeError:
        return ""
    if found is None:
        return ""
    if found["specversion"] and envelope != CLOUDEVENTS:
        return (
            'it looks like a CloudEvent in structured mode: set envelope = "cloudevents" (FRESHET_ENVELOPE), or send in binary '
            "mode with the event as data"
        )
    connect = bool(found["schema"] and found["payload"])
    row = (_parts(found["payload"]) or found) if connect else found
    if row["op"] and (row["before"] or row["after"] or row["source"]) and envelope != DEBEZIUM:
        return (
            'it looks like a change event of Debezium: set envelope = "debezium" (FRESHET_ENVELOPE), or let the connector '
            "send only the row (transforms=unwrap with io.debezium.transforms.ExtractNewRecordState)"
        )
    if connect and envelope not in (CONNECT, DEBEZIUM):
        return (
            "it looks like Kafka Connect's JsonConverter with schemas: set value.converter.schemas.enable=false in the "
            'connector, or envelope = "connect" (FRESHET_ENVELOPE)'
        )
    return ""


def _is_messagepack(value: bytes) -> bool:
    try:
        found = msgspec.msgpack.decode(value)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return False
    return isinstance(found, dict) and bool(found)


FIELDS: Final = 10_000


def _is_protobuf(value: bytes) -> bool:
    """Check whether the whole value reads as fields of the wire format, and is not text."""
    at = fields = 0
    if not _CONTROL.search(value):
        return False
    while at < len(value) and fields < FIELDS:
        tag, at = _varint(value, at)
        kind = tag & 7
        if at < 0 or not 0 < tag >> 3 < 1 << 16 or kind not in (0, 1, 2, 5):
            return False
        if kind == 0:
            _, at = _varint(value, at)
        elif kind == 2:
            size, at = _varint(value, at)
            at = at + size if at >= 0 else at
        else:
            at += 8 if kind == 1 else 4
        if not 0 <= at <= len(value):
            return False
        fields += 1
    return fields >= 2


def _varint(value: bytes, at: int) -> tuple[int, int]:
    """Return (number, where it ends); the end is -1 if there is no number."""
    number = 0
    for index, byte in enumerate(value[at : at + 10]):
        number |= (byte & 0x7F) << (7 * index)
        if byte < 0x80:
            return number, at + index + 1
    return 0, -1
