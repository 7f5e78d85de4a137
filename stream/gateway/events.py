"""Writes events and items to Kafka: checked by the worker's own decoder, on the right partition, with acks=all."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Iterator, Sequence
from typing import Any, Final, NamedTuple

import msgspec
from aiokafka import AIOKafkaProducer
from aiokafka.errors import KafkaError, MessageSizeTooLargeError

from stream.core.decoder import EventDecoder
from stream.core.denials import refusal
from stream.core.envelopes import NONE
from stream.core.errors import RecordError
from stream.core.forgetting import control
from stream.core.json_body import JsonDecoder, text_of
from stream.core.keys import key_of
from stream.core.messages import BEHAVIOURS, Item, SourceEvent
from stream.core.refusals import found, malformed
from stream.core.rules import DECODER, Active, active
from stream.gateway.messages import MOST_EVENTS, Refused, Written
from stream.gateway.min_offset import written
from stream.gateway.problems import Problem, ProblemError, of_record, problem
from stream.kafka.clients import METADATA_MS, consumer_arguments, producer_tasks
from stream.kafka.decoding import decoder_of
from stream.settings import Settings

MAX_REQUEST: Final = 5 << 20
LINGER_MS: Final = 0
TYPE: Final = "type"
NOBODY: Final = b""
BODY: Final = "body"

_FIELDS: Final = msgspec.json.Decoder(dict[str, msgspec.Raw])
_LIST: Final = msgspec.json.Decoder(list[msgspec.Raw])
_ITEM: Final = JsonDecoder(Item)

UNKNOWN_ITEM: Final = (
    "item {item!r} is in neither the bundle nor the topic items: the event counts, as one on an unknown item"
)


class Outgoing(NamedTuple):
    """An event that is acceptable, and where it belongs."""

    behaviour: int
    partition: int
    key: bytes
    value: bytes
    event: SourceEvent


def split(body: bytes, lines: bool) -> tuple[list[bytes], bool]:
    """Return the events in a body, and whether it is a single one.

    Args:
        body: An event, a list of events, or one event a line.
        lines: Whether it is lines.
    Raises:
        ProblemError: The body is malformed as a whole, or has too many events or none.
    """
    if lines:
        events = [line for line in body.split(b"\n") if line.strip()]
        single = False
    else:
        try:
            text = text_of(body)
        except RecordError as error:
            raise ProblemError("bad-request", f"the body: {error}") from None
        single = not text.lstrip().startswith("[")
        if single:
            return [body], True
        try:
            events = [bytes(one) for one in _LIST.decode(text)]
        except msgspec.DecodeError as error:
            raise ProblemError("bad-request", f"the body: {malformed(text, str(error))}") from None
    if not events:
        raise ProblemError("invalid", "found no event, expected at least one")
    if len(events) > MOST_EVENTS:
        raise ProblemError("too-large", f"found {len(events)} events, expected at most {MOST_EVENTS} in one request")
    return events, single


class Acceptance:
    """Decides as a worker does whether an event is acceptable.

    Args:
        settings: The workers' settings. Events come without an envelope.
    """

    def __init__(self, settings: Settings) -> None:
        self._decoder: EventDecoder = decoder_of(settings.model_copy(update={"envelope": NONE}))
        self._key = settings.key

    def partition(self, key: bytes) -> int:
        """Return the partition of a key."""
        return self._decoder.partition(key)

    def accept(self, body: bytes, now: int) -> Outgoing:
        """Return an event as it is to be written: without its `type`, which the topic says.

        Args:
            body: One event.
            now: Epoch ms.
        Raises:
            RecordError: The worker would make it a dead letter.
        """
        text = text_of(body)
        try:
            fields = _FIELDS.decode(text)
        except msgspec.ValidationError:
            raise RecordError("validate", "wrong_type", "", "expected a JSON object") from None
        except msgspec.DecodeError as error:
            raise RecordError("decode", "malformed_json", "", malformed(text, str(error))) from None
        behaviour = _behaviour(fields.pop(TYPE, None))
        value = msgspec.json.encode(fields)
        user = _plain(fields.get("user"))
        key = key_of(user, self._key) if isinstance(user, str) else NOBODY
        partition = self._decoder.partition(key)
        event = self._decoder.decode(behaviour, partition, 0, now, key, value)
        return Outgoing(behaviour, partition, key, value, event)


def _behaviour(raw: msgspec.Raw | None) -> int:
    names = ", ".join(BEHAVIOURS)
    if raw is None:
        raise RecordError("validate", "missing_field", TYPE, f"`{TYPE}` is missing; expected one of {names}")
    behaviour_name = _plain(raw)
    if behaviour_name not in BEHAVIOURS:
        raise RecordError("validate", "out_of_range", TYPE, f"found {found(behaviour_name)}, expected one of {names}")
    return BEHAVIOURS.index(behaviour_name)


def _plain(raw: msgspec.Raw | None) -> Any:
    try:
        return None if raw is None else msgspec.json.decode(raw)
    except msgspec.MsgspecError:  # a number that no type can hold
        return None


class Writer:
    """Writes what was accepted.

    Args:
        settings: The settings.
        acceptance: Decides about events.
        known: Returns whether an item is known. An event on another one is written with a warning.
    """

    def __init__(
        self, settings: Settings, acceptance: Acceptance, known: Callable[[str], bool] = lambda item: True
    ) -> None:
        self._settings = settings
        self._acceptance = acceptance
        self._known = known
        self._producer: Any = None

    async def start(self) -> None:
        """Connect. Raises KafkaError."""
        self._producer = AIOKafkaProducer(
            **consumer_arguments(self._settings),
            client_id=f"{self._settings.app_id}-gateway",
            acks="all",
            enable_idempotence=True,
            linger_ms=LINGER_MS,
            max_request_size=MAX_REQUEST,
            metadata_max_age_ms=METADATA_MS,
        )
        await self._producer.start()

    def tasks(self) -> Iterator[tuple[str, asyncio.Future[Any] | None]]:
        """Yield the tasks that must not end on their own."""
        yield from producer_tasks("the producer", self._producer)

    async def stop(self) -> None:
        """Wait for what was sent, then close. May be called twice."""
        if self._producer is not None:
            producer, self._producer = self._producer, None
            await producer.stop()

    async def events(self, bodies: Sequence[bytes], limit: float) -> list[Written | Refused]:
        """Write the acceptable ones of some events, and return in their order what became of each.

        Args:
            bodies: The events.
            limit: Seconds for all acknowledgements.
        """
        now = int(time.time() * 1000)
        results: list[Written | Refused | None] = [None] * len(bodies)
        sent: list[tuple[int, str, asyncio.Future[Any]]] = []
        unknown: dict[int, str] = {}
        try:
            async with asyncio.timeout(limit):
                for index, body in enumerate(bodies):
                    try:
                        one = self._acceptance.accept(body, now)
                    except RecordError as error:
                        results[index] = Refused(of_record(error))
                        continue
                    topic = self._settings.sources[one.behaviour]
                    try:
                        future = await self._producer.send(topic, one.value, one.key, one.partition)
                    except KafkaError as error:
                        results[index] = Refused(_unsent(error, topic))
                        continue
                    sent.append((index, topic, future))
                    if not self._known(one.event.item):
                        unknown[index] = one.event.item
                if sent:
                    await asyncio.wait([future for _, _, future in sent])
        except TimeoutError:
            pass
        for index, topic, future in sent:
            result = results[index] = _result(topic, future, limit)
            if isinstance(result, Written) and index in unknown:
                results[index] = msgspec.structs.replace(result, warning=UNKNOWN_ITEM.format(item=unknown[index]))
        late = Refused(problem("broker", f"it was not sent within {limit:g} s"))
        return [one if one is not None else late for one in results]

    async def forget(self, key: bytes, partition: int, limit: float) -> list[Written]:
        """Write a control record for a user into each source topic. Raises ProblemError if one is not acknowledged."""
        futures: dict[str, asyncio.Future[Any]] = {}
        try:
            async with asyncio.timeout(limit):
                for topic in self._settings.sources:
                    futures[topic] = await self._producer.send(topic, None, key, partition, headers=control("api"))
                await asyncio.wait(futures.values())
        except TimeoutError:
            raise ProblemError("broker", _unknown(limit)) from None
        except KafkaError as error:
            raise ProblemError("broker", _unsent(error, self._settings.sources[len(futures)]).detail) from None
        written = [_result(topic, future, limit) for topic, future in futures.items()]
        for one in written:
            if isinstance(one, Refused):
                raise ProblemError("broker", one.problem.detail)
        return [one for one in written if isinstance(one, Written)]

    async def item(self, item: str, value: bytes | None, limit: float) -> Written:
        """Write an item's record; None removes the item. Raises ProblemError if it is not acknowledged."""
        return await self._record(self._settings.items_topic, item, value, limit)

    async def rule(self, rule: str, value: bytes | None, limit: float) -> Written:
        """Write a rule's record; None deletes the rule. Raises ProblemError if it is not acknowledged."""
        return await self._record(self._settings.rules_topic, rule, value, limit)

    async def _record(self, topic: str, key: str, value: bytes | None, limit: float) -> Written:
        try:
            async with asyncio.timeout(limit):
                future = await self._producer.send(topic, value, key.encode(), 0)
                await asyncio.wait([future])
        except TimeoutError:
            raise ProblemError("broker", _unknown(limit)) from None
        except KafkaError as error:
            raise ProblemError("broker", _unsent(error, topic).detail) from None
        found = _result(topic, future, limit)
        if isinstance(found, Refused):
            raise ProblemError("broker", found.problem.detail)
        return found


def item_of(body: bytes, item: str) -> bytes:
    """Return the value of an item's record. Raises ProblemError if the body is not that item."""
    try:
        message = _ITEM.decode(body)
    except RecordError as error:
        raise _not_accepted(error) from None
    if message.item != item:
        raise ProblemError("not-accepted", "the body's item is not the one in the address", field="item")
    return body


def rule_of(body: bytes, rule: str, form: str) -> Active:
    """Return the rule in a body. Raises ProblemError if it is not acceptable, or not the rule `rule`."""
    try:
        message = DECODER.decode(body)
        if message.rule != rule:
            raise ProblemError("not-accepted", "the body's rule is not the one in the address", field="rule")
        return active(message, form)
    except RecordError as error:
        raise _not_accepted(error) from None


def _not_accepted(error: RecordError) -> ProblemError:
    """Return the problem of an item or a rule. Its field is BODY if the body as a whole is not one."""
    return ProblemError("not-accepted", str(error), field=error.field or BODY, reason=error.reason)


def _result(topic: str, future: asyncio.Future[Any], limit: float) -> Written | Refused:
    if not future.done():
        return Refused(problem("broker", _unknown(limit)))
    if future.cancelled():
        return Refused(problem("broker", _unknown(limit)))
    if (error := future.exception()) is not None:
        return Refused(_unsent(error, topic))
    metadata = future.result()
    if metadata.offset < 0:  # a repeated batch: the broker has it and does not say where
        return Refused(problem("broker", "it is written, but the broker did not report its offset"))
    return Written(topic, metadata.partition, metadata.offset, written(topic, metadata.partition, metadata.offset))


def _unknown(limit: float) -> str:
    return (
        f"Kafka did not acknowledge it within {limit:g} s, so it may or may not be written: send it again with the same `id`, "
        "and it counts once"
    )


def _unsent(error: BaseException, topic: str) -> Problem:
    if isinstance(error, MessageSizeTooLargeError):
        return problem("too-large", f"it is too large for the topic {topic}")
    refused = refusal(error, topic, "Write")
    return problem(
        "broker", str(refused) if refused else f"Kafka did not accept it: {type(error).__name__}; send it again"
    )
