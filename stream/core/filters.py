"""The filter language: which items a request or a rule is about. A small closed form of JSON (docs/rules.md). Pure.

`parse` reads a filter and names the part that is wrong by its path (`filter.all[1].price.gt`). `Columns` evaluates it over
all rows of a catalogue at once, as a mask. A filter is a tree of frozen values, so equal filters are one key of a cache.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, Final, NamedTuple

import numpy as np
from numpy.typing import NDArray

from stream.core.messages import MAX_ATTRIBUTE, MAX_ID, MAX_NAME, Item
from stream.core.refusals import found

Mask = NDArray[np.bool_]
Rows = NDArray[np.int64]
Numbers = NDArray[np.float64]

MAX_DEPTH: Final = 8
"""Nested `all`, `any` and `not`."""
MAX_CONDITIONS: Final = 64
MAX_VALUES: Final = 256
"""Values in one list."""
MAX_NUMBER: Final = MAX_ATTRIBUTE
MASK_BYTES: Final = 64 << 20
"""All masks that a catalogue keeps, together."""
MOST_MASKS: Final = 256

ALL: Final = "all"
ANY: Final = "any"
NOT: Final = "not"
ITEM: Final = "item"
CATEGORY: Final = "category"
SCENE: Final = "scene"
AVAILABLE: Final = "available"
ATTRIBUTE: Final = "attribute"
RESERVED: Final = (ALL, ANY, NOT, ITEM, CATEGORY, SCENE, AVAILABLE)
"""Members that are no attributes."""
EQUAL: Final = "eq"
IN: Final = "in"
COMPARISONS: Final = ("gt", "ge", "lt", "le")

_DATE: Final = re.compile(r"[0-9]{4}-[0-9]{2}-[0-9]{2}([T ][0-9:.]{5,15}(Z|[+-][0-9]{2}:?[0-9]{2})?)?")


class FilterError(ValueError):
    """A filter is not acceptable.

    Attributes:
        path: The part that is wrong: `filter.all[1].price.gt`.
    """

    def __init__(self, path: str, message: str) -> None:
        super().__init__(message)
        self.path = path


class Facts(NamedTuple):
    """What filters can ask of one item."""

    categories: tuple[str, ...]
    scenes: tuple[str, ...]
    attributes: Mapping[str, float | str | tuple[str, ...]]


def facts_of(message: Item) -> Facts | None:
    """Return what filters can ask of an item; None if it has none of it."""
    categories, scenes, attributes = message.categories or (), message.scenes or (), message.attributes or {}
    return Facts(categories, scenes, attributes) if categories or scenes or attributes else None


@dataclass(frozen=True, slots=True)
class Every:
    """All parts hold."""

    parts: tuple[Filter, ...]


@dataclass(frozen=True, slots=True)
class Some:
    """At least one part holds."""

    parts: tuple[Filter, ...]


@dataclass(frozen=True, slots=True)
class Not:
    """The part does not hold."""

    part: Filter


@dataclass(frozen=True, slots=True)
class Named:
    """The item is one of these, has one of these categories, or may be shown in one of these scenes, by `member`."""

    member: str
    names: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Available:
    """Whether the item can be recommended."""

    value: bool


@dataclass(frozen=True, slots=True)
class Equals:
    """An attribute is, or as a list contains, one of these texts and numbers."""

    name: str
    texts: tuple[str, ...]
    numbers: tuple[float, ...]


@dataclass(frozen=True, slots=True)
class Compares:
    """An attribute compares with a number, or as a date with one (epoch ms)."""

    name: str
    test: str
    number: float
    is_date: bool


Filter = Every | Some | Not | Named | Available | Equals | Compares


def parse(document: Any, path: str = "filter") -> Filter:
    """Return the filter in a JSON object.

    Args:
        document: JSON as Python has it.
        path: Its name in errors.

    Raises:
        FilterError: It is not a filter. The error names the part.
    """
    return _Parser().read(document, path, 1)


class _Parser:
    def __init__(self) -> None:
        self._conditions = 0

    def read(self, document: Any, path: str, depth: int) -> Filter:
        if not isinstance(document, dict):
            raise FilterError(path, f"found {found(document)}, expected an object")
        if not document:
            raise FilterError(path, "found an empty object, expected at least one condition")
        if depth > MAX_DEPTH:
            raise FilterError(path, f"expected at most {MAX_DEPTH} levels")
        parts = tuple(self._member(name, value, f"{path}.{_shown(name)}", depth) for name, value in document.items())
        return parts[0] if len(parts) == 1 else Every(parts)

    def _member(self, name: str, value: Any, path: str, depth: int) -> Filter:
        if name in (ALL, ANY):
            if not isinstance(value, (list, tuple)) or not value:
                raise FilterError(path, f"found {found(value)}, expected a list of at least one filter")
            if len(value) > MAX_CONDITIONS:
                raise FilterError(path, f"found {len(value)} filters, expected at most {MAX_CONDITIONS}")
            parts = tuple(self.read(one, f"{path}[{place}]", depth + 1) for place, one in enumerate(value))
            return Every(parts) if name == ALL else Some(parts)
        if name == NOT:
            return Not(self.read(value, path, depth + 1))
        if name == AVAILABLE:
            self._count(path)
            if not isinstance(value, bool):
                raise FilterError(path, f"found {found(value)}, expected true or false")
            return Available(value)
        if name in (ITEM, CATEGORY, SCENE):
            self._count(path)
            return Named(name, _texts(value, path))
        return self._attribute(name, value, path)

    def _attribute(self, name: str, value: Any, path: str) -> Filter:
        if not 1 <= len(name) <= MAX_NAME:
            raise FilterError(path, f"found a name of {len(name)} characters, expected 1 to {MAX_NAME}")
        if not isinstance(value, dict):
            self._count(path)
            return _equals(name, value, path)
        if not value:
            raise FilterError(path, f"found an empty object, expected one of {_OPERATORS}")
        tests = tuple(self._test(name, test, operand, f"{path}.{_shown(test)}") for test, operand in value.items())
        return tests[0] if len(tests) == 1 else Every(tests)

    def _test(self, name: str, test: str, operand: Any, path: str) -> Filter:
        self._count(path)
        if test in COMPARISONS:
            if isinstance(operand, str) and (date := date_ms(operand)) is not None:
                return Compares(name, test, date, is_date=True)
            if _is_number(operand):
                return Compares(name, test, float(operand), is_date=False)
            raise FilterError(
                path, f"found {found(operand)}, expected a number within {MAX_NUMBER:g} or a date in ISO 8601"
            )
        if test == EQUAL:
            if isinstance(operand, (list, tuple)):
                raise FilterError(path, f"found {found(operand)}, expected a text or a number; `in` takes a list")
            return _equals(name, operand, path)
        if test == IN:
            if not isinstance(operand, (list, tuple)):
                raise FilterError(path, f"found {found(operand)}, expected a list of texts or numbers")
            return _equals(name, operand, path)
        raise FilterError(path, f"there is no such test; expected one of {_OPERATORS}")

    def _count(self, path: str) -> None:
        self._conditions += 1
        if self._conditions > MAX_CONDITIONS:
            raise FilterError(path, f"expected at most {MAX_CONDITIONS} conditions in one filter")


_OPERATORS: Final = ", ".join((EQUAL, IN, *COMPARISONS))


def _shown(name: object) -> str:
    """Return a member's name for a path: cut, and nothing in it can control a terminal."""
    return repr(str(name)[:MAX_NAME])[1:-1]


def _is_number(value: Any) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool) and abs(value) <= MAX_NUMBER


def _texts(value: Any, path: str) -> tuple[str, ...]:
    values = value if isinstance(value, (list, tuple)) else (value,)
    _check_length(values, path)
    for place, one in enumerate(values):
        if not isinstance(one, str) or not 1 <= len(one) <= MAX_ID:
            where = path if values is not value else f"{path}[{place}]"
            raise FilterError(
                where, f"found {found(one)}, expected a text of 1 to {MAX_ID} characters, or a list of them"
            )
    return tuple(sorted(set(values)))


def _equals(name: str, value: Any, path: str) -> Equals:
    values = value if isinstance(value, (list, tuple)) else (value,)
    _check_length(values, path)
    for place, one in enumerate(values):
        if not (_is_number(one) or (isinstance(one, str) and len(one) <= MAX_ID)):
            where = path if values is not value else f"{path}[{place}]"
            raise FilterError(
                where,
                f"found {found(one)}, expected a text of at most {MAX_ID} characters or a number within {MAX_NUMBER:g}",
            )
    texts = {one for one in values if isinstance(one, str)}
    return Equals(name, tuple(sorted(texts)), tuple(sorted({float(one) for one in values if not isinstance(one, str)})))


def _check_length(values: Sequence[Any], path: str) -> None:
    if not 1 <= len(values) <= MAX_VALUES:
        raise FilterError(path, f"found a list of {len(values)}, expected 1 to {MAX_VALUES} values")


def date_ms(text: str) -> float | None:
    """Return a date or time in ISO 8601 as epoch ms, UTC if it names no zone; None if the text is none."""
    if not _DATE.fullmatch(text):
        return None
    try:
        moment = datetime.fromisoformat(text)
        return (moment if moment.tzinfo else moment.replace(tzinfo=UTC)).timestamp() * 1000
    except (ValueError, OverflowError):
        return None


class _Attribute(NamedTuple):
    """One attribute of all items: text -> rows; numbers and dates (epoch ms) by row, NaN for none."""

    texts: Mapping[str, list[int]]
    numbers: Numbers
    dates: Numbers


class Columns:
    """What filters can ask of all items of one snapshot of a catalogue. What is computed late is the same each time.

    Any thread may use it: at worst, two compute the same.

    Args:
        facts: The items' facts by row; None for an item that has none. It must not change.
        live: bool [N], which rows can be recommended.
        row: Returns the row of an item; 0 if there is none.
    """

    def __init__(self, facts: Sequence[Facts | None], live: Mask, row: Callable[[str], int]) -> None:
        self._facts = facts
        self._live = live
        self._row = row
        self._named: dict[str, dict[str, list[int]]] = {}
        self._attributes: dict[str, _Attribute] = {}
        self._masks: dict[Filter, Mask] = {}
        self._most = max(8, min(MOST_MASKS, MASK_BYTES // max(1, len(live))))

    def facts(self, row: int) -> Facts | None:
        """Return the facts of a row."""
        return self._facts[row]

    def scenes(self) -> Mapping[str, Sequence[int]]:
        """Return scene -> the rows that name it."""
        return self._rows_by(SCENE)

    def categories(self) -> Mapping[str, Sequence[int]]:
        """Return category -> the rows that name it."""
        return self._rows_by(CATEGORY)

    def live(self, item: str) -> bool:
        """Return whether an item is known and can be recommended."""
        return (row := self._row(item)) > 0 and bool(self._live[row])

    def unknown(self, node: Filter) -> dict[str, list[str]]:
        """Return what a filter names and no item has: ITEM, CATEGORY, SCENE or ATTRIBUTE -> names in order, each once."""
        found: dict[str, dict[str, None]] = {}

        def look(node: Filter) -> None:
            match node:
                case Every(parts) | Some(parts):
                    for part in parts:
                        look(part)
                case Not(part):
                    look(part)
                case Named(member, names):
                    for name in names:
                        if not (self._row(name) > 0 if member == ITEM else name in self._rows_by(member)):
                            found.setdefault(member, {})[name] = None
                case Equals(name=name) | Compares(name=name):
                    column = self._attribute(name)
                    if not column.texts and bool(np.isnan(column.numbers).all()):
                        found.setdefault(ATTRIBUTE, {})[name] = None
                case Available():
                    pass

        look(node)
        return {member: list(names) for member, names in found.items()}

    def mask(self, filtered: Filter) -> Mask:
        """Return bool [N], the rows for which a filter holds. The caller must not change it."""
        found = self._masks.get(filtered)
        if found is None:
            found = self._evaluate(filtered)
            found.flags.writeable = False
            if len(self._masks) >= self._most:
                self._masks.clear()
            self._masks[filtered] = found
        return found

    def _evaluate(self, node: Filter) -> Mask:
        match node:
            case Every(parts):
                return np.asarray(np.logical_and.reduce([self._evaluate(part) for part in parts]), np.bool_)
            case Some(parts):
                return np.asarray(np.logical_or.reduce([self._evaluate(part) for part in parts]), np.bool_)
            case Not(part):
                return ~self._evaluate(part)
            case Available(value):
                return np.asarray(self._live == value)
            case Named(member, names):
                return self._names(member, names)
            case Equals(name, texts, numbers):
                column = self._attribute(name)
                mask = self._marked(row for text in texts for row in column.texts.get(text, ()))
                for number in numbers:
                    mask |= column.numbers == number
                return mask
            case Compares(name, test, number, is_date):
                column = self._attribute(name)
                return _COMPARE[test](column.dates if is_date else column.numbers, number)

    def _names(self, member: str, names: tuple[str, ...]) -> Mask:
        if member == ITEM:
            mask = self._marked(self._row(name) for name in names)
            mask[:1] = False  # row 0 stands for every unknown item
            return mask
        rows = self._rows_by(member)
        mask = self._marked(row for name in names for row in rows.get(name, ()))
        if member == SCENE:  # an item without scenes may be shown anywhere
            mask |= ~self._marked(row for named in rows.values() for row in named)
        return mask

    def _marked(self, rows: Iterable[int]) -> Mask:
        mask = np.zeros(len(self._live), np.bool_)
        mask[np.fromiter(rows, np.int64)] = True
        return mask

    def _rows_by(self, member: str) -> dict[str, list[int]]:
        found = self._named.get(member)
        if found is None:
            found = {}
            for row, facts in enumerate(self._facts):
                if facts is not None:
                    for name in facts.categories if member == CATEGORY else facts.scenes:
                        found.setdefault(name, []).append(row)
            self._named[member] = found
        return found

    def _attribute(self, name: str) -> _Attribute:
        found = self._attributes.get(name)
        if found is None:
            texts: dict[str, list[int]] = {}
            numbers, dates = np.full(len(self._live), math.nan), np.full(len(self._live), math.nan)
            for row, facts in enumerate(self._facts):
                value = None if facts is None else facts.attributes.get(name)
                if isinstance(value, str):
                    texts.setdefault(value, []).append(row)
                    if (date := date_ms(value)) is not None:
                        dates[row] = date
                elif isinstance(value, tuple):
                    for text in value:
                        texts.setdefault(text, []).append(row)
                elif value is not None:
                    numbers[row] = dates[row] = value
            found = _Attribute(texts, numbers, dates)
            if len(self._attributes) >= MOST_MASKS:
                self._attributes.clear()
            self._attributes[name] = found
        return found


_COMPARE: Final[Mapping[str, Callable[[Numbers, float], Mask]]] = {
    "gt": np.greater,
    "ge": np.greater_equal,
    "lt": np.less,
    "le": np.less_equal,
}
