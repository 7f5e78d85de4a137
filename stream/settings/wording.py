"""What a setting must be, in words, and what was found instead. Pure.

A value that is not a number is not shown: it may be a secret under a wrong name.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

from stream.core.refusals import found

_NAME_PATTERNS: Final = {
    "^[A-Za-z0-9._-]{1,100}$": "1 to 100 letters, digits, dots, underscores and hyphens",
    "^[A-Za-z0-9._-]{0,100}$": "at most 100 letters, digits, dots, underscores and hyphens",
}
_KINDS: Final = {"integer": "whole number", "number": "number", "string": "text"}


def wrong(schema: Mapping[str, Any], value: object) -> str:
    """Return what was found and what was expected, for a setting with this JSON schema."""
    shown = value if isinstance(value, str) and value.isascii() and _is_number(value) else found(value, texts=False)
    return f"found {shown}, expected {expected(schema)}"


def expected(schema: Mapping[str, Any]) -> str:
    """Return in words what a setting with this JSON schema must be."""
    if "anyOf" in schema:
        return expected(next(one for one in schema["anyOf"] if one.get("type") != "null"))
    if "enum" in schema:
        *first, last = schema["enum"]
        return f"{', '.join(first)} or {last}"
    kind = schema.get("type")
    if kind == "array":
        parts = schema.get("prefixItems")
        of = f"{len(parts)} {_KINDS[parts[0]['type']]}s" if parts else f"{_KINDS[schema['items']['type']]}s"
        return f"a list of {of} in brackets"
    if kind == "boolean":
        return "true or false"
    if "path" in str(schema.get("format")):
        return "a path"
    return _NAME_PATTERNS.get(schema.get("pattern", ""), f"a {_KINDS[str(kind)]}{_range(schema)}")


def _range(schema: Mapping[str, Any]) -> str:
    least, above, most = schema.get("minimum"), schema.get("exclusiveMinimum"), schema.get("maximum")
    if least is not None and most is not None:
        return f" from {least:.10g} to {most:.10g}"
    limits = ((" of at least", least), (" above", above), (" of at most", most))
    return " and".join(f"{words} {limit:.10g}" for words, limit in limits if limit is not None)


def _is_number(text: str) -> bool:
    try:
        float(text)
    except ValueError:
        return False
    return len(text) <= 40
