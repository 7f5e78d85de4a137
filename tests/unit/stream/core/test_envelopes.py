"""Envelopes: an event is taken out of what the setting names, by the worker and by `freshet verify` alike; a record in another
form than is read becomes a dead letter that says which form, and what to set."""

from __future__ import annotations

import gzip
import json
import random
from pathlib import Path
from typing import Any

import msgspec
import pytest
from aiokafka.partitioner import murmur2 as kafka_hash

from deploy.clients.murmur2 import murmur2
from deploy.dead_letters import corrections
from deploy.dead_letters.corrections import Acceptance, Correction, Edits
from deploy.dead_letters.reader import Choice, DeadLetter, DeadLetterReader
from deploy.dead_letters.redrive import Redrive, Status
from deploy.verify import Scope, check
from deploy.verify.validator import Accepted, ForgetRequest, Validator
from stream.core.decoder import EventDecoder
from stream.core.errors import DataError, RecordError
from stream.core.messages import CLICK, MAX_DEPTH, SourceEvent
from stream.pipeline.dead_letter import DeadLetters
from stream.settings import load
from tests.unit.synthetic import NOW, Lists

EVENT = {"user": "u1", "item": "i1", "time": NOW}
SCALE = (0.5, 5.0)
SOURCE = {"connector": "postgresql", "table": "clicks"}
ENVELOPES = ("none", "connect", "debezium", "cloudevents")
SCHEMA = {"type": "struct", "fields": [{"field": "user", "type": "string"}]}


def packed(body: Any) -> bytes:
    return json.dumps(body).encode()


def connect(payload: Any) -> dict[str, Any]:
    return {"schema": SCHEMA, "payload": payload}


def change(after: Any, op: str = "c") -> dict[str, Any]:
    return {"before": None, "after": after, "source": SOURCE, "op": op, "ts_ms": 5}


def cloud(data: Any, **more: Any) -> dict[str, Any]:
    return {"specversion": "1.0", "id": "7", "source": "/shop", "type": "click", "data": data} | more


DECODERS = {envelope: EventDecoder(kafka_hash, 1, SCALE, envelope=envelope) for envelope in ENVELOPES}
VALIDATORS = {envelope: Validator(1, SCALE, envelope=envelope) for envelope in ENVELOPES}


def decode(value: bytes, envelope: str, key: bytes = b"u1", headers: Any = ()) -> SourceEvent:
    return DECODERS[envelope].decode(CLICK, 0, 3, NOW, key, value, headers)


def refused(value: bytes, envelope: str, key: bytes = b"u1", headers: Any = ()) -> RecordError:
    with pytest.raises(RecordError) as error:
        decode(value, envelope, key, headers)
    return error.value


def judged(value: bytes, envelope: str) -> Accepted | ForgetRequest | str:
    return VALIDATORS[envelope].validate(CLICK, 0, NOW, b"u1", value)


# taken out


@pytest.mark.parametrize(
    ("envelope", "body", "id_"),
    [
        ("connect", connect(EVENT), ""),
        ("connect", connect(EVENT | {"id": "e"}), "e"),
        ("connect", EVENT, ""),  # without the envelope, as `freshet send` sends it
        ("connect", EVENT | {"payload": 1}, ""),
        ("debezium", change(EVENT), ""),
        ("debezium", change(EVENT, "u"), ""),
        ("debezium", change(EVENT, "r"), ""),
        ("debezium", connect(change(EVENT | {"id": "e"})), "e"),
        ("debezium", connect(EVENT), ""),  # of ExtractNewRecordState
        ("debezium", EVENT | {"op": "d"}, ""),
        ("cloudevents", cloud(EVENT), "/shop 7"),
        ("cloudevents", cloud(EVENT | {"id": "e"}), "e"),
        ("cloudevents", cloud(EVENT | {"id": None}), "/shop 7"),
        ("cloudevents", cloud(EVENT, id="x" * 256), ""),  # longer than an id may be
        ("cloudevents", cloud(EVENT, id=7), ""),
        ("cloudevents", cloud(EVENT, source=""), ""),
        ("cloudevents", EVENT, ""),  # binary mode
        ("none", EVENT | {"payload": 1, "schema": 2, "op": "d", "source": 3, "specversion": "1.0"}, ""),
    ],
)
def test_an_event_is_taken_out_of_its_envelope(envelope: str, body: Any, id_: str) -> None:
    value = packed(body)
    event = decode(value, envelope)
    assert (event.user, event.item, event.time, event.id, event.payload) == (b"u1", "i1", NOW, id_, value)
    assert judged(value, envelope) == pytest.approx(Accepted(b"u1", "i1", NOW, id_), nan_ok=True)


@pytest.mark.parametrize(
    ("envelope", "body", "expected", "part"),
    [
        ("debezium", change(None, "d"), ("validate", "deleted", "after"), "deletes of events cannot be applied"),
        ("debezium", connect(change(None, "d")), ("validate", "deleted", "payload.after"), "deletes of events cannot"),
        ("debezium", change(EVENT, "d"), ("validate", "deleted", "after"), "deletes of events cannot be applied"),
        ("debezium", change(None, "u"), ("validate", "deleted", "after"), "deletes of events cannot be applied"),
        ("debezium", {"op": "t", "source": SOURCE}, ("validate", "deleted", "after"), "deletes of events cannot"),
        ("connect", connect(None), ("validate", "wrong_type", ""), "null"),
        ("connect", connect({"user": "u1"}), ("validate", "missing_field", "item"), "item"),
        ("cloudevents", cloud("text"), ("validate", "wrong_type", ""), "a text"),
        ("cloudevents", {"specversion": "1.0"}, ("validate", "missing_field", "data"), "expected the event"),
        ("cloudevents", {"specversion": "1", "data_base64": "e30="}, ("validate", "missing_field", "data"), "not data_base64"),
    ],
)  # fmt: skip
def test_what_is_in_an_envelope_and_is_no_event(
    envelope: str, body: Any, expected: tuple[str, str, str], part: str
) -> None:
    error = refused(packed(body), envelope)
    assert (error.stage, error.reason, error.field) == expected
    assert part in str(error)
    assert isinstance(judged(packed(body), envelope), str)


NAMES = ("schema", "payload", "op", "before", "after", "source", "specversion", "data", "id", "user", "item", "time")
LEAVES: tuple[Any, ...] = (None, "d", "u1", NOW, EVENT, 2.0, [], "\u0000")
JUNK = (b"", b"", b"\xff", b"NaN", b"}", b'"', b"\\ud800", b"1e400")


def drawn(draw: random.Random, depth: int = 3) -> Any:
    """A JSON value of names that envelopes and events have."""
    if not depth or draw.random() < 0.3:
        return draw.choice(LEAVES)
    return {draw.choice(NAMES): drawn(draw, depth - 1) for _ in range(draw.randrange(5))}


@pytest.mark.parametrize("seed", range(4))
def test_verify_judges_as_the_worker_does(seed: int) -> None:
    draw = random.Random(seed)
    for _ in range(1000):
        body = drawn(draw)
        for _ in range(draw.randrange(4)):
            body = draw.choice((connect, change, cloud))(body)
        value = packed(body)
        at = draw.randrange(len(value) + 1)
        envelope = draw.choice(ENVELOPES)
        agreed(value, envelope)
        agreed(value[:at] + draw.choice(JUNK) + value[at:], envelope)


@pytest.mark.parametrize("envelope", ENVELOPES)
@pytest.mark.parametrize(
    "value",
    [
        b'{"schema":1,"payload":{"user":"u1","item":"i1","time":1},"payload":{"user":"u1","item":"i2","time":1}}',
        b'{"schema":1e400,"payload":{"user":"u1","item":"i1","time":1.0,"x":1e400}}',
        b'{"op":1e400,"after":{"user":"u1","item":"i1","time":1}}',
        b'{"op":"d","op":"c","after":null,"after":{"user":"u1","item":"i1","time":1}}',
        b'{"schema":"\\ud800","payload":{"user":"u1","item":"i1","time":1}}',
        b'{"specversion":1,"source":"\\u00e9","id":"1e400","data":{"user":"u1","item":"i1","time":1}}',
        b'{"specversion":1,"source":"s","id":1e400,"data": {"user":"u1","item":"i1","time":1} }',
        b'{"specversion":null,"op":null,"schema":null,"payload":null,"source":1}',
        b'{"schema":{},"payload":{"user":"u1","item":"i1","time":1,"x":%s}}' % (b"[" * 30 + b"]" * 30),
        b'{"schema":{},"payload":{"user":"u1","item":"i1","time":1,"x":%s}}' % (b"[" * 31 + b"]" * 31),
        b'{"schema":{},"payload":{"user":"u1","item":"i1","time":1}}}',
        b'{"schema":{},"payload":{"user":"u1","item":"i1","time":1}',
        b'{"schema":NaN,"payload":{"user":"u1","item":"i1","time":1}}',
        b'[{"schema":1,"payload":{"user":"u1","item":"i1","time":1}}]',
    ],
)
def test_odd_envelopes_are_judged_alike(envelope: str, value: bytes) -> None:
    agreed(value, envelope)


def agreed(value: bytes, envelope: str) -> None:
    verdict = judged(value, envelope)
    if isinstance(verdict, str):
        refused(value, envelope)
        return
    event = decode(value, envelope)
    assert isinstance(verdict, Accepted)
    assert (event.item, event.time, event.id) == (verdict.item, verdict.time, verdict.id), value


# what a record looks like


def protobuf() -> bytes:
    return b"\x0a\x02u1\x12\x02i1\x18\x80\x89\x7a"


@pytest.mark.parametrize(
    ("value", "parts"),
    [
        (b"\x00\x00\x00\x01\x2c\x0a\x02u1", ("Schema Registry", "300", "value.converter.schemas.enable=false")),
        (b"\x00\x00\x00\x00\x01" + packed(EVENT), ("Schema Registry", "schema id 1")),
        (b"Obj\x01\x04\x14avro.codec", ("Avro object container",)),
        (b"\xc3\x01" + bytes(8) + b"\x04u1", ("Avro's single-object",)),
        (gzip.compress(packed(EVENT), mtime=0), ("gzip", "compression.type=gzip")),
        (b"\x28\xb5\x2f\xfd\x04", ("zstd", "compression.type=zstd")),
        (b"<?xml version='1.0'?><click/>", ("XML",)),
        (b"\xef\xbb\xbf <click user='u1'/>", ("XML",)),
        (msgspec.msgpack.encode(EVENT), ("MessagePack", "JSON serializer")),
        (protobuf(), ("may be Protocol Buffers", "JsonFormat")),
        (packed(connect(EVENT)), ("JsonConverter", "schemas.enable=false", 'envelope = "connect"')),
        (packed(change(EVENT)), ("Debezium", 'envelope = "debezium"', "ExtractNewRecordState")),
        (packed(connect(change(EVENT))), ("Debezium", 'envelope = "debezium"')),
        (packed(cloud(EVENT)), ("CloudEvent in structured mode", 'envelope = "cloudevents"')),
    ],
)
def test_a_dead_letter_says_what_the_value_looks_like(value: bytes, parts: tuple[str, ...]) -> None:
    error = refused(value, "none")
    plain = str(error)
    assert all(part in plain for part in parts), plain
    assert len(plain) <= 512


def test_a_cloud_event_in_binary_mode_is_known_by_its_headers() -> None:
    headers = [("ce_specversion", b"1.0"), ("content-type", b"text/plain")]
    assert "CloudEvent in binary mode" in str(refused(b'{"n": 1}', "none", headers=headers))
    assert decode(packed(EVENT), "none", headers=headers).item == "i1"


@pytest.mark.parametrize(
    "value",
    [
        packed(EVENT)[:-5], b"hello", b"user,item,time", b"\xff\xfe{\x00", bytes(100), b"\x00\x00\x00\x00\x07", b"[" * 9, b"\x80",
        b'{"payload": {"user": "u1"}}', b'{"op": "d"}', b"\n\n",
    ],
)  # fmt: skip
def test_what_looks_like_nothing_known_is_not_guessed_at(value: bytes) -> None:
    assert "look" not in str(refused(value, "none"))
    assert "may be" not in str(refused(value, "none"))


@pytest.mark.parametrize(
    ("key", "user", "part"),
    [
        (b'"u1"', "u1", "in quotes"),
        ((42).to_bytes(8), "42", "8-byte number"),
        ((-7).to_bytes(4, signed=True), "-7", "4-byte number"),
        (b"\x00\x00\x00\x00\x05\x04u1", "u1", "Schema Registry"),
        (packed({"schema": {"type": "string"}, "payload": "u1"}), "u1", "JSON object"),
    ],
)
def test_a_dead_letter_says_what_the_key_looks_like(key: bytes, user: str, part: str) -> None:
    error = refused(packed(EVENT | {"user": user}), "none", key)
    assert (error.stage, error.reason, error.field) == ("key", "key_mismatch", "user")
    assert part in str(error)
    assert "StringSerializer" in str(error)


def test_another_users_key_is_just_that() -> None:
    assert str(refused(packed(EVENT), "none", b"u2")) == (
        "the key is not the body's user in UTF-8; found a key of 2 bytes that is another user's or no user's"
    )


# correcting and sending back


SETTINGS = load(partitions=1, envelope="debezium")
CLICKS = SETTINGS.sources[0]


def lettered(value: bytes) -> tuple[Lists, DeadLetter]:
    """A log with one bad record and its dead letter."""
    log = Lists([*SETTINGS.sources, SETTINGS.dead_letters_topic], 1)
    log.append(CLICKS, 0, b"u1", value, (), NOW)
    row = log.topics[CLICKS][0][0]
    letter = DeadLetters("00").letter(CLICKS, 0, row, refused(value, "debezium"))
    log.append(SETTINGS.dead_letters_topic, 0, letter.key, letter.value, tuple(letter.headers), NOW)
    return log, next(iter(DeadLetterReader(SETTINGS, log).read()))


@pytest.mark.parametrize("wrap", [change, lambda event: connect(change(event)), lambda event: event])
def test_edits_are_of_the_event_and_what_goes_back_has_its_envelope(wrap: Any, tmp_path: Path) -> None:
    log, letter = lettered(packed(wrap({"user": "u1", "movie": "i9", "time": NOW})))
    edits = Edits(rename=[("movie", "item")], assign=[("scene", "42")], key_from_user=True)
    acceptance = Acceptance(SETTINGS)
    row = corrections.line(acceptance, letter, edits)
    right = wrap({"user": "u1", "time": NOW, "item": "i9", "scene": "42"})
    assert (row["value"], row["key"], row["wrong"]) == (right, "u1", [])
    unedited = corrections.line(acceptance, letter, Edits())
    assert unedited["wrong"] == ["item: missing, expected string, 1 to 256 characters"]
    file = tmp_path / "fix.jsonl"
    file.write_text(json.dumps(row) + "\n")
    box = DeadLetterReader(SETTINGS, log)
    sent: list[Any] = []

    class Sender:
        def send(self, topic: str, key: bytes | None, value: bytes | None, headers: Any) -> Any:
            sent.append((topic, key, value))
            return len(sent)

        def position(self, future: Any) -> Any:
            return (CLICKS, 0, future)

    task = Redrive(SETTINGS, box, Choice(), corrections.read(file))
    assert [one.status for one in task.run(task.plan(), Sender())] == [Status.SENT]
    ((topic, key, value),) = sent
    assert (topic, key, json.loads(value)) == (CLICKS, b"u1", right)
    assert decode(value, "debezium").item == "i9"


def test_a_letter_of_a_delete_says_so_and_a_whole_event_may_be_given() -> None:
    log, letter = lettered(packed(change(None, "d")))
    acceptance = Acceptance(SETTINGS)
    row = corrections.line(acceptance, letter, Edits(assign=[("item", "i1")]))
    assert row["value"] == change(None, "d")
    assert "deletes of events cannot be applied" in row["wrong"][0]
    fixed = {letter.source: Correction(value=packed(EVENT))}
    task = Redrive(SETTINGS, DeadLetterReader(SETTINGS, log), Choice(), fixed)
    assert [one.status for one in task.run(task.plan(), None)] == [Status.READY]


def test_verify_takes_enveloped_records_by_the_same_setting() -> None:
    from tests.unit.synthetic import World

    names = load(app_id="t", envelope="connect")
    world = World(names)
    for n in range(6):
        body = connect({"user": "u1", "item": f"i{n}", "time": NOW - n})
        world.send_raw(CLICK, b"u1", packed(body), murmur2(b"u1") % names.partitions)
    world.work()
    assert check(world.log, names).violations == []
    report = check(world.log, load(app_id="t"))
    assert {violation.kind for violation in report.violations} >= {"invalid-applied"}


def test_verify_follows_a_change_of_the_setting() -> None:
    """What a dead letter advises: its record was set aside by the old value, and is applied by the new one once sent back."""
    from tests.unit.synthetic import World

    old, new = load(app_id="t"), load(app_id="t", envelope="debezium")
    world = World(new)
    value, partition = packed(change(EVENT)), murmur2(b"u1") % new.partitions
    _, _, offset = world.send_raw(CLICK, b"u1", value, partition)
    topic = new.sources[CLICK]
    world.letter(topic, world.log.topics[topic][partition][offset], "missing required field `user`")
    world._read[topic, partition] = offset + 1
    world.send_raw(CLICK, b"u1", value, partition, (("original-record", f"{topic}/{partition}/{offset}".encode()),))
    world.work()
    assert {"valid-dead-letter", "lost"} <= set(check(world.log, new).kinds)
    assert "invalid-applied" in check(world.log, old).kinds
    before = (f"{topic}/{partition}/{offset + 1}=none",)
    assert check(world.log, new, scope=Scope(envelope_before=before)).violations == []
    with pytest.raises(DataError, match=r"--envelope-before .*: expected one of none, connect"):
        check(world.log, new, scope=Scope(envelope_before=(before[0].replace("none", "avro"),)))


def test_too_deep_stays_too_deep() -> None:
    value = packed(connect(EVENT))[:-1] + b', "x": ' + b"[" * MAX_DEPTH + b"]" * MAX_DEPTH + b"}"
    assert refused(value, "connect").reason == "too_deep"
