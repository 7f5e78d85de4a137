"""Which records are events, and what is said of those that are not. The published schemas and the decoder agree."""

from __future__ import annotations

import json
import math
from typing import Any

import pytest
from aiokafka.partitioner import murmur2 as kafka_hash
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from deploy.clients.murmur2 import murmur2
from deploy.verify.validator import Accepted, ForgetRequest, Validator
from stream.core.decoder import EventDecoder
from stream.core.errors import REASONS, RecordError
from stream.core.json_body import JsonDecoder
from stream.core.messages import CLICK, COMMENT, MAX_DEPTH, MAX_TEXT, MAX_TIME, RATING, Click, Item, SourceEvent

SCALE = (0.5, 5.0)
NOW = 1_700_000_000_000
PARTITIONS = 4
DECODER = EventDecoder(kafka_hash, PARTITIONS, SCALE)
VALIDATOR = Validator(PARTITIONS, SCALE)
GOOD: dict[int, dict[str, Any]] = {
    CLICK: {"user": "alice", "item": "i1", "time": NOW},
    RATING: {"user": "alice", "item": "i1", "time": NOW, "value": 4.5},
    COMMENT: {"user": "alice", "item": "i1", "time": NOW, "text": "a fine film"},
}
HOME = murmur2(b"alice") % PARTITIONS


def decode(behaviour: int, value: bytes | None, key: bytes | None = b"alice", partition: int = HOME) -> SourceEvent:
    return DECODER.decode(behaviour, partition, 7, NOW, key, value)


def body(behaviour: int, **changes: Any) -> bytes:
    """A good body with changes; ... removes a field."""
    merged = GOOD[behaviour] | changes
    return json.dumps({name: value for name, value in merged.items() if value is not ...}).encode()


def nested(depth: int) -> str:
    """A JSON array in an array ..., `depth` deep."""
    return "[" * depth + "]" * depth


# what a good record becomes


def test_a_click() -> None:
    value = body(CLICK, scene="home", id="e1", slate="s", rank=3, dwell_ms=1200)
    event = decode(CLICK, value)
    assert (event.behaviour, event.partition, event.offset, event.append_ms) == (CLICK, HOME, 7, NOW)
    assert (event.user, event.item, event.time, event.scene, event.id) == (b"alice", "i1", NOW, "home", "e1")
    assert math.isnan(event.value)
    assert event.payload == value


@pytest.mark.parametrize(
    ("given", "found"), [("purchase", "purchase"), ("né à 5", "né à 5"), ("", ""), (None, ""), (..., "")]
)
def test_the_action_of_a_click_is_any_name(given: Any, found: str) -> None:
    value = body(CLICK, action=given)
    assert decode(CLICK, value).action == found
    verdict = VALIDATOR.validate(CLICK, HOME, NOW, b"alice", value)
    assert isinstance(verdict, Accepted)
    assert verdict.action == found


@pytest.mark.parametrize(("action", "reason"), [(3, "wrong_type"), (["cart"], "wrong_type"), ("a" * 257, "too_large")])
def test_an_action_that_is_no_name_is_refused_by_field(action: Any, reason: str) -> None:
    value = body(CLICK, action=action)
    with pytest.raises(RecordError) as refused:
        decode(CLICK, value)
    assert (refused.value.reason, refused.value.field) == (reason, "action")
    assert isinstance(VALIDATOR.validate(CLICK, HOME, NOW, b"alice", value), str)


@pytest.mark.parametrize("behaviour", [RATING, COMMENT])
def test_only_clicks_have_an_action(behaviour: int) -> None:
    value = body(behaviour, action="dislike")
    assert decode(behaviour, value).action == ""
    verdict = VALIDATOR.validate(behaviour, HOME, NOW, b"alice", value)
    assert isinstance(verdict, Accepted)
    assert verdict.action == ""


def test_a_rating_and_a_comment() -> None:
    assert decode(RATING, body(RATING)).value == 4.5
    remark = decode(COMMENT, body(COMMENT))
    assert remark.text == "a fine film"
    assert math.isnan(remark.value)
    assert decode(COMMENT, body(COMMENT, value=2)).value == 2.0


@pytest.mark.parametrize(
    ("behaviour", "value"),
    [
        (CLICK, body(CLICK, anything=[1, {"else": None}])),
        (CLICK, body(CLICK, scene=None, slate=None, rank=None, dwell_ms=None, id=None)),
        (CLICK, body(CLICK, time=0)),
        (CLICK, body(CLICK, time=float(NOW))),
        (CLICK, body(CLICK, rank=3.0)),
        (CLICK, body(CLICK, time=NOW + 3_600_000)),
        (CLICK, b'{"user": 1, "user": "alice", "item": "i1", "time": 5}'),
        (CLICK, b'{"user": "alice", "item": "i1", "time": 5, "new": 1e999}'),
        (CLICK, b'{"user": "alice", "item": "i1", "time": 5.0, "new": 1e999}'),
        (CLICK, b'{"user": "alice", "item": "i1", "time": 5, "new": ' + b"9" * 6000 + b"}"),
        (CLICK, b'{"user": "alice", "item": "i1", "time": 5, "new": %s}' % nested(MAX_DEPTH - 1).encode()),
        (CLICK, body(CLICK, scene="]" * 100 + "[" * 100)),
        (RATING, body(RATING, value=0.5)),
        (RATING, body(RATING, value=5)),
        (COMMENT, body(COMMENT, text="")),
        (COMMENT, body(COMMENT, text="\U0001f600" * MAX_TEXT)),
    ],
)
def test_acceptable(behaviour: int, value: bytes) -> None:
    assert decode(behaviour, value).user == b"alice"
    assert isinstance(VALIDATOR.validate(behaviour, HOME, NOW, b"alice", value), Accepted)


# what a bad record is called: one of every kind

BAD: list[tuple[str, int, bytes | None, tuple[str, str, str]]] = [
    ("null value", CLICK, None, ("decode", "null_value", "")),
    ("empty", CLICK, b"", ("decode", "empty_value", "")),
    ("blank", CLICK, b"  ", ("decode", "malformed_json", "")),
    ("not UTF-8", CLICK, b'{"user": "\xff"}', ("decode", "not_utf8", "")),
    ("UTF-16", CLICK, '{"user": "a"}'.encode("utf-16"), ("decode", "not_utf8", "")),
    ("byte order mark", CLICK, b"\xef\xbb\xbf" + body(CLICK), ("decode", "malformed_json", "")),
    ("truncated", CLICK, body(CLICK)[:-9], ("decode", "malformed_json", "")),
    ("two objects", CLICK, body(CLICK) * 2, ("decode", "malformed_json", "")),
    ("NaN", RATING, body(RATING, value=math.nan), ("decode", "malformed_json", "")),
    ("Infinity", RATING, body(RATING, value=math.inf), ("decode", "malformed_json", "")),
    ("lone surrogate", CLICK, body(CLICK, scene="\ud800"), ("decode", "malformed_json", "")),
    ("lone surrogate beside", CLICK, body(CLICK, other="\udfff"), ("decode", "malformed_json", "")),
    ("too deep", CLICK, b'{"x": %s}' % nested(MAX_DEPTH).encode(), ("decode", "too_deep", "")),
    ("far too deep", CLICK, b'{"x": %s}' % nested(100_000).encode(), ("decode", "too_deep", "")),
    ("an array", CLICK, b"[]", ("validate", "wrong_type", "")),
    ("a text", CLICK, b'"x"', ("validate", "wrong_type", "")),
    ("null", CLICK, b"null", ("validate", "wrong_type", "")),
    ("no user", CLICK, body(CLICK, user=...), ("validate", "missing_field", "user")),
    ("no item", CLICK, body(CLICK, item=...), ("validate", "missing_field", "item")),
    ("no time", CLICK, body(CLICK, time=...), ("validate", "missing_field", "time")),
    ("no value", RATING, body(RATING, value=...), ("validate", "missing_field", "value")),
    ("no text", COMMENT, body(COMMENT, text=...), ("validate", "missing_field", "text")),
    ("user a number", CLICK, body(CLICK, user=5), ("validate", "wrong_type", "user")),
    ("user null", CLICK, body(CLICK, user=None), ("validate", "wrong_type", "user")),
    ("user empty", CLICK, body(CLICK, user=""), ("validate", "out_of_range", "user")),
    ("user of anyone", CLICK, body(CLICK, user="*"), ("validate", "out_of_range", "user")),
    ("user too long", CLICK, body(CLICK, user="x" * 257), ("validate", "too_large", "user")),
    ("item a list", CLICK, body(CLICK, item=["i1"]), ("validate", "wrong_type", "item")),
    ("item too long", CLICK, body(CLICK, item="x" * 257), ("validate", "too_large", "item")),
    ("time a text", CLICK, body(CLICK, time=str(NOW)), ("validate", "wrong_type", "time")),
    ("time a bool", CLICK, body(CLICK, time=True), ("validate", "wrong_type", "time")),
    ("time half", CLICK, body(CLICK, time=0.5), ("validate", "wrong_type", "time")),
    ("time negative", CLICK, body(CLICK, time=-1), ("validate", "out_of_range", "time")),
    ("time past 9999", CLICK, body(CLICK, time=MAX_TIME + 1), ("validate", "out_of_range", "time")),
    ("time huge", CLICK, body(CLICK, time=10**30), ("validate", "out_of_range", "time")),
    ("time of 400 digits", CLICK, body(CLICK, time=10**400), ("validate", "out_of_range", "time")),
    ("far future", CLICK, body(CLICK, time=NOW + 3_600_001), ("validate", "far_future", "time")),
    ("optional of a wrong type", CLICK, body(CLICK, scene=3), ("validate", "wrong_type", "scene")),
    ("rank a text", CLICK, body(CLICK, rank="3"), ("validate", "wrong_type", "rank")),
    ("rank huge", CLICK, b'{"user":"alice","item":"i","time":1,"rank":1e400}', ("validate", "out_of_range", "rank")),
    ("rank negative", CLICK, body(CLICK, rank=-1), ("validate", "out_of_range", "rank")),
    ("id too long", CLICK, body(CLICK, id="x" * 257), ("validate", "too_large", "id")),
    ("value a text", RATING, body(RATING, value="4"), ("validate", "wrong_type", "value")),
    ("value null", RATING, body(RATING, value=None), ("validate", "wrong_type", "value")),
    ("value huge", RATING, body(RATING, value=10**40), ("validate", "out_of_range", "value")),
    ("value over the scale", RATING, body(RATING, value=5.5), ("validate", "rating_out_of_scale", "value")),
    ("value under the scale", COMMENT, body(COMMENT, value=0.4), ("validate", "rating_out_of_scale", "value")),
    ("text too long", COMMENT, body(COMMENT, text="x" * (MAX_TEXT + 1)), ("validate", "too_large", "text")),
    ("text of 2 MB", COMMENT, body(COMMENT, text="x" * 2_000_000), ("validate", "too_large", "text")),
    ("another user", CLICK, body(CLICK, user="bob"), ("key", "key_mismatch", "user")),
]


@pytest.mark.parametrize(("behaviour", "value", "expected"), [row[1:] for row in BAD], ids=[row[0] for row in BAD])
def test_unacceptable(behaviour: int, value: bytes | None, expected: tuple[str, str, str]) -> None:
    with pytest.raises(RecordError) as raised:
        decode(behaviour, value)
    error = raised.value
    assert (error.stage, error.reason, error.field) == expected
    assert error.reason in REASONS
    assert str(error)
    assert isinstance(VALIDATOR.validate(behaviour, HOME, NOW, b"alice", value), str)


@pytest.mark.parametrize(
    ("key", "partition", "expected"),
    [
        (None, HOME, ("key", "null_key")),
        (b"", HOME, ("key", "key_mismatch")),
        (b"ALICE", HOME, ("key", "key_mismatch")),
        (b"\xff\xfe", HOME, ("key", "key_mismatch")),
        (b"alice", (HOME + 1) % PARTITIONS, ("partition", "mispartitioned")),
    ],
)
def test_key_and_partition(key: bytes | None, partition: int, expected: tuple[str, str]) -> None:
    with pytest.raises(RecordError) as raised:
        decode(CLICK, body(CLICK), key, partition)
    assert (raised.value.stage, raised.value.reason) == expected
    assert isinstance(VALIDATOR.validate(CLICK, partition, NOW, key, body(CLICK)), str)


def test_a_rating_is_told_as_it_is_not_rounded_onto_the_scale() -> None:
    with pytest.raises(RecordError, match=r"expected 0\.5 to 5, got 5\.0000001$"):
        decode(RATING, body(RATING, value=5.0000001))


def test_mispartitioned_names_the_cure() -> None:
    with pytest.raises(RecordError, match="partitioner=murmur2_random"):
        decode(CLICK, body(CLICK), partition=(HOME + 1) % PARTITIONS)


@pytest.mark.parametrize(
    ("key", "hash_"), [(b"21", -973932308), (b"foobar", -790332482), (b"a-little-bit-long-string", -985981536)]
)
def test_murmur2_is_that_of_the_java_client(key: bytes, hash_: int) -> None:
    """Values of Apache Kafka's own UtilsTest."""
    assert murmur2(key) == hash_ & 0x7FFFFFFF
    assert EventDecoder(kafka_hash, 1000, SCALE).partition(key) == (hash_ & 0x7FFFFFFF) % 1000


def test_items() -> None:
    decoder = JsonDecoder(Item)
    item = decoder.decode(b'{"item": "1", "title": "Toy Story", "categories": ["Comedy"], "more": 1}')
    assert (item.item, item.title, item.categories, item.available) == ("1", "Toy Story", ("Comedy",), True)
    with pytest.raises(RecordError) as raised:
        decoder.decode(b'{"item": "1", "title": "Toy Story", "categories": "Comedy"}')
    assert (raised.value.reason, raised.value.field) == ("wrong_type", "categories")


# the decoder accepts exactly what the published schemas accept

NUMBERS = st.one_of(
    st.sampled_from(
        ["0", "-0", "-0.0", "1", "-1", "1.0", "1.5", "1e2", "1E+2", "1e-2", "1e400", "-1e400", "1e-400", "0.1e1",
         "3.0000", "01", "1.", ".5",
         "+1", "-", "1e", "0x1", "9" * 400, "9" * 5000, "1" + "0" * 30 + ".0", str(2**53), str(2**63), str(2**64),
         str(MAX_TIME),
         str(MAX_TIME + 1), f"{MAX_TIME}.0", f"{NOW}e0", "1000000000000", "1000000000001", "5", "5.0",
         "5.0000000000000001", "0.5", "0.49999999999999999",
         "0.4", "NaN", "Infinity", "-Infinity", "nan"]
    ),
    st.integers(-(2**70), 2**70).map(str),
    st.floats(allow_nan=False, allow_infinity=False).map(repr),
)  # fmt: skip
STRINGS = st.one_of(
    st.sampled_from(
        ['""', '"*"', '"**"', '"\\u002a"', '"\\u0000"', '"\\ud800"', '"\\udc00\\ud800"', '"\\ud83d\\ude00"',
         '"\\uD83D\\uDE00x"', '"\\ud83d"',
         '"\\u12"', '"\\q"', '"\x01"', '"\t"', '"\x7f"', '"\u2028"', '"a\\nb"', '"a\\/b"', '"\ufeff"', '"[[["', "'a'",
         '"abc', '"\ufffe"',
         '"%s"' % ("x" * 256), '"%s"' % ("x" * 257), '"%s"' % ("\U0001f600" * 256), '"%s"' % ("\\ud83d\\ude00" * 257),
         '"alice"', '"\\u0061lice"',
         '"%s"' % ("x" * MAX_TEXT), '"%s"' % ("x" * (MAX_TEXT + 1)), '"a\\n"', '"*\\n"', '"\\r*"']
    ),
    st.text(max_size=8).map(json.dumps),
    st.text(max_size=8).map(lambda text: json.dumps(text, ensure_ascii=False)),
)  # fmt: skip
OTHERS = st.sampled_from(
    ["null", "true", "false", "[]", "{}", "[1,]", '{"a":1,}', "{1:2}", "tru", "nul", "", "//x\n1", "[[1],[2]]",
     nested(31), nested(32), nested(33),
     nested(20)[:-1], '[{"a":[]}]', "\ufeff1", "1 2"]
)  # fmt: skip
VALUES = st.one_of(NUMBERS, STRINGS, OTHERS)
NAMES = st.sampled_from(
    ["user", "item", "time", "value", "text", "scene", "slate", "rank", "dwell_ms", "action", "id", "x", "", "us\\u0065r",
     "\\ud800", "User", "\\q"]
)  # fmt: skip
SPACES = st.sampled_from(["", "", "", " ", "\n\t", "\r", "\u00a0", "\x0c", "\ufeff"])


@st.composite
def records(draw: st.DrawFn) -> tuple[int, bytes]:
    """A behaviour and a value: a good body, spoilt in up to three fields or in its bytes."""
    behaviour = draw(st.sampled_from([CLICK, RATING, COMMENT]))
    pairs = [(f'"{name}"', json.dumps(value)) for name, value in GOOD[behaviour].items()]
    for name, value in draw(st.lists(st.tuples(NAMES, VALUES), max_size=3)):
        found = [index for index, pair in enumerate(pairs) if pair[0] == f'"{name}"']
        if bool(found) and draw(st.booleans()):
            pairs[found[0]] = (f'"{name}"', value)
        elif bool(found) and draw(st.booleans()):
            pairs.insert(0, (f'"{name}"', value))
        else:
            pairs.append((f'"{name}"', value))
    space = draw(SPACES)
    text = draw(SPACES) + "{" + ",".join(f"{name}{space}:{space}{value}" for name, value in pairs) + "}" + draw(SPACES)
    raw = text.encode("utf-8", "surrogatepass")
    if draw(st.integers(0, 9)) == 0:
        at = draw(st.integers(0, len(raw)))
        raw = draw(
            st.sampled_from([raw[:at], raw[:at] + b"\xff" + raw[at:], raw[:at] + b"\xc0\x80" + raw[at:],
            raw[:at] + b"\xed\xa0\x80" + raw[at:],
                             raw[:at] + b"\x00" + raw[at:], raw[at:], raw + b"x", raw[:at] + b'"' + raw[at:]])
        )  # fmt: skip
    return behaviour, raw


def verdicts(
    behaviour: int, value: bytes, key: bytes
) -> tuple[SourceEvent | RecordError, Accepted | ForgetRequest | str]:
    partition = murmur2(key) % PARTITIONS
    try:
        found: SourceEvent | RecordError = DECODER.decode(behaviour, partition, 0, NOW, key, value)
    except RecordError as error:
        found = error
    return found, VALIDATOR.validate(behaviour, partition, NOW, key, value)


@settings(max_examples=1500, deadline=None, suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large])
@given(records())
@example((CLICK, b'{"user":"alice","item":"i1","time":1,"rank":1e400,"rank":1}'))
@example((CLICK, b'{"user":"alice","item":"i1","time":1.0,"x":"\\ud800"}'))
@example((CLICK, b'{"user":"alice","item":"i1","time":1,"x":"\\ud800","x":1}'))
@example((CLICK, b'{"user":"alice","item":"i1","time":1,"x":{"y":%s},"x":1}' % nested(31).encode()))
def test_the_decoder_accepts_exactly_what_the_schemas_accept(record: tuple[int, bytes]) -> None:
    behaviour, value = record
    key = b"alice"
    found, judged = verdicts(behaviour, value, key)
    if isinstance(found, RecordError) and found.reason == "key_mismatch":
        key = json.loads(value)["user"].encode()
        found, judged = verdicts(behaviour, value, key)
    if isinstance(judged, Accepted):
        assert isinstance(found, SourceEvent), (found, value)
        assert (found.user, found.item, found.time, found.id) == (judged.user, judged.item, judged.time, judged.id)
    else:
        assert isinstance(found, RecordError), (judged, value)


@settings(max_examples=300, deadline=None)
@given(st.binary(max_size=40), st.one_of(st.none(), st.binary(max_size=10)))
def test_any_bytes_are_an_event_or_a_record_error(value: bytes, key: bytes | None) -> None:
    for behaviour in (CLICK, RATING, COMMENT):
        with pytest.raises(RecordError):
            DECODER.decode(behaviour, 0, 0, NOW, key, value)
        assert isinstance(VALIDATOR.validate(behaviour, 0, NOW, key, value), str)


def test_click_is_frozen() -> None:
    with pytest.raises(AttributeError):
        Click("a", "b", 1).user = "c"  # type: ignore[misc]


def test_a_string_that_never_ends_is_judged_in_linear_time() -> None:
    """Two million characters of escaped quotes: a scanner that starts again at each would take hours."""
    value = b'"' + b'\\"' * 1_000_000 + b"[" * 40
    with pytest.raises(RecordError) as error:
        DECODER.decode(CLICK, 0, 0, NOW, b"u", value)
    assert error.value.reason == "malformed_json"
