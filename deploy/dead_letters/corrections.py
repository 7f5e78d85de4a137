"""Correct dead letters: what is still wrong with a record, edits that apply to many, and the file that people edit."""

from __future__ import annotations

import base64
import binascii
import json
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import jsonschema_rs

from deploy.clients.envelopes import event_at, find, replaced
from deploy.clients.schema import parse, schema
from deploy.clients.type_names import type_name
from deploy.dead_letters.reader import DeadLetter, Source
from stream.core.envelopes import looks_like
from stream.core.errors import DataError, RecordError
from stream.core.keys import FORMS
from stream.core.messages import BEHAVIOURS
from stream.core.refusals import found as found_words
from stream.core.refusals import time_advice
from stream.kafka.decoding import decoder_of
from stream.settings import Settings

MAX_RECORD = (4 << 20) - (64 << 10)  # bytes of key, value and headers; topics allow 4 MiB with Kafka's overhead


class Problem(NamedTuple):
    """One problem of a record. field: "" if the problem concerns the whole value."""

    field: str
    message: str

    def __str__(self) -> str:
        return f"{self.field}: {self.message}" if self.field else self.message


@dataclass(frozen=True)
class Correction:
    """The key and value to send instead. None leaves the part unchanged."""

    key: bytes | None = None
    value: bytes | None = None


class Acceptance:
    """Checks whether the worker would accept a record: by the published schemas, then by rules they cannot express."""

    def __init__(self, settings: Settings) -> None:
        self._topics = settings.sources
        self._envelope = settings.envelope
        self._validators = [jsonschema_rs.validator_for(schema(name)) for name in BEHAVIOURS]
        self._decoder = decoder_of(settings)
        self._form = FORMS[settings.key]

    def key_of(self, user: str) -> bytes | None:
        """Return the key of a user's records, or None if the form of the setting `key` has none for this id."""
        return self._form.write(user.encode("utf-8", "replace").decode())

    def problems(self, topic: str, key: bytes | None, value: bytes | None, after_ms: int = 0) -> list[Problem]:
        """Return everything that is wrong with a record sent to `topic` now. Empty if the worker would accept it.

        after_ms: a time (epoch ms) that the broker has already passed, regardless of this machine's clock.
        """
        if topic not in self._topics:
            return [Problem("", f"it came from {topic[:100]!r}, which is not a source topic")]
        behaviour = self._topics.index(topic)
        found = self._against_schema(behaviour, value) if value else []
        if found and value and (message := looks_like(value, self._envelope)):
            found.insert(0, Problem("", message))
        if not found:
            partition = self._decoder.partition(key) if key is not None else 0
            try:
                self._decoder.decode(behaviour, partition, 0, max(int(time.time() * 1000), after_ms), key, value)
            except RecordError as error:
                found.append(Problem(error.field, str(error)))
        if len(key or b"") + len(value or b"") > MAX_RECORD:
            found.append(Problem("", f"more than {MAX_RECORD:,} bytes"))
        return found

    def _against_schema(self, behaviour: int, value: bytes) -> list[Problem]:
        try:
            body = parse(value)
        except ValueError:
            return []  # the decoder reports it more precisely
        path = self.path(body)
        if path is None:
            return []
        body = event_at(body, path)
        return [
            self._problem(self._topics[behaviour], error) for error in self._validators[behaviour].iter_errors(body)
        ]

    def path(self, value: Any) -> tuple[str, ...] | None:
        """Return the field names that lead from a parsed value to the event in its envelope; None without an event."""
        found = find(value, self._envelope)
        return None if isinstance(found, str) else found.path

    def _problem(self, topic: str, error: Any) -> Problem:
        absent = isinstance(error.kind, jsonschema_rs.ValidationErrorKind.Required)
        field = str(error.kind.property if absent else next(iter(error.instance_path), ""))
        expected = self.expected(topic, field)
        if not expected:
            return Problem(field, "expected a JSON object" if not field else "does not match the schema")
        if absent:
            return Problem(field, f"missing, expected {expected}")
        advice = time_advice(error.instance) if field == "time" else ""
        return Problem(
            field, f"found {found_words(error.instance)}, expected {expected}" + (f"; {advice}" if advice else "")
        )

    def expected(self, topic: str, field: str) -> str:
        """Return what a field of this topic's messages must be, in words; "" for an unknown field."""
        found = self._properties(topic).get(field)
        if found is None:
            return ""
        needed = field in _definition(BEHAVIOURS[self._topics.index(topic)])["required"]
        description = next((one["description"] for one in (found, *found.get("anyOf", ())) if "description" in one), "")
        return type_name(found) + ("" if needed else ", optional") + (f"; {description}" if description else "")

    def is_text(self, topic: str, field: str) -> bool:
        """Return whether a field holds text, so that `42` means the text "42"."""
        found = self._properties(topic).get(field, {})
        return any(one.get("type") == "string" for one in (found, *found.get("anyOf", ())))

    def _properties(self, topic: str) -> dict[str, Any]:
        if topic not in self._topics:
            return {}
        properties: dict[str, Any] = _definition(BEHAVIOURS[self._topics.index(topic)])["properties"]
        return properties


@dataclass(frozen=True)
class Edits:
    """Simple edits that apply to every dead letter of a choice, in this order.

    Attributes:
        rename: (old, new) names of fields. An existing field `new` is overwritten, as with `mv`.
        remove: Names of fields to drop.
        assign: (name, text). The text is parsed as JSON unless the field holds text by the schema.
        key_from_user: Use the key of the body's `user`, if there is one.
    """

    rename: Sequence[tuple[str, str]] = ()
    remove: Sequence[str] = ()
    assign: Sequence[tuple[str, str]] = ()
    key_from_user: bool = False

    def __bool__(self) -> bool:
        return bool(self.rename or self.remove or self.assign or self.key_from_user)

    def apply(self, acceptance: Acceptance, topic: str, key: bytes | None, value: Any) -> tuple[bytes | None, Any]:
        """Return key and value after the edits, which apply to the event in its envelope.

        An event that is not a JSON object stays unchanged.
        """
        path = acceptance.path(value)
        if path is None or not isinstance(event := event_at(value, path), dict):
            return key, value
        body = dict(event)
        for old, new in self.rename:
            if old in body:
                body[new] = body.pop(old)
        for name in self.remove:
            body.pop(name, None)
        for name, text in self.assign:
            body[name] = text if acceptance.is_text(topic, name) else _json_or_text(text)
        if self.key_from_user and isinstance(body.get("user"), str):
            key = acceptance.key_of(body["user"]) or key
        return key, replaced(value, path, body)


def line(acceptance: Acceptance, dead_letter: DeadLetter, edits: Edits) -> dict[str, Any]:
    """Return one line of the file: the dead letter's source, why it failed, what is still wrong, key and value to edit."""
    topic, partition, offset = dead_letter.source
    key, value = edits.apply(acceptance, topic, dead_letter.key, _editable(dead_letter.value))
    record = {"key": as_text(key), "value": value}
    wrong = acceptance.problems(topic, key, as_bytes(value))
    if dead_letter.fields["truncated"] == "true":
        wrong.insert(0, Problem("", "truncated: provide the whole value"))
    return {
        "topic": topic,
        "partition": int(partition) if partition.isascii() and partition.isdecimal() else partition,
        "offset": int(offset) if offset.isascii() and offset.isdecimal() else offset,
        "reason": dead_letter.fields["reason"],
        "wrong": [str(problem) for problem in wrong],
        **record,
    }


def read(file: Path) -> dict[Source, Correction]:
    """Return the corrections in a JSONL file, by source. Raises DataError that names the first invalid line."""
    return dict(_rows(file))


def still_wrong(acceptance: Acceptance, file: Path) -> Iterator[tuple[Source, list[Problem]]]:
    """Yield the source of every line of an edited file, with what is wrong in it."""
    for source, correction in _rows(file):
        yield source, acceptance.problems(source[0], correction.key, correction.value)


def _rows(file: Path) -> Iterator[tuple[Source, Correction]]:
    try:
        with file.open("rb") as lines:
            for number, raw in enumerate(lines, start=1):
                if not raw.strip():
                    continue
                try:
                    row = _parsed(file, number, raw)
                    source = (str(row["topic"]), str(row["partition"]), str(row["offset"]))
                    yield source, Correction(as_bytes(row.get("key")), as_bytes(row.get("value")))
                except (ValueError, KeyError, TypeError, AttributeError, RecursionError):
                    raise DataError(
                        f"{file}, line {number}: expected {{topic, partition, offset, key?, value?}}"
                    ) from None
    except OSError as error:
        raise DataError(f"{file} cannot be read: {error}") from None


def _parsed(file: Path, number: int, raw: bytes) -> Any:
    """Parse a line. Raises DataError that shows where the JSON is malformed, ValueError if it is not UTF-8."""
    try:
        return json.loads(raw.decode("utf-8-sig" if number == 1 else "utf-8"))
    except json.JSONDecodeError as error:
        raise DataError(
            f"{file}, line {number}: the JSON is malformed at character {error.colno}: {error.msg}; expected one object per "
            "line, {topic, partition, offset, key?, value?}"
        ) from None


def corrected(dead_letter: DeadLetter, correction: Correction | None) -> tuple[bytes | None, bytes | None]:
    """Return key and value to send. A value that equals the dead letter's as JSON is sent as received, byte for byte."""
    if correction is None:
        return dead_letter.key, dead_letter.value
    key = dead_letter.key if correction.key is None else correction.key
    value = correction.value
    if value is None or value == as_bytes(_editable(dead_letter.value)):
        value = dead_letter.value
    return key, value


def as_bytes(part: Any) -> bytes | None:
    """Convert a key or value of the file to bytes: text as it is, {"base64": ...} decoded, anything else as JSON."""
    if part is None:
        return None
    if isinstance(part, str):
        return part.encode()
    if isinstance(part, dict) and part.keys() == {"base64"} and isinstance(part["base64"], str):
        try:
            return base64.b64decode(part["base64"], validate=True)
        except binascii.Error as error:
            raise ValueError(str(error)) from None
    return json.dumps(part, ensure_ascii=False).encode()


def _editable(value: bytes | None) -> Any:
    """Convert a value to what the file contains: an object if it is one, else text, else base64."""
    if value is None:
        return None
    try:
        body = parse(value)
        if isinstance(body, dict):
            json.dumps(body, allow_nan=False)
            return body
    except ValueError:
        pass
    return as_text(value)


def as_text(part: bytes | None) -> Any:
    if part is None:
        return None
    try:
        return part.decode()
    except UnicodeDecodeError:
        return {"base64": base64.b64encode(part).decode()}


def _json_or_text(text: str) -> Any:
    try:
        return json.loads(text)
    except ValueError:
        return text


def _definition(name: str) -> dict[str, Any]:
    definition: dict[str, Any] = schema(name)["$defs"][name.capitalize()]
    return definition
