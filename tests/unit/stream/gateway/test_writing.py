"""Events in a request: which are acceptable, which are written, and what a batch with a bad one answers."""

from __future__ import annotations

import asyncio
import json
from typing import Any, NamedTuple

import msgspec
import pytest
from aiokafka.errors import KafkaTimeoutError

from deploy.clients.murmur2 import murmur2
from stream.core.errors import RecordError
from stream.gateway.events import Acceptance, Writer, item_of, split
from stream.gateway.messages import Refused, Written
from stream.gateway.problems import ProblemError
from stream.settings import load

SETTINGS = load(partitions=4, prefix="t-")
NOW = 1_790_000_000_000  # fixed: test names hold it


def click(user: str = "ann", **more: Any) -> bytes:
    return json.dumps({"type": "click", "user": user, "item": "i", "time": NOW} | more).encode()


def test_one_a_list_and_lines() -> None:
    assert split(click(), False) == ([click()], True)
    assert split(b"[1, " + click() + b"]", False) == ([b"1", click()], False)
    assert split(click() + b"\r\n\n" + click("bob") + b"\n", True) == ([click() + b"\r", click("bob")], False)


@pytest.mark.parametrize(
    ("body", "lines", "status"),
    [(b"", False, 400), (b"[]", False, 400), (b"\n \n", True, 400), (b"[1,", False, 400), (b"\xff", False, 400),
     (b"[" + b"1," * 1000 + b"1]", False, 413), (b"1\n" * 1001, True, 413)],
)  # fmt: skip
def test_a_body_that_is_bad_as_a_whole(body: bytes, lines: bool, status: int) -> None:
    with pytest.raises(ProblemError) as raised:
        split(body, lines)
    assert raised.value.problem.status == status


def test_an_event_goes_to_its_topic_and_partition_without_its_type() -> None:
    acceptance = Acceptance(SETTINGS)
    found = acceptance.accept(click("café").replace(b"}", b', "extra": {"deep": 1.50}}'), NOW)
    assert found.partition == murmur2("café".encode()) % 4
    assert found.key == "café".encode()
    assert json.loads(found.value) == {"user": "café", "item": "i", "time": NOW, "extra": {"deep": 1.5}}
    assert b"1.50" in found.value  # what the producer adds stays as it was written
    rating = b'{"type":"rating","user":"u","item":"i","time":%d,"value":4}' % NOW
    assert acceptance.accept(rating, NOW).behaviour == 1


@pytest.mark.parametrize(
    ("body", "reason", "field"),
    [
        (b"", "empty_value", ""),
        (b"5", "wrong_type", ""),
        (b"{", "malformed_json", ""),
        (b"\xff", "not_utf8", ""),
        (b'{"user":"u"}', "missing_field", "type"),
        (b'{"type":"sing"}', "out_of_range", "type"),
        (b'{"type":{}}', "out_of_range", "type"),
        (click(user=""), "out_of_range", "user"),
        (click(user="*"), "out_of_range", "user"),
        (click(user=5), "wrong_type", "user"),  # type: ignore[arg-type]
        (click(time="now"), "wrong_type", "time"),
        (click(time=NOW + 7_200_000), "far_future", "time"),
        (click(time=NOW // 1000), "far_past", "time"),
        (b'{"type":"rating","user":"u","item":"i","time":1500000000000,"value":9}', "rating_out_of_scale", "value"),
        (b'{"type":"rating","user":"u","item":"i","time":1500000000000}', "missing_field", "value"),
    ],
)
def test_what_would_be_a_dead_letter_is_refused_by_the_same_reason(body: bytes, reason: str, field: str) -> None:
    with pytest.raises(RecordError) as raised:
        Acceptance(SETTINGS).accept(body, NOW)
    assert (raised.value.reason, raised.value.field) == (reason, field)


def test_a_user_without_a_key_in_the_form_of_the_setting_is_refused() -> None:
    with pytest.raises(RecordError, match="whole number"):
        Acceptance(load(key="long")).accept(click("ann"), NOW)


class Metadata(NamedTuple):
    partition: int
    offset: int


class Producer:
    """Acknowledges all but the users in `fails`, and never those in `silent`."""

    def __init__(self) -> None:
        self.sent: list[tuple[str, bytes | None, bytes, int]] = []
        self.fails: set[bytes] = set()
        self.silent: set[bytes] = set()

    async def send(self, topic: str, value: bytes | None, key: bytes, partition: int) -> asyncio.Future[Any]:
        self.sent.append((topic, value, key, partition))
        future = asyncio.get_running_loop().create_future()
        if key in self.fails:
            future.set_exception(KafkaTimeoutError())
        elif key not in self.silent:
            future.set_result(Metadata(partition, len(self.sent) - 1))
        return future


def write(bodies: list[bytes], producer: Producer, limit: float = 1.0) -> list[Written | Refused]:
    async def run() -> list[Written | Refused]:
        writer = Writer(SETTINGS, Acceptance(SETTINGS), lambda item: item != "typo")
        writer._producer = producer
        return await writer.events(bodies, limit)

    return asyncio.run(run())


def test_a_bad_event_is_named_and_the_others_are_written() -> None:
    producer = Producer()
    found = write([click("a"), b"{", click("b"), click("c", time=NOW * 1000)], producer)
    assert [isinstance(one, Written) for one in found] == [True, False, True, False]
    assert [key for _, _, key, _ in producer.sent] == [b"a", b"b"]
    first = found[0]
    assert isinstance(first, Written)
    assert first.min_offset == f"t-clicks/{first.partition}:0"
    bad = found[3]
    assert isinstance(bad, Refused)
    assert (bad.problem.status, bad.problem.field) == (422, "time")


def test_an_event_on_an_unknown_item_is_written_with_a_warning() -> None:
    known, unknown = write([click("a"), click("b", item="typo")], Producer())
    assert isinstance(known, Written)
    assert isinstance(unknown, Written)
    assert known.warning is msgspec.UNSET
    assert unknown.warning == (
        "item 'typo' is in neither the bundle nor the topic items: the event counts, as one on an unknown item"
    )


def test_what_kafka_does_not_acknowledge_says_so() -> None:
    producer = Producer()
    producer.fails, producer.silent = {b"a"}, {b"b"}
    found = write([click("a"), click("b"), click("c")], producer, limit=0.1)
    reported = [one.problem.detail if isinstance(one, Refused) else "" for one in found]
    assert "KafkaTimeoutError" in reported[0]
    assert "may or may not be written: send it again with the same `id`" in reported[1]
    assert reported[2] == ""


def test_an_items_body_is_that_of_the_address() -> None:
    body = b'{"item":"a","title":"A","more":1}'
    assert item_of(body, "a") == body
    for wrong, field in ((body, "item"), (b'{"item":"b"}', "title"), (b"[]", "body"), (b"{", "body")):
        with pytest.raises(ProblemError) as raised:
            item_of(wrong, "b")
        assert (raised.value.problem.status, raised.value.problem.field) == (422, field)
