"""The text of an error for a message that its schema refuses: what was found, what was expected, and what to do. Pure.

msgspec names types (`int`, `str`) but no value. People who read a dead letter need the value. The field is kept apart
from the message (RecordError.field), so no message repeats it.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from functools import cache
from typing import Any, Final, NamedTuple

import msgspec.inspect
from msgspec import Struct

from stream.core.times import hint, moment

TIMES: Final = ("time", "since", "until")
"""Fields that are epoch milliseconds."""
NAMES: Final = 10
"""The most field names that a message shows."""
_SHOWN: Final = 40
_PLAIN: Final = re.compile(r"[0-9TZtz:+./ -]{0,40}")
"""A number or a time, or a text that was meant to be one."""
_LONE: Final = re.compile(r"\\u[dD][89abAB][0-9a-fA-F]{2}(?!\\u)")
"""The first half of a surrogate pair, without the second."""
_KINDS: Final = {
    "array": "a list",
    "object": "an object",
    "str": "a text",
    "int": "a whole number",
    "float": "a number",
    "bool": "true or false",
    "null": "null",
}


HEX: Final = "hex digits"
_HEX = re.compile(r"\^\[0-9a-f\]\{(\d+)\}\$")


class Unread(NamedTuple):
    """The text of a number that no type can hold, such as 1e400."""

    text: str


def found(value: object, *, texts: bool = True) -> str:
    """Return a JSON value for people, cut, with its kind: `"5" (a text)`. Nothing in it can control a terminal.

    Args:
        value: The value.
        texts: Show texts that are not numbers or times, too. Must be off for headers and logs, which people other than
            the sender read.
    """
    if value is None:
        return "null"
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, str) and not texts and not _PLAIN.fullmatch(value):
        return f"a text of {len(value)} characters"
    if isinstance(value, str):
        text = f'"{repr(value[:_SHOWN])[1:-1]}"'
        return f"{text} (a text)" if len(value) <= _SHOWN else f"{text}... (a text of {len(value)} characters)"
    if isinstance(value, int):
        digits = str(value) if abs(value) < 10**_SHOWN else "a number of too many digits"
        return f"{digits} (a whole number)" if digits[-1].isdigit() else digits
    if isinstance(value, float):
        return f"{value!r} (a number)"
    if isinstance(value, Unread):
        return f"{value.text} (beyond every range)"
    if isinstance(value, list | tuple):
        return f"a list of {len(value)}"
    if isinstance(value, dict):
        return "an object"
    return f"{str(value)[:_SHOWN]!r} ({type(value).__name__})"


def fields_found(names: Iterable[str]) -> str:
    """Return the names of a message's fields, cut, for the error about a missing one."""
    shown = [repr(name[:_SHOWN])[1:-1] for name in names]
    if not shown:
        return "found no fields"
    more = f" and {len(shown) - NAMES} more" if len(shown) > NAMES else ""
    return f"found the fields {', '.join(shown[:NAMES])}{more}"


@cache
def expected(message: type[Struct], field: str) -> str:
    """Return in words what a field of a message must be; "as its schema says" for an unknown field."""
    for one in msgspec.inspect.type_info(message).fields:  # type: ignore[attr-defined]
        if one.name == field:
            return _words(one.type) + (", epoch milliseconds" if field in TIMES else "")
    return "as its schema says"


def fields_of(message: type[Struct], path: str = "") -> list[str]:
    """Return the names of a message's fields, or of those of the object that `path` names in it; [] if there is none."""
    found: Any = msgspec.inspect.type_info(message)
    for step in path.split(".") if path else ():
        fields = {one.name: one.type for one in found.fields}
        kinds = getattr(fields.get(step), "types", (fields.get(step),))
        found = next((one for one in kinds if isinstance(one, msgspec.inspect.StructType)), None)
        if found is None:
            return []
    return [one.name for one in found.fields]


def _words(kind: Any) -> str:
    if isinstance(kind, msgspec.inspect.Metadata):
        return _words(kind.type)
    if isinstance(kind, msgspec.inspect.UnionType):
        return " or ".join(_words(one) for one in kind.types)
    if isinstance(kind, msgspec.inspect.StrType):
        if kind.pattern and (digits := _HEX.fullmatch(kind.pattern)):
            return f"{digits[1]} {HEX}"
        least, most = kind.min_length or 0, kind.max_length
        return "a text" + ("" if most is None else f" of {least} to {most} characters")
    if isinstance(kind, msgspec.inspect.IntType):
        return "a whole number" + _range(kind.ge, kind.le)
    if isinstance(kind, msgspec.inspect.FloatType):
        return "a number" + _range(kind.ge, kind.le)
    if isinstance(kind, msgspec.inspect.BoolType):
        return "true or false"
    if isinstance(kind, msgspec.inspect.NoneType):
        return "null"
    if isinstance(kind, msgspec.inspect.VarTupleType):
        limit = "" if kind.max_length is None else f" of at most {kind.max_length}"
        return f"a list{limit}, each {_words(kind.item_type)}"
    if isinstance(kind, msgspec.inspect.LiteralType):
        return f"one of {', '.join(map(str, kind.values))}"
    if isinstance(kind, msgspec.inspect.DictType):
        return "an object" + ("" if kind.max_length is None else f" of at most {kind.max_length} members")
    return "as its schema says"


def _range(least: float | None, most: float | None) -> str:
    def plain(number: float) -> str:
        return str(number) if isinstance(number, int) else f"{number:g}"

    return "" if least is None or most is None else f", {plain(least)} to {plain(most)}"


def kind_of(name: str) -> str:
    """Return the words for a JSON value of which msgspec reports only the type."""
    return _KINDS.get(name, name)


def time_advice(value: object) -> str:
    """Return what to do with a time of this value, or "" if no advice applies."""
    if isinstance(value, bool):
        return ""
    if isinstance(value, str):
        if not (value.isascii() and value.isdecimal() and len(value) < 20):
            return "convert it to epoch milliseconds, UTC" + _converted(value)
        more = hint(int(value))
        return "write it without quotes" + (f"; {more}" if more else "")
    if isinstance(value, int | float) and abs(value) < 2**63:
        if message := hint(int(value)):
            return message
        return "" if float(value).is_integer() else "leave the fraction out"
    return ""


def _converted(text: str) -> str:
    """Return a text in ISO 8601 as epoch ms, as the end of a message; "" if it is none."""
    try:
        return f": {moment(text)}"
    except ValueError:
        return ""


def malformed(text: str, error: str) -> str:
    """Return the message about a text that is not JSON. `error` is the decoder's message."""
    if text.startswith("\ufeff"):
        return (
            "the value begins with a byte order mark (BOM, the bytes EF BB BF); expected JSON: send UTF-8 without it (in Python "
            'encode("utf-8"), not "utf-8-sig")'
        )
    if not text.strip():
        return "the value is blank; expected a JSON object"
    if "truncated" in error:  # so the decoder calls half of a surrogate pair before an escape, too
        return "half of a pair of surrogates in a text" if _LONE.search(text) else "the JSON ends before it is complete"
    if text.lstrip()[:8].lstrip("[{( \n").startswith("'"):
        return f"{error}; it looks like a Python dict as text, in single quotes: write it with json.dumps(...)"
    return error
