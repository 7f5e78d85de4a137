"""Reading dead letters, and putting them back on their source topic once they can be taken."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, NamedTuple

from deploy.producer import Sent
from deploy.verify.letters import HEADER, headers
from deploy.verify.log import KafkaLog
from stream.errors import DataError
from stream.settings import Settings

REPLAY_HEADER = "replay"
"""Put on records that were sent back; its value says where the dead letter lay: topic/partition/offset."""

FIELDS = ("topic", "partition", "offset", "stage", "reason", "field", "message", "failed.at", "truncated")


@dataclass(frozen=True)
class Letter:
    """One dead letter. place: where it lies in the dead-letters topic; said: FIELDS of its headers; rest: its other
    headers, as they were received."""

    place: Sent
    key: bytes | None
    value: bytes | None
    said: dict[str, str]
    rest: tuple[tuple[str, bytes], ...]

    @property
    def source(self) -> tuple[str, str, str]:
        """(topic, partition, offset) of the record that could not be taken, as text."""
        return self.said["topic"], self.said["partition"], self.said["offset"]

    def as_dict(self) -> dict[str, Any]:
        """As JSON types; bytes that are not UTF-8 are shown with replacement characters."""
        return {
            "letter": list(self.place),
            **self.said,
            "key": None if self.key is None else self.key.decode(errors="replace"),
            "value": None if self.value is None else self.value.decode(errors="replace"),
        }


@dataclass(frozen=True)
class Correction:
    """What to send instead; None leaves the part as it is."""

    key: bytes | None = None
    value: bytes | None = None


def read(settings: Settings) -> Iterator[Letter]:
    """All dead letters, partition by partition in order. Raises BrokerError, TopologyError."""
    log = KafkaLog(settings)
    topic = settings.dead_letters_topic
    try:
        spans = log.spans([topic])
        for place in sorted(spans):
            for record in log.records(topic, {place: spans[place]}):
                named = headers(record)
                yield Letter(
                    Sent(topic, record.partition, record.offset),
                    record.key,
                    record.value,
                    {field: named.get(HEADER + field, "") for field in FIELDS},
                    tuple((name, value) for name, value in record.headers if not name.startswith(HEADER)),
                )
    finally:
        log.close()


class Outgoing(NamedTuple):
    """What goes back to the source topic."""

    topic: str
    key: bytes | None
    value: bytes | None
    headers: list[tuple[str, bytes]]


def outgoing(settings: Settings, letter: Letter, correction: Correction | None = None) -> Outgoing:
    """A letter as it is to be sent to its source topic, by its key.

    Raises DataError where its value was truncated and no other is given, where it came from no topic of ours, or where
    it has neither key nor value.
    """
    topic = letter.said["topic"]
    correction = correction or Correction()
    if topic not in (*settings.sources, settings.items_topic):
        raise DataError(f"dead letter {name(letter.place)} says it came from {topic!r}, which is none of our topics")
    if letter.said["truncated"] == "true" and correction.value is None:
        raise DataError(f"dead letter {name(letter.place)} was truncated: give the whole value to send")
    key = letter.key if correction.key is None else correction.key
    value = letter.value if correction.value is None else correction.value
    kept = [header for header in letter.rest if header[0] != REPLAY_HEADER]
    if key is None and value is None:
        raise DataError(f"dead letter {name(letter.place)} has neither key nor value: correct it, or leave it out")
    return Outgoing(topic, key, value, [*kept, (REPLAY_HEADER, name(letter.place).encode())])


def name(place: Sent) -> str:
    return "/".join(map(str, place))
