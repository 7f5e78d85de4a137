"""Whether a filter holds for one item, from its JSON alone: docs/rules.md read once more, without code of the worker."""

from __future__ import annotations

import operator
import re
from collections.abc import Callable, Mapping
from datetime import UTC, datetime
from typing import Any, Final

_ISO: Final = re.compile(r"[0-9]{4}-[0-9]{2}-[0-9]{2}([T ][0-9:.]{5,15}(Z|[+-][0-9]{2}:?[0-9]{2})?)?")
_TESTS: Final[Mapping[str, Callable[[float, float], bool]]] = {
    "gt": operator.gt, "ge": operator.ge, "lt": operator.lt, "le": operator.le,
}  # fmt: skip


def holds(wanted: Mapping[str, Any], item: str, body: Mapping[str, Any], live: bool) -> bool:
    """Return whether an acceptable filter holds for an item.

    Args:
        wanted: The filter.
        item: The item's id.
        body: The item's message; {} if there is none.
        live: Whether the item can be recommended.
    """
    return all(_member(name, value, item, body, live) for name, value in wanted.items())


def _member(name: str, value: Any, item: str, body: Mapping[str, Any], live: bool) -> bool:
    if name == "all":
        return all(holds(one, item, body, live) for one in value)
    if name == "any":
        return any(holds(one, item, body, live) for one in value)
    if name == "not":
        return not holds(value, item, body, live)
    if name == "available":
        return bool(live is value)
    if name == "item":
        return item in _listed(value)
    if name == "category":
        return not set(_listed(value)).isdisjoint(body.get("categories") or ())
    if name == "scene":
        return not body.get("scenes") or not set(_listed(value)).isdisjoint(body["scenes"])
    attributes = body.get("attributes") or {}
    if name not in attributes:
        return False
    tests = value if isinstance(value, dict) else {"eq": value}
    return all(_test(test, operand, attributes[name]) for test, operand in tests.items())


def _listed(value: Any) -> list[Any]:
    return value if isinstance(value, list) else [value]


def _test(test: str, operand: Any, value: Any) -> bool:
    if test in ("eq", "in"):
        return any(one == each for one in _listed(operand) for each in _listed(value))
    number = value
    if isinstance(operand, str):
        operand = _date(operand)
        number = _date(value) if isinstance(value, str) else value
    return isinstance(number, (int, float)) and _TESTS[test](number, operand)


def _date(text: str) -> float | None:
    if not _ISO.fullmatch(text):
        return None
    try:
        moment = datetime.fromisoformat(text)
        return (moment if moment.tzinfo else moment.replace(tzinfo=UTC)).timestamp() * 1000
    except (ValueError, OverflowError):
        return None
