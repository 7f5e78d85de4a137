"""The published JSON Schemas, and strict JSON (RFC 8259: no NaN, no byte order mark, no lone surrogate) as they expect it."""

from __future__ import annotations

import json
import re
from importlib.resources import files
from typing import Any, NoReturn

MAX_DEPTH = 32

_TOKEN = re.compile(r'"(?:[^"\\]|\\.)*+(?:"|\\?\Z)|[\[\]{}]', re.DOTALL)  # linear time, also if a string does not end
_SURROGATE = re.compile(r"\\u[dD][89a-fA-F]")


def schema(name: str) -> dict[str, Any]:
    """Return the published JSON Schema of a message."""
    loaded: dict[str, Any] = json.loads(files("deploy").joinpath("schemas", f"{name}.json").read_text("utf-8"))
    return loaded


def parse(value: bytes) -> Any:
    """Parse strict JSON. Raises ValueError with what is wrong. 1e400 becomes inf, which no published schema accepts."""
    text = value.decode("utf-8")
    if text.count("[") + text.count("{") > MAX_DEPTH and depth(text) > MAX_DEPTH:
        raise ValueError(f"more than {MAX_DEPTH} nested arrays and objects")
    try:
        body = _DECODER.decode(text)
    except json.JSONDecodeError:
        raise
    except ValueError as error:
        # An integer of thousands of digits is fine in a field that no schema checks.
        if "Exceeds the limit" not in str(error):
            raise
        body = json.loads(text, parse_constant=_constant, parse_int=_integer)
    if _SURROGATE.search(text):
        # Surrogate pairs are joined by now, so any that is left is a lone one. Repeated names hide values: check all members.
        pairs = json.loads(text, object_pairs_hook=list, parse_int=_integer)
        json.dumps(pairs, ensure_ascii=False).encode("utf-8")  # UnicodeEncodeError is a ValueError
    return body


def depth(text: str) -> int:
    """Return the deepest nesting of arrays and objects in a JSON text."""
    now = deepest = 0
    for token in _TOKEN.findall(text):
        if token in ("[", "{"):
            now += 1
            deepest = max(deepest, now)
        elif token in ("]", "}"):
            now -= 1
    return deepest


def _constant(name: str) -> NoReturn:
    raise ValueError(f"{name} is not JSON")


_DECODER = json.JSONDecoder(parse_constant=_constant)


def _integer(digits: str) -> int | float:
    return int(digits) if len(digits) < 1000 else float(digits)
