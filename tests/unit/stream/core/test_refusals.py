"""What a refused message says: the field, what was found, what was expected, what to do."""

from __future__ import annotations

import json
from typing import Any

import jsonschema_rs
import pytest
from aiokafka.partitioner import murmur2 as kafka_hash

from deploy.clients.schema import schema
from stream.core.decoder import EventDecoder
from stream.core.errors import RecordError
from stream.core.json_body import JsonDecoder, convert
from stream.core.messages import CLICK, Click, Item, Rating

NOW = 1_795_792_105_409
EVENT: dict[str, Any] = {"user": "ada", "item": "SKU-1", "time": NOW}
DECODER = EventDecoder(kafka_hash, 1, (1, 5))
MOST = 512  # characters of a dead letter's message


def refused(value: bytes, key: bytes = b"ada") -> RecordError:
    with pytest.raises(RecordError) as raised:
        DECODER.decode(CLICK, 0, 0, NOW, key, value)
    assert len(str(raised.value)) <= MOST
    assert str(raised.value).isprintable()
    return raised.value


def click(**fields: object) -> RecordError:
    return refused(json.dumps(EVENT | fields, ensure_ascii=False).encode())


@pytest.mark.parametrize(
    ("field", "value", "parts"),
    [
        ("time", "2026-11-27T14:00:00Z", ['found "2026-11-27T14:00:00Z" (a text)', "expected a whole", "epoch milliseconds"]),
        ("time", str(NOW), [f'found "{NOW}" (a text)', "without quotes"]),
        ("time", str(NOW // 1000), ["without quotes", "looks like seconds", "multiply by 1000"]),
        ("time", NOW / 1000, [f"found {NOW / 1000!r} (a number)", "looks like seconds; times are milliseconds: multiply"]),
        ("time", NOW + 0.5, ["leave the fraction out"]),
        ("time", True, ["found true", "a whole number"]),
        ("time", None, ["found null"]),
        ("time", -1, ["found -1", "0 to 253402300799999"]),
        ("time", 10**400, ["found a number of too many digits"]),
        ("time", NOW * 1_000_000, [f"found {NOW * 1_000_000}", "looks like nanoseconds"]),
        ("user", "", ['found "" (a text)', "a text of 1 to 256 characters"]),
        ("user", "x" * 300, ["a text of 300 characters", "of 1 to 256"]),
        ("user", "*", ["found a text of 1 characters", "other than `*`"]),
        ("item", 10, ["found 10 (a whole number)", "a text of 1 to 256 characters"]),
        ("item", ["a"], ["found a list of 1"]),
        ("item", {"id": 1}, ["found an object"]),
        ("action", 3, ["found 3", "a text of 0 to 256 characters or null"]),
        ("scene", "\u202e\x1b" + "y" * 300, ["found a text of 302 characters", "0 to 256"]),
    ],
)  # fmt: skip
def test_a_refused_field_shows_its_value_and_what_was_expected(field: str, value: object, parts: list[str]) -> None:
    error = click(**{field: value})
    assert error.field == field
    assert all(part in str(error) for part in parts), str(error)
    assert "`int`" not in str(error)
    assert "$." not in str(error)


def test_a_missing_field_names_those_that_are_there() -> None:
    error = refused(json.dumps({"customer": "ada", "sku": "S", "time": NOW}).encode())
    assert (error.field, str(error)) == ("user", "`user` is missing; found the fields customer, sku, time")
    many = refused(json.dumps({f"f{n}\n": 1 for n in range(99)}).encode())
    assert str(many).endswith("and 89 more")
    assert str(refused(b"{}")) == "`user` is missing; found no fields"


@pytest.mark.parametrize(
    ("value", "parts"),
    [
        (b"\xef\xbb\xbf" + json.dumps(EVENT).encode(), ["byte order mark"]),
        (str(EVENT).encode(), ["Python dict", "json.dumps"]),
        (b"[" + json.dumps(EVENT).encode() + b"]", ["found a list", "expected a JSON object", "one event per record"]),
        (b'"x"', ["found a text", "expected a JSON object"]),
    ],
)
def test_what_is_no_object_says_what_it_is(value: bytes, parts: list[str]) -> None:
    error = refused(value)
    assert all(part in str(error) for part in parts), str(error)


def test_other_malformed_json_is_no_python_dict() -> None:
    assert "Python" not in str(refused(b'{"user": "it\'s",}'))


@pytest.mark.parametrize("field", ["user", "item", "time", "scene", "id", "action", "rank"])
@pytest.mark.parametrize("value", ["secret", ["secret"], {"secret": 1}, "secret" * 200])
def test_no_text_of_a_user_stands_in_a_header(field: str, value: object) -> None:
    """A letter's headers and the worker's log say what was expected; the payload is in the letter's value alone."""
    message = ""
    try:
        DECODER.decode(CLICK, 0, 0, NOW, b"secret", json.dumps(EVENT | {field: value}).encode())
    except RecordError as error:
        message = str(error)
    assert "secret" not in message
    assert message or value == "secret"


def test_anothers_key_shows_neither() -> None:
    message = str(refused(json.dumps(EVENT).encode(), b"bad-2"))
    assert "found a key of 5 bytes that is another user's or no user's" in message
    assert "bad-2" not in message
    assert "ada" not in message


@pytest.mark.parametrize(
    ("ahead", "message"),
    [(7_200_000, "2 h 0 min ahead"), (5_400_000, "1 h 30 min ahead"), (86_400_000 * 9, "9 days ahead")],
)
def test_a_time_ahead_says_by_how_much(ahead: int, message: str) -> None:
    error = click(time=NOW + ahead)
    assert message in str(error)
    assert "clock" in str(error)
    assert "zone" in str(error)


def test_a_time_in_another_unit_is_no_wrong_clock() -> None:
    assert "zone" not in str(click(time=NOW * 1000))


def test_a_value_that_no_number_holds_is_still_refused_by_its_field() -> None:
    with pytest.raises(RecordError) as raised:
        JsonDecoder(Rating).decode(b'{"user": "a", "item": "b", "time": 1, "value": 1e400}')
    assert (raised.value.field, "1e400" in str(raised.value)) == ("value", True)


def test_items_and_rows_say_the_same() -> None:
    with pytest.raises(
        RecordError, match=r"found 3.*expected a list of at most 64, each a text of 0 to 256 characters"
    ):
        JsonDecoder(Item).decode(b'{"item": "a", "title": "b", "categories": 3}')
    with pytest.raises(RecordError, match=r'found "" \(a text\), expected a text of 1 to 256 characters'):
        convert({"user": "", "item": "b", "time": 1}, Click)


ITEMS = JsonDecoder(Item)


@pytest.mark.parametrize(
    ("attributes", "field", "parts"),
    [
        ('{"price": true}', "attributes.price", ["found true", "expected a number within 1e+15"]),
        ('{"size": 1, "price": null}', "attributes.price", ["found null"]),
        ('{"price": 1e16}', "attributes.price", ["found 1e+16 (a number)"]),
        ('{"price": 1e400}', "attributes", ["beyond every range"]),
        ('{"tags": ["a", 2]}', "attributes.tags", ["found a list of 2", "at most 64 such texts"]),
        (json.dumps({"tags": ["t"] * 65}), "attributes.tags", ["found a list of 65"]),
        (json.dumps({"brand": "x" * 257}), "attributes.brand", ["found a text of 257 characters"]),
        ('{"price": {"eur": 1}}', "attributes.price", ["found an object"]),
        ('{"": 1}', "attributes", ["found a name of 0 characters", "1 to 64"]),
        (json.dumps({"n" * 65: 1}), "attributes", ["found a name of 65 characters"]),
        (json.dumps({f"n{n}": 1 for n in range(65)}), "attributes", ["found an object", "at most 64 members"]),
        ("[]", "attributes", ["found a list of 0", "at most 64 members or null"]),
    ],
)
def test_a_refused_attribute_is_named(attributes: str, field: str, parts: list[str]) -> None:
    with pytest.raises(RecordError) as raised:
        ITEMS.read(f'{{"item": "i", "title": "t", "attributes": {attributes}}}')
    assert raised.value.field == field
    assert all(part in str(raised.value) for part in parts), str(raised.value)
    assert not jsonschema_rs.validator_for(schema("item")).is_valid(
        {"item": "i", "title": "t", "attributes": json.loads(attributes)}
    )


def test_attributes_are_numbers_texts_and_lists() -> None:
    given = {"price": 3, "date": "2026-11-27", "tags": ["a", "b"], "zero": -0.5, "most": 1e15, "none": []}
    body = {"item": "i", "title": "t", "attributes": given}
    found = ITEMS.read(json.dumps(body)).attributes
    assert found == given | {"tags": ("a", "b"), "none": ()}
    assert jsonschema_rs.validator_for(schema("item")).is_valid(body)
    assert ITEMS.read('{"item": "i", "title": "t", "attributes": {"p": true, "p": 1}}').attributes == {"p": 1}
