"""Decides whether a source record is acceptable, by the published JSON Schemas and the rules that they cannot express.

Those rules are:

- The value is UTF-8 JSON (RFC 8259: no NaN, no byte order mark, no lone surrogate) of at most 32 nested arrays and objects.
- The key is the body's user in the form of the setting `key`, and places the record on its partition by murmur2.
- A rating lies on the scale.
- `time` is at most one hour after the append time, and not before the setting `min_time`.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any, NamedTuple

import jsonschema_rs

from deploy.clients.envelopes import event_at, find
from deploy.clients.murmur2 import murmur2
from deploy.clients.schema import parse, schema
from deploy.verify.accepted_settings import Setting
from deploy.verify.keys import Keys

BEHAVIOURS = ("click", "rating", "comment")
CLICK = 0
HOUR_MS = 3_600_000
CONTROL, FORGET = "freshet-control", b"forget"
"""Header of a control record, and its value."""

_KEYS = 100_000  # keys whose partition is remembered: computing it takes 3 us


class Accepted(NamedTuple):
    """An acceptable event.

    Attributes:
        user: The record's key.
        item: The item's id.
        time: Epoch ms.
        id: The event's id; "" if the producer gave none.
        scene: The scene; "" if the producer gave none.
        value: The rating; NaN without one.
        action: A click's action; "" for none.
    """

    user: bytes
    item: str
    time: int
    id: str
    scene: str = ""
    value: float = math.nan
    action: str = ""


class ForgetRequest(NamedTuple):
    """An acceptable control record, which asks for the user of its key to be forgotten."""

    user: bytes


class Misplaced(str):
    """Why a record is not acceptable, if only its partition is wrong: it may have been forwarded."""

    __slots__ = ()


class Validator:
    """Judges records of the three source topics.

    Args:
        partitions: Number of partitions of each topic.
        rating_scale: (min, max), inclusive; a Setting if it has changed along the log.
        oldest: Epoch ms, an earlier `time` is not accepted; a Setting if it has changed along the log.
        envelope: The setting `envelope`; a Setting if it has changed along the log.
        key: The setting `key`.
    """

    def __init__(
        self,
        partitions: int,
        rating_scale: tuple[float, float] | Setting[tuple[float, float]],
        oldest: int | Setting[int] = 0,
        envelope: str | Setting[str] = "none",
        key: str = "utf8",
    ) -> None:
        self.keys = Keys(key)
        self._envelope = envelope if isinstance(envelope, Setting) else Setting(envelope)
        self._partitions = partitions
        self._scale = rating_scale if isinstance(rating_scale, Setting) else Setting(rating_scale)
        self._oldest = oldest if isinstance(oldest, Setting) else Setting(oldest)
        self._partition_of: dict[bytes, int] = {}
        self._validators = [jsonschema_rs.validator_for(schema(name)) for name in BEHAVIOURS]

    def validate(
        self,
        behaviour: int,
        partition: int,
        append_ms: int,
        key: bytes | None,
        value: bytes | None,
        offset: int = 0,
        headers: Sequence[tuple[str, bytes | None]] = (),
    ) -> Accepted | ForgetRequest | str:
        """Judge one record. Return its event, or why it is not acceptable. offset: Needed if settings have changed."""
        if key is None:
            return "null key"
        if not value and any(name == CONTROL and content == FORGET for name, content in headers):
            return self._misplaced(key, partition) or (
                ForgetRequest(key) if self.keys.user(key) is not None else "no user has the key"
            )
        if not value:
            return "no value"
        try:
            body = parse(value)
        except ValueError as error:
            return f"not JSON: {error}"
        found = find(body, self._envelope.at(behaviour, partition, offset, append_ms))
        if isinstance(found, str):
            return found
        body = event_at(body, found.path)
        if not self._validators[behaviour].is_valid(body):
            return "it violates the schema: " + self._first_error(behaviour, body)
        if self.keys.of(body["user"]) != key:
            return "the key is not the body's user"
        if misplaced := self._misplaced(key, partition):
            return misplaced
        rating = body.get("value") if behaviour else None
        low, high = self._scale.at(behaviour, partition, offset, append_ms)
        if rating is not None and not low <= rating <= high:
            return f"rating {rating} is not on the scale from {low:g} to {high:g}"
        if body["time"] > append_ms + HOUR_MS:
            return "its time is more than an hour in the future"
        oldest = self._oldest.at(behaviour, partition, offset, append_ms)
        if body["time"] < oldest:
            return f"time {body['time']} is before {oldest} (min_time)"
        given = math.nan if rating is None else float(rating)
        action = (body.get("action") or "") if behaviour == CLICK else ""
        identity, scene = body.get("id") or found.id, body.get("scene") or ""
        return Accepted(key, body["item"], int(body["time"]), identity, scene, given, action)

    def _misplaced(self, key: bytes, partition: int) -> str:
        if (belongs := self._partition(key)) != partition:
            return Misplaced(f"it is on partition {partition}, but its key belongs on {belongs}")
        return ""

    def _partition(self, key: bytes) -> int:
        found = self._partition_of.get(key)
        if found is None:
            if len(self._partition_of) >= _KEYS:
                self._partition_of.clear()
            found = self._partition_of[key] = murmur2(key) % self._partitions
        return found

    def _first_error(self, behaviour: int, body: Any) -> str:
        error = next(iter(self._validators[behaviour].iter_errors(body)), None)
        return f"{list(error.instance_path)}: {error.message[:100]}" if error else "?"
