"""Source records that no worker can take, each wrong in its own way, and odd ones that every worker must take.

The table is of raw keys, values and headers, since that is what a producer sends; `Poison` says what the dead letter must name.
"""

from __future__ import annotations

import json
import time
from typing import Any, NamedTuple

from stream.core.messages import MAX_TEXT

NOW = int(time.time() * 1000)
USER = "user1"
KEY = USER.encode()
YEAR = 365 * 86_400_000  # milliseconds
OLDEST = 946_684_800_000  # the setting min_time, where nobody sets it

Headers = list[tuple[str, bytes]]


class Poison(NamedTuple):
    """One record and what its dead letter says. topic: without prefix; elsewhere: sent to a partition not its key's."""

    topic: str
    key: bytes | None
    value: bytes | None
    stage: str
    reason: str
    field: str = ""
    headers: Headers = []  # noqa: RUF012  nobody changes it
    elsewhere: bool = False


class Odd(NamedTuple):
    """One unusual record that is acceptable. item: what the worker must read in it."""

    topic: str
    key: bytes
    value: bytes
    item: str = "item-1"
    headers: Headers = []  # noqa: RUF012


def body(**fields: Any) -> bytes:
    """A click that is right, but for `fields`."""
    return json.dumps({"user": USER, "item": "item-1", "time": NOW} | fields).encode()


def with_text(more: str) -> bytes:
    """The right click with more JSON text before its last brace."""
    return body()[:-1] + b", " + more.encode() + b"}"


def without(name: str) -> bytes:
    return json.dumps({k: v for k, v in json.loads(body()).items() if k != name}).encode()


def nested(depth: int) -> bytes:
    """An unknown field that makes the whole value `depth` deep."""
    return with_text('"x": ' + "[" * (depth - 1) + "]" * (depth - 1))


def _wrong(topic: str, value: bytes | None, reason: str, field: str = "", stage: str = "validate") -> Poison:
    return Poison(topic, KEY, value, stage, reason, field)


def _undecodable(topic: str, value: bytes | None, reason: str) -> Poison:
    return _wrong(topic, value, reason, stage="decode")


HOSTILE: Headers = [("__rec.errors.stage", b"forged"), ("x\r\ny", b"\x00\xff\x1b[31m"), ("empty", b"")]
FORGED: Headers = [
    *((f"__rec.errors.{name}", b"forged") for name in ("topic", "partition", "offset", "reason", "truncated")),
    ("__rec.errors.offset", b"\xff"), ("__rec.errors.\r\n", b"1"),
]  # fmt: skip
TWICE: Headers = [("source", b"web"), ("source", b"app"), ("source", b"web")]
REPLAYS: Headers = [
    ("original-record", b"clicks/0/0\r\n"),
    ("original-record", b"clicks/0/1"),
    ("original-record", b"\xff" * 5000),
]
LONG: Headers = [("long", b"x" * (1 << 20)), ("short", b"y")]


class Raw(str):
    """A header's name of any bytes, as C clients can send it; no client in Python can."""

    raw: bytes

    def __new__(cls, raw: bytes) -> Raw:
        made = super().__new__(cls, raw.decode("utf-8", "backslashreplace"))
        made.raw = raw
        return made

    def encode(self, encoding: str = "utf-8", errors: str = "strict") -> bytes:
        return self.raw


UNNAMED: Headers = [("before", b"1"), (Raw(b"caf\xe9"), b"latin-1"), (Raw(b"\xff\xfe\x00"), b"")]

POISON: dict[str, Poison] = {
    # no JSON
    "empty": _undecodable("clicks", b"", "empty_value"),
    "null value": _undecodable("clicks", None, "null_value"),
    "not UTF-8": _undecodable("clicks", b'{"user": "user1", "item": "\xff\xfe"}', "not_utf8"),
    "UTF-16": _undecodable("clicks", body().decode().encode("utf-16"), "not_utf8"),
    "a surrogate in UTF-8": _undecodable("clicks", body().replace(b"item-1", b"\xed\xa0\x80"), "not_utf8"),
    "compressed": _undecodable("clicks", b"\x1f\x8b\x08\x00" + bytes(20), "not_utf8"),
    "truncated JSON": _undecodable("clicks", body()[:-5], "malformed_json"),
    "garbage behind": _undecodable("clicks", body() + b"}", "malformed_json"),
    "two objects": _undecodable("clicks", body() + b"\n" + body(), "malformed_json"),
    "byte order mark": _undecodable("clicks", b"\xef\xbb\xbf" + body(), "malformed_json"),
    "lone surrogate": _undecodable("clicks", body(item="\ud800"), "malformed_json"),
    "only null bytes": _undecodable("clicks", bytes(100), "malformed_json"),
    "null byte in a string": _undecodable("clicks", body().replace(b"item-1", b"item\x001"), "malformed_json"),
    "single quotes": _undecodable("clicks", body().replace(b'"', b"'"), "malformed_json"),
    "NaN": _undecodable("ratings", body(value=float("nan")), "malformed_json"),
    "Infinity": _undecodable("ratings", body(value=float("inf")), "malformed_json"),
    "deeply nested": _undecodable("clicks", nested(5000), "too_deep"),
    "nested 33 deep": _undecodable("clicks", nested(33), "too_deep"),
    # JSON, but no event
    "not an object": _wrong("clicks", b"[1, 2]", "wrong_type"),
    "JSON null": _wrong("clicks", b"null", "wrong_type"),
    "a string of JSON": _wrong("clicks", json.dumps(body().decode()).encode(), "wrong_type"),
    "missing user": _wrong("clicks", without("user"), "missing_field", "user"),
    "missing item": _wrong("clicks", without("item"), "missing_field", "item"),
    "missing text": _wrong("comments", body(), "missing_field", "text"),
    "wrong type": _wrong("clicks", body(item=7), "wrong_type", "item"),
    "null for a field": _wrong("clicks", body(item=None), "wrong_type", "item"),
    "number as a string": _wrong("clicks", body(time=str(NOW)), "wrong_type", "time"),
    "boolean as a number": _wrong("ratings", body(value=True), "wrong_type", "value"),
    "optional field of a wrong type": _wrong("clicks", body(scene=["home"]), "wrong_type", "scene"),
    "a name twice, the last one wrong": _wrong("clicks", with_text('"item": 7'), "wrong_type", "item"),
    "fraction of a millisecond": _wrong("clicks", body(time=NOW + 0.5), "wrong_type", "time"),
    # values out of their range
    "huge integer": _wrong("clicks", body(time=10**40), "out_of_range", "time"),
    "a million digits": _wrong("clicks", body().replace(str(NOW).encode(), b"1" * 1_000_000), "out_of_range", "time"),
    "negative time": _wrong("clicks", body(time=-1), "out_of_range", "time"),
    "in ten years": _wrong("clicks", body(time=NOW + 10 * YEAR), "far_future", "time"),
    "seconds": _wrong("clicks", body(time=NOW // 1000), "far_past", "time"),
    "microseconds": _wrong("clicks", body(time=NOW * 1000), "out_of_range", "time"),
    "nanoseconds": _wrong("clicks", body(time=NOW * 10**6), "out_of_range", "time"),
    "1970": _wrong("clicks", body(time=0), "far_past", "time"),
    "before 2000": _wrong("clicks", body(time=OLDEST - 1), "far_past", "time"),
    "empty item": _wrong("clicks", body(item=""), "out_of_range", "item"),
    "item of 257 characters": _wrong("clicks", body(item="i" * 257), "too_large", "item"),
    "id of 257 characters": _wrong("clicks", body(id="i" * 257), "too_large", "id"),
    "text of 16 KiB and one": _wrong("comments", body(text="x" * (MAX_TEXT + 1)), "too_large", "text"),
    "2 MB text": _wrong("comments", body(text="x" * (2 << 20)), "too_large", "text"),
    "rating out of scale": _wrong("ratings", body(value=5.5), "rating_out_of_scale", "value"),
    "negative zero": _wrong("ratings", body(value=-0.0), "rating_out_of_scale", "value"),
    "beyond any float": _wrong("ratings", body(value=1).replace(b": 1}", b": 1e400}"), "out_of_range", "value"),
    # the key and the partition
    "null key": Poison("clicks", None, body(), "key", "null_key", "user"),
    "key and body disagree": Poison("clicks", KEY, body(user="user2"), "key", "key_mismatch", "user"),
    "key not UTF-8": Poison("clicks", b"\xff\xfe", body(), "key", "key_mismatch", "user"),
    "empty user": Poison("clicks", b"", body(user=""), "validate", "out_of_range", "user"),
    "user of 257 characters": Poison("clicks", b"u" * 257, body(user="u" * 257), "validate", "too_large", "user"),
    "user with U+0000": Poison("clicks", b"a\x00b", body(user="a\x00b"), "validate", "out_of_range", "user"),
    "anyone": Poison("clicks", b"*", body(user="*"), "validate", "out_of_range", "user"),
    "mispartitioned": Poison("clicks", KEY, body(), "partition", "mispartitioned", "user", elsewhere=True),
    # headers
    "hostile headers": Poison("clicks", KEY, b"{", "decode", "malformed_json", "", HOSTILE),
    "forged letter": Poison("clicks", KEY, b"{}", "validate", "missing_field", "user", FORGED),
    "header of 1 MiB": Poison("clicks", KEY, b"{]", "decode", "malformed_json", "", LONG),
    "header name not UTF-8": Poison("clicks", KEY, b"{,", "decode", "malformed_json", "", UNNAMED),
    "a header's name again": Poison("clicks", KEY, b'{"', "decode", "malformed_json", "", TWICE),
    "hostile replay": Poison("clicks", KEY, b"{'", "decode", "malformed_json", "", REPLAYS),
}  # fmt: skip

ODD: dict[str, Odd] = {
    "a name twice, the last one right": Odd(
        "clicks", KEY, f'{{"user": 5, "item": "item-2", "user": "user1", "item": "item-1", "time": {NOW}}}'.encode()
    ),
    "whole float": Odd("clicks", KEY, body(time=float(NOW))),
    "2000": Odd("clicks", KEY, body(time=OLDEST)),
    "a million digits where nobody looks": Odd("clicks", KEY, with_text('"x": ' + "1" * 1_000_000)),
    "nested 32 deep": Odd("clicks", KEY, nested(32)),
    "brackets in a string": Odd("clicks", KEY, body(scene="[" * 100 + "{" * 100)),
    "item of 256 astral characters": Odd("clicks", KEY, body(item="\U0001f600" * 256), "\U0001f600" * 256),
    "item with U+0000": Odd("clicks", KEY, body(item="a\x00b"), "a\x00b"),
    "text of 16 KiB": Odd("comments", KEY, body(text="x" * MAX_TEXT)),
    "empty text": Odd("comments", KEY, body(text="")),
    "white space around": Odd("clicks", KEY, b" \r\n\t" + body() + b"\n"),
    "hostile headers": Odd("clicks", KEY, body(), headers=HOSTILE + FORGED),
    "header of 1 MiB": Odd("clicks", KEY, body(), headers=LONG),
    "header name not UTF-8": Odd("clicks", KEY, body(), headers=UNNAMED),
    "hostile replay": Odd("clicks", KEY, body(), headers=REPLAYS),
}
