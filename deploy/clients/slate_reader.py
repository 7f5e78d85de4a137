"""Reads the slates of one user and placement as a consumer does: only from that user's partition, the highest seq counts.

A tombstone says that the user was forgotten: what came before it counts no longer, and seq begins again.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import jsonschema_rs

from deploy.clients.log_reader import KafkaLog, Record
from deploy.clients.murmur2 import murmur2
from deploy.clients.schema import parse, schema
from stream.core.keys import ANYONE, ANYONE_KEY, key_of
from stream.settings import DEFAULT_PLACEMENT, Settings

Slate = dict[str, Any]


class SlateReader:
    """Reads the slates of `user` from the recommendations topic, those of one placement.

    Raises BrokerError, TopologyError, and RecordError if the user has no key in the form of the setting `key`.
    """

    def __init__(self, settings: Settings, user: str, placement: str = DEFAULT_PLACEMENT) -> None:
        self._placement = placement
        self._topic = settings.recommendations_topic
        self._key = ANYONE_KEY if user == ANYONE else key_of(user, settings.key)
        self._validator = jsonschema_rs.validator_for(schema("recommendation"))
        self._log = KafkaLog(settings)
        spans = self._log.spans([self._topic])
        partition = murmur2(self._key) % len(spans)
        self._place = (self._topic, partition)
        self._span = spans[self._place]

    def latest(self) -> Slate | None:
        """Return the slate with the highest seq so far, or the later of two with the same seq; None if there is none."""
        best: Slate | None = None
        for record in self._log.records(self._topic, {self._place: self._span}):
            if self._forgets(record):
                best = None
            slate = self._slate(record)
            if slate is not None and (best is None or slate["seq"] >= best["seq"]):
                best = slate
        return best

    def follow(self, seq: int) -> Iterator[Slate]:
        """Yield slates as they come from now on, but none below `seq` or below one that was yielded before. Never ends."""
        for record in self._log.tail(self._topic, {self._place: self._span.end}):
            if self._forgets(record):
                seq = 0
            slate = self._slate(record)
            if slate is not None and slate["seq"] >= seq:
                seq = slate["seq"]
                yield slate

    def close(self) -> None:
        self._log.close()

    def _forgets(self, record: Record) -> bool:
        """Return whether the user was forgotten here: seq begins again."""
        return record.key == self._key and record.value is None

    def _slate(self, record: Record) -> Slate | None:
        if record.key != self._key or record.value is None:
            return None
        try:
            slate: Slate = parse(record.value)
        except ValueError:
            return None
        # freshet does not write what violates the published schema.
        mine = self._validator.is_valid(slate) and slate.get("placement", DEFAULT_PLACEMENT) == self._placement
        return slate if mine else None
