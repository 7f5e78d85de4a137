"""From raw records to events: checks by the schemas (stream.core.json_body), and by the rules that schemas cannot
express (stream.core.validation)."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Final

from stream.core.envelopes import NONE, UNREAD, looks_like, unwrap
from stream.core.errors import RecordError
from stream.core.forgetting import asks_to_forget
from stream.core.json_body import JsonDecoder, text_of
from stream.core.keys import FORMS, UTF8, mismatch, user_of
from stream.core.messages import CLICK, NAN, RATING, SOURCE_TOPICS, Click, Comment, Rating, SourceEvent
from stream.core.origin import Headers, mark, origin
from stream.core.validation import Rules

_PARTITIONS: Final = 1_000_000  # size at which the key -> partition cache is cleared


class EventDecoder:
    """Turns raw records of the three source topics into events, or reports exactly what is wrong with them.

    Args:
        hash_key: murmur2, as signed or unsigned 32 bits.
        partitions: Number of partitions of the source topics.
        rating_scale: (min, max), both inclusive.
        topics: Names of the source topics, for the header `original-record`.
        oldest: The earliest `time` that is accepted, in epoch ms.
        envelope: The setting `envelope`.
        key: The setting `key`.
    """

    def __init__(
        self,
        hash_key: Callable[[bytes], int],
        partitions: int,
        rating_scale: tuple[float, float],
        topics: Sequence[str] = SOURCE_TOPICS,
        oldest: int = 0,
        envelope: str = NONE,
        key: str = UTF8,
    ) -> None:
        self._envelope = envelope
        self._form = FORMS[key]
        self._key_of = self._form.write
        self._hash_key = hash_key
        self._partitions = partitions
        self._topics = tuple(topics)
        self._rules = Rules(rating_scale, oldest)
        self._partition_of: dict[bytes, int] = {}
        self._click = JsonDecoder(Click)
        self._rating = JsonDecoder(Rating)
        self._comment = JsonDecoder(Comment)

    def partition(self, key: bytes) -> int:
        """Return murmur2(key) mod n: the partition that the Java client and kafka-python choose for a key."""
        found = self._partition_of.get(key)
        if found is None:
            if len(self._partition_of) >= _PARTITIONS:
                self._partition_of.clear()
            found = self._partition_of[key] = (self._hash_key(key) & 0x7FFFFFFF) % self._partitions
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
        """Return the event in one record. Raises RecordError if the record is a dead letter."""
        if key is None:
            raise RecordError("key", "null_key", "user", f"the key is null; expected the user id {self._form.wording}")
        if headers and asks_to_forget(value, headers):
            if user_of(key, self._form.name) is None:
                raise RecordError(
                    "key", "bad_key", "user", f"found {key!r:.80}; expected the user id {self._form.wording}"
                )
            self._check_partition(partition, key)
            return SourceEvent(
                behaviour, partition, offset, append_ms, key, "", append_ms, NAN, "", "", "", b"", headers=headers,
                forget=True,
            )  # fmt: skip
        rating = NAN
        text = action = named = ""
        try:
            body = text_of(value)
            if self._envelope != NONE:
                body, named = unwrap(body, self._envelope)
            if behaviour == CLICK:
                event: Click | Rating | Comment = (click := self._click.read(body))
                action = click.action or ""
            elif behaviour == RATING:
                event = scored = self._rating.read(body)
                rating = self._rules.rating(scored.value)
            else:
                event = comment = self._comment.read(body)
                text = comment.text
                if comment.value is not None:
                    rating = self._rules.rating(comment.value)
        except RecordError as error:
            raise self._explained(error, value, headers) from None
        if self._key_of(event.user) != key:
            raise RecordError("key", "key_mismatch", "user", mismatch(key, event.user, self._form.name))
        self._check_partition(partition, key)
        self._rules.time(event.time, append_ms, f"the append time {append_ms}")
        found = SourceEvent(
            behaviour, partition, offset, append_ms, key, event.item, event.time, rating,
            event.scene or "", text, event.id or named, value or b"", action=action,
        )  # fmt: skip
        if found.id:
            found.mark = mark(found.id, self._topics)
        if headers:
            found.headers = headers
            found.id = found.id or origin(headers, self._topics)
        return found

    def _check_partition(self, partition: int, key: bytes) -> None:
        if self.partition(key) != partition:
            raise RecordError(
                "partition",
                "mispartitioned",
                "user",
                f"on partition {partition}, expected {self.partition(key)} = murmur2(key) mod {self._partitions}; "
                "librdkafka clients: set partitioner=murmur2_random",
            )

    def _explained(self, error: RecordError, value: bytes | None, headers: Headers) -> RecordError:
        """Return the error, with what the value looks like if it is in a form that freshet does not read."""
        if value and error.reason in UNREAD and (form := looks_like(value, self._envelope, headers)):
            return RecordError(error.stage, error.reason, error.field, f"{error}; {form}", error.unit)
        return error
