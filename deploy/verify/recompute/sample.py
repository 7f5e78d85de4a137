"""The records of the sampled users, collected partition by partition."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from hashlib import blake2b
from typing import Any, NamedTuple

import jsonschema_rs

from deploy.clients.envelopes import event_at, find
from deploy.clients.log_reader import Log, Record, Span, TopicPartition
from deploy.clients.schema import parse, schema
from deploy.verify.accepted_settings import Setting
from deploy.verify.fencing import CLAIM, FENCED, FORGED, NOBODYS, Fencing
from deploy.verify.keys import ANYONE_KEY, Keys
from deploy.verify.recompute.events import Event, event_of
from deploy.verify.source_index import SourceIndex
from deploy.verify.source_partition import APPLIED, CONTROL, NONE
from stream.core.errors import StateError
from stream.core.state import Interest, decode
from stream.settings import Settings

Slate = dict[str, Any]
"""A slate's JSON object, as the published schema describes it."""


class StoredRecord(NamedTuple):
    """One record of the changelog, or one slate."""

    offset: int
    value: bytes


@dataclass
class SampledUser:
    """One user of the sample.

    Attributes:
        events: (topic index, offset) -> the applied event.
        states: Records of the changelog that count.
        slates: Records of the recommendations topic.
        controls: (topic index, offset) of the control records that have emptied the state.
        holes: Whether states of the partition are gone from the changelog.
        claims: Offset of a state -> epoch of its writer's claim.
        makers: Offset of a state -> id of the bundle that it is computed again with; "" if there is none.
    """

    key: bytes
    partition: int
    events: dict[tuple[int, int], Event] = field(default_factory=dict)
    states: list[StoredRecord] = field(default_factory=list)
    slates: list[StoredRecord] = field(default_factory=list)
    holes: bool = False
    controls: set[tuple[int, int]] = field(default_factory=set)
    claims: dict[int, int] = field(default_factory=dict)
    makers: dict[int, str] = field(default_factory=dict)


class Sample:
    """Collects the records of the sampled users, and the slates for anyone unknown.

    Args:
        size: Number of users; 0: all users.
        log: Where the records come from.
        settings: Settings of the deployment.

    Attributes:
        users: The sampled users.
        anyone: (partition, slate for anyone unknown).
    """

    def __init__(self, size: int, log: Log, settings: Settings) -> None:
        self._size = size
        self._log = log
        self._settings = settings
        self._keys = Keys(settings.key)
        self.users: list[SampledUser] = []
        self.anyone: list[tuple[int, StoredRecord]] = []

    def collect(
        self,
        source_index: SourceIndex,
        partitions: int,
        changelog: dict[TopicPartition, Span],
        outputs: dict[TopicPartition, Span],
        envelope: Setting[str],
    ) -> None:
        """Read one partition again. partitions: Their number, among which the sample is divided."""
        known = [user.key for user in source_index.users if user.row != NONE]
        if self._size:
            known = sorted(known, key=lambda key: blake2b(key).digest())[: -(-self._size // partitions)]
        users = {key: SampledUser(key, source_index.partition) for key in known}
        self.users += users.values()
        self._collect_slates(source_index.partition, users, outputs)
        if users:
            self._collect_events(source_index, users, envelope)
            self._collect_states(users, changelog)

    def _collect_slates(
        self, partition: int, users: dict[bytes, SampledUser], spans: dict[TopicPartition, Span]
    ) -> None:
        for record in self._log.records(self._settings.recommendations_topic, spans):
            if record.value is not None and (user := users.get(record.key or b"")):
                user.slates.append(StoredRecord(record.offset, record.value))
            elif record.value is not None and record.key == ANYONE_KEY:
                self.anyone.append((partition, StoredRecord(record.offset, record.value)))

    def _collect_events(
        self, source_index: SourceIndex, users: dict[bytes, SampledUser], envelope: Setting[str]
    ) -> None:
        for behaviour, source in enumerate(source_index.sources):
            span = {(source.topic, source_index.partition): Span(source.start, source.end)}
            for record in self._log.records(source.topic, span):
                user = users.get(record.key or b"")
                if user is not None and source.flags[record.offset - source.start] & CONTROL:
                    user.controls.add((behaviour, record.offset))
                elif user is not None and source.state[record.offset - source.start] == APPLIED:
                    user.events[behaviour, record.offset] = _event(behaviour, record, envelope)

    def _collect_states(self, users: dict[bytes, SampledUser], spans: dict[TopicPartition, Span]) -> None:
        fencing = Fencing(self._keys)
        expected = 0
        for record in self._log.records(self._settings.changelog_topic, spans):
            if record.offset != expected:
                for user in users.values():
                    user.holes = True
            expected = record.offset + 1
            if record.key == CLAIM:
                fencing.claim(record)
            elif (
                record.value is not None
                and fencing.check(record) not in (FENCED, FORGED, NOBODYS)
                and (found := users.get(record.key or b""))
            ):
                found.states.append(StoredRecord(record.offset, record.value))
                found.claims[record.offset] = fencing.current


def _event(behaviour: int, record: Record, envelope: Setting[str]) -> Event:
    """Return the event of a record. The record was applied, so it has one."""
    body = parse(record.value or b"")
    found = find(body, envelope.at(behaviour, record.partition, record.offset, record.timestamp))
    return event_of(behaviour, body if isinstance(found, str) else event_at(body, found.path))


def decoded(records: Iterable[StoredRecord]) -> list[tuple[int, Interest]]:
    """Return (offset, state) of the states that can be read. Others are reported by deploy.verify.changelog."""
    found = []
    for record in records:
        try:
            found.append((record.offset, decode(record.value)))
        except StateError:
            continue
    return found


def parsed(records: Iterable[StoredRecord]) -> list[tuple[int, Slate]]:
    """Return (offset, slate) of the slates that fit the schema. Others are reported by deploy.verify.slates."""
    validator = jsonschema_rs.validator_for(schema("recommendation"))
    found = []
    for record in records:
        try:
            slate = parse(record.value)
        except ValueError:
            continue
        if validator.is_valid(slate):
            found.append((record.offset, slate))
    return found
