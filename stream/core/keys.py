"""How a user id is written as the key of a record and read back: one definition, for the forms of the setting `key`.
Pure.

- utf8: the id's bytes.
- json: the id as a JSON string, exactly as JSON.stringify, Jackson, serde and `json.dumps(id, ensure_ascii=False)`
  write it: with no escapes except those that JSON requires.
- long: a whole number as 8 bytes, big-endian, signed. The id is that number in plain decimal.

A user has exactly one key in each form, since a record's partition follows from the bytes of its key. The same user in
another spelling (`"caf\\u00e9"`) would be on another partition and have two states. So any other spelling is not a
user's key. A key that freshet uses for itself (`*`, a claim, a folder's notes) is not a user's key in any form either.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Final, NamedTuple

import msgspec

from stream.core.errors import RecordError
from stream.core.messages import MAX_ID

UTF8: Final = "utf8"
JSON: Final = "json"
LONG: Final = "long"

ANYONE: Final = "*"
"""The user of the slate for unknown users. It is nobody's id."""
ANYONE_KEY: Final = b"*"
"""The key of that slate, in every form."""

_LEAST: Final = -(2**63)
_MOST: Final = 2**63 - 1
_DIGITS: Final = len(str(_LEAST))
_SHOWN: Final = 60  # characters of a user in a message


class Form(NamedTuple):
    """One form of a key.

    Attributes:
        name: The value of the setting `key`.
        write: User id -> key; None if the form has no key for the id.
        read: Key -> user id; raises ValueError if it is not a user's key.
        wording: The form in words.
        cure: Which serializer a producer needs.
    """

    name: str
    write: Callable[[str], bytes | None]
    read: Callable[[bytes], str]
    wording: str
    cure: str


def _to_long(user: str) -> bytes | None:
    try:
        number = int(user) if len(user) <= _DIGITS else _MOST + 1
    except ValueError:
        return None
    return number.to_bytes(8, "big", signed=True) if _LEAST <= number <= _MOST and str(number) == user else None


def _from_long(key: bytes) -> str:
    if len(key) != 8:
        raise ValueError("not 8 bytes")
    return str(int.from_bytes(key, "big", signed=True))


def _from_json(key: bytes) -> str:
    try:
        user = msgspec.json.decode(key, type=str)
    except (msgspec.MsgspecError, RecursionError) as error:
        raise ValueError(str(error)) from None
    if msgspec.json.encode(user) != key:
        raise ValueError("written in another way")
    return user


FORMS: Final[dict[str, Form]] = {
    form.name: form
    for form in (
        Form(
            UTF8, str.encode, bytes.decode, "in UTF-8",
            "set the producer's key serializer to plain text (StringSerializer; in Connect key.converter=...StringConverter)",
        ),
        Form(
            JSON, msgspec.json.encode, _from_json, "as a JSON string",
            "have the producer write a JSON string (in Connect key.converter=...JsonConverter with schemas.enable=false)",
        ),
        Form(
            LONG, _to_long, _from_long, "as an 8-byte number, big-endian",
            "set the producer's key serializer to LongSerializer (in Connect key.converter=...LongConverter)",
        ),
    )
}  # fmt: skip


_NAMED: Final = {
    UTF8: "the user as plain text",
    JSON: "a JSON string, in quotes",
    LONG: "the user as an 8-byte number, as of Java's LongSerializer",
}


def key_of(user: str, form: str) -> bytes:
    """Return the key of a user's records. Raises RecordError if the form has no key for this id."""
    key = FORMS[form].write(user)
    if key is None:
        raise RecordError(
            "validate",
            "out_of_range",
            "user",
            f"expected a whole number from {_LEAST} to {_MOST} in plain decimal, got {_short(repr(user))}: the setting "
            f'key = "{LONG}" requires it',
        )
    return key


def key_of_somebody(user: str, form: str) -> bytes:
    """Return the key of a user's records. Raises RecordError, also if nobody can have this id."""
    key = key_of(user, form)
    if user_of(key, form) != user:
        raise RecordError(
            "validate", "out_of_range", "user",
            f"expected an id of 1 to {MAX_ID} characters other than `{ANYONE}`, without U+0000, got {_short(repr(user))}",
        )  # fmt: skip
    return key


def user_of(key: bytes | None, form: str) -> str | None:
    """Return the user who has this key, if the schemas accept the id; None if no user has it."""
    try:
        user = FORMS[form].read(key or b"")
    except ValueError:  # a UnicodeDecodeError is one
        return None
    return user if 1 <= len(user) <= MAX_ID and user != ANYONE and "\0" not in user else None


def mismatch(key: bytes, user: str, form: str) -> str:
    """Return the message about a record whose key is not its user's: what the key looks like, and what to set.

    It goes into a header and the log, so it repeats neither the key nor the user.
    """
    likeness = _looks_like(key, user, FORMS[form])
    both = f"found a key of {len(key)} bytes that is another user's or no user's"
    return f"the key is not the body's user {FORMS[form].wording}; {likeness or both}"


def _looks_like(key: bytes, user: str, form: Form) -> str:
    """Return in which other form the key names the user, and what to set; "" if the form is unknown."""
    for other in FORMS.values():
        if other.name != form.name and other.write(user) == key:
            return f"the key is {_NAMED[other.name]}: {_set(other.name)}, or {form.cure}"
    if likeness := _looks_like_number(key, user, form) or _looks_like_json(key, user, form):
        return likeness
    if len(key) == 8 and form.name == LONG:
        return "the key is another number than the body's user, which must be that number in plain decimal"
    if key[:1] == b"\x00" and len(key) > 5 and int.from_bytes(key[1:5]):
        return f"the key looks like Confluent Schema Registry's form: {form.cure}"
    if len(key) == 8 and not _printable(key):
        return (
            f"the key looks like an 8-byte number, as of Java's LongSerializer: {form.cure}; with "
            f'key = "{LONG}" (FRESHET_KEY) the body\'s user must be that number in plain decimal'
        )
    return ""


def _looks_like_number(key: bytes, user: str, form: Form) -> str:
    """Return the message about a key that is the user's number in a form that is never read, or ""."""
    for size in (8, 4):
        if len(key) == size and user == str(int.from_bytes(key, "little", signed=True)):
            return f"the key is the user as a {size}-byte number with its lowest byte first: {form.cure}"
    if len(key) == 4 and user == str(int.from_bytes(key, "big", signed=True)):
        return f"the key is the user as a 4-byte number, as of Java's IntegerSerializer: {form.cure}"
    return ""


def _looks_like_json(key: bytes, user: str, form: Form) -> str:
    try:
        found = msgspec.json.decode(key)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return ""
    if isinstance(found, dict):
        alone = "of the user alone (in Connect transforms ValueToKey and ExtractField$Key)"
        return f"the key is a JSON object: {form.cure}, {alone}"
    if not isinstance(found, str):
        return ""
    if form.name != JSON:
        return f"the key is {_NAMED[JSON]}: {_set(JSON)}, or {form.cure}"
    if found != user:
        return ""
    return (
        "the key is the user as a JSON string, but spelt in another way than JSON.stringify does: have the producer write "
        "characters as they are, without spaces around (in Python json.dumps(user, ensure_ascii=False))"
    )


def _set(form: str) -> str:
    return f'set key = "{form}" (FRESHET_KEY)'


def _printable(key: bytes) -> bool:
    try:
        return key.decode().isprintable()
    except UnicodeDecodeError:
        return False


def _short(text: str) -> str:
    return text if len(text) <= _SHOWN else text[:_SHOWN] + "..."
