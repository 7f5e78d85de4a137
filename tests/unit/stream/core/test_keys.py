"""How a user id is written as a record's key, in each form of the setting `key`, and read back."""

from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from stream.core.errors import RecordError
from stream.core.fencing_log import CLAIM_KEY
from stream.core.keys import ANYONE_KEY, FORMS, JSON, LONG, UTF8, key_of, mismatch, user_of
from stream.kafka.store_identity import NOTE_KEY
from stream.kafka.user_notes import EXPOSED

USERS = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0"), min_size=1, max_size=256).filter(
    lambda text: text != "*"
)
NUMBERS = st.integers(-(2**63), 2**63 - 1)
OFFSET_KEY = b"__faust\0offset__"
MOST = 512  # characters of a dead letter's message


@given(USERS)
def test_any_user_reads_back_from_text_and_from_a_json_string(user: str) -> None:
    assert key_of(user, UTF8) == user.encode()
    assert key_of(user, JSON) == json.dumps(user, ensure_ascii=False).encode()
    assert [user_of(key_of(user, form), form) for form in (UTF8, JSON)] == [user, user]


@given(NUMBERS)
def test_any_number_reads_back_from_eight_bytes(number: int) -> None:
    user = str(number)
    assert key_of(user, LONG) == number.to_bytes(8, "big", signed=True)
    assert user_of(key_of(user, LONG), LONG) == user


@given(
    st.one_of(
        st.binary(max_size=12), st.binary(min_size=8, max_size=8), USERS.map(lambda user: json.dumps(user).encode())
    )
)
def test_a_user_has_one_key_in_each_form(key: bytes) -> None:
    for form in FORMS:
        user = user_of(key, form)
        assert user is None or key_of(user, form) == key


@pytest.mark.parametrize(
    "user",
    ["", "alice", "1.0", "01", "-0", "+1", " 1", "1 ", "1_0", "\u0661", "1" * 5000, str(2**63), str(-(2**63) - 1), "*"],
)
def test_only_a_plain_decimal_of_64_bits_has_a_key_of_eight_bytes(user: str) -> None:
    with pytest.raises(RecordError, match="-9223372036854775808 to 9223372036854775807") as error:
        key_of(user, LONG)
    assert (error.value.reason, error.value.field) == ("out_of_range", "user")
    assert 'key = "long"' in str(error.value)


@pytest.mark.parametrize(
    ("form", "key"),
    [
        (UTF8, None), (UTF8, b""), (UTF8, b"*"), (UTF8, b"a\0b"), (UTF8, b"\xff"), (UTF8, b"x" * 257),
        (JSON, None), (JSON, b""), (JSON, b'""'), (JSON, b'"*"'), (JSON, b"alice"), (JSON, b' "alice"'), (JSON, b'"caf\\u00e9"'),
        (JSON, b'"a\\u0000"'), (JSON, b'"a\\/b"'), (JSON, b'"\\ud800"'), (JSON, b'"\xff"'), (JSON, b"1"), (JSON, b"[" * 2000),
        (JSON, b'"' + b"x" * 257 + b'"'), (LONG, None), (LONG, b""), (LONG, bytes(7)), (LONG, bytes(9)), (LONG, b"42"),
    ],
)  # fmt: skip
def test_what_is_no_users_key(form: str, key: bytes | None) -> None:
    assert user_of(key, form) is None


# What is written beside the states: a user's key is never one of these, nor does it begin like one.

OURS = [CLAIM_KEY, NOTE_KEY, OFFSET_KEY, ANYONE_KEY]


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize(
    "key", [*OURS, EXPOSED.prefix, EXPOSED.prefix + b"ann", EXPOSED.prefix + bytes(8), EXPOSED.prefix + b'"ann"']
)
def test_no_user_has_a_key_of_ours_in_any_form(form: str, key: bytes) -> None:
    assert user_of(key, form) is None


@given(USERS, NUMBERS)
def test_no_key_of_a_user_collides_with_one_of_ours(user: str, number: int) -> None:
    for key in (key_of(user, UTF8), key_of(user, JSON), key_of(str(number), LONG)):
        assert key not in OURS
        assert not key.startswith(EXPOSED.prefix)


def test_the_nearest_numbers_to_keys_of_ours_are_users() -> None:
    """Of eight bytes as ours are not: a number may begin with the byte that no text has."""
    for key in (b"\xffexposed", CLAIM_KEY + b"\0", NOTE_KEY[:8]):
        user = user_of(key, LONG)
        assert user is not None
        assert key_of(user, LONG) == key


# What a key looks like that is not the user's


@pytest.mark.parametrize(
    ("form", "key", "user", "parts"),
    [
        (UTF8, b'"u1"', "u1", ["in quotes", 'set key = "json" (FRESHET_KEY)', "StringSerializer"]),
        (UTF8, b'"u2"', "u1", ["in quotes", 'set key = "json" (FRESHET_KEY)']),
        (UTF8, (42).to_bytes(8), "42", ["8-byte number", 'set key = "long" (FRESHET_KEY)', "StringSerializer"]),
        (UTF8, (42).to_bytes(8), "u1", ["8-byte number", 'key = "long" (FRESHET_KEY)', "in plain decimal"]),
        (UTF8, (-7).to_bytes(8, signed=True), "-7", ["8-byte number", 'set key = "long" (FRESHET_KEY)']),
        (UTF8, (42).to_bytes(4), "42", ["4-byte number", "StringSerializer"]),
        (UTF8, (42).to_bytes(8, "little"), "42", ["lowest byte first", "StringSerializer"]),
        (JSON, b"u1", "u1", ["plain text", 'set key = "utf8" (FRESHET_KEY)', "JSON string"]),
        (JSON, b"42", "42", ["plain text", 'set key = "utf8" (FRESHET_KEY)']),
        (JSON, (42).to_bytes(8), "42", ["8-byte number", 'set key = "long" (FRESHET_KEY)']),
        (JSON, b'"caf\\u00e9"', "caf\u00e9", ["spelt in another way", "ensure_ascii=False"]),
        (JSON, b'"a\\/b"', "a/b", ["spelt in another way"]),
        (JSON, b' "u1"', "u1", ["spelt in another way", "without spaces around"]),
        (JSON, b'"\\u001F"', "\x1f", ["spelt in another way"]),
        (LONG, b"42", "42", ["plain text", 'set key = "utf8" (FRESHET_KEY)', "LongSerializer"]),
        (LONG, b"mcdonald", "mcdonald", ["plain text", 'set key = "utf8" (FRESHET_KEY)']),
        (LONG, b'"42"', "42", ["in quotes", 'set key = "json" (FRESHET_KEY)']),
        (LONG, (42).to_bytes(4), "42", ["4-byte number", "LongSerializer"]),
        (LONG, (42).to_bytes(8, "little"), "42", ["lowest byte first", "LongSerializer"]),
        (LONG, (42).to_bytes(8), "042", ["another number", "in plain decimal"]),
        (LONG, (42).to_bytes(8), "alice", ["another number", "in plain decimal"]),
    ],
)
def test_a_mismatch_says_what_the_key_looks_like_and_what_to_set(
    form: str, key: bytes, user: str, parts: list[str]
) -> None:
    message = mismatch(key, user, form)
    assert message.startswith(f"the key is not the body's user {FORMS[form].wording}")
    assert all(part in message for part in parts), message
    assert len(message) <= MOST


@pytest.mark.parametrize(
    ("form", "key", "message"),
    [(UTF8, b"u2", "in UTF-8"), (JSON, b'"u2"', "as a JSON string"), (LONG, b"42", "as an 8-byte number, big-endian")],
)
def test_another_users_key_is_just_that(form: str, key: bytes, message: str) -> None:
    about = f"found a key of {len(key)} bytes that is another user's or no user's"
    expected = f"the key is not the body's user {message}; {about}"
    assert mismatch(key, "43", form) == expected


@given(
    st.sampled_from(list(FORMS)), st.one_of(st.binary(max_size=600), USERS.map(lambda u: json.dumps(u).encode())), USERS
)
def test_any_key_has_a_message_that_a_dead_letter_can_keep(form: str, key: bytes, user: str) -> None:
    assert len(mismatch(key, user, form)) <= MOST
    for each in FORMS.values():
        mine = each.write(user)
        if mine is not None:
            assert len(mismatch(mine, user, form)) <= MOST
            if each.name != form:
                assert f'key = "{each.name}"' in mismatch(mine, user, form)
