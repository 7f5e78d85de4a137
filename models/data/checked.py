"""Check the events and items of a data set, vectorised, by the rules for messages in Kafka (stream.core.validation)."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any, Final, NamedTuple

import msgspec
import polars as pl

from stream.core import times, validation
from stream.core.errors import DataError, RecordError
from stream.core.json_body import JsonDecoder
from stream.core.messages import BEHAVIOURS, CLICK, COMMENT, FUTURE_MS, MAX_ID, MAX_TEXT, MAX_TIME, RATING, Item
from stream.core.validation import Rules

WHOLE_MS: Final = "whole milliseconds"
LAST: Final = len(BEHAVIOURS) - 1
TYPES: Final[dict[str, tuple[tuple[type, ...], str]]] = {
    "user": ((str,), validation.ID),
    "item": ((str,), validation.ID),
    "behaviour": ((int,), f"0 to {LAST}"),
    "time": ((int,), WHOLE_MS),
    "value": ((int, float), "a number"),
    "text": ((str,), f"a text of at most {MAX_TEXT} characters"),
    "scene": ((str,), f"a text of at most {MAX_ID} characters"),
    "action": ((str,), f"a text of at most {MAX_ID} characters"),
    "id": ((str,), f"a text of at most {MAX_ID} characters"),
}
"""Field of an event -> its Python types, and what an error says is expected if the value has another type."""

_ITEM: Final = JsonDecoder(Item)


class Fault(NamedTuple):
    """One reason why a row is not acceptable.

    Attributes:
        field: The field that is wrong.
        bad: An expression that is true for the rows with this fault.
        expected: What the error says is expected.
    """

    field: str
    bad: pl.Expr
    expected: str


def checked_events(
    name: str,
    events: Sequence[tuple[Any, ...]] | pl.DataFrame,
    schema: Mapping[str, Any],
    rules: Rules,
    now_ms: int,
) -> pl.DataFrame:
    """Return the events as a table of `schema`, in the order given.

    Args:
        name: Name of the data, for people.
        now_ms: Epoch ms.

    Raises:
        DataError: A worker would refuse an event. The error names the field, what was found, what was expected, and the
            event.
    """
    table = _columns(name, events, schema) if isinstance(events, pl.DataFrame) else _rows(name, events, schema)
    faults = list(_faults(rules, now_ms))
    found = table.select(fault.bad.any().alias(str(at)) for at, fault in enumerate(faults)).row(0)
    for fault, bad in zip(faults, found, strict=True):
        if bad:
            raise DataError(_described(name, table, fault))
    return table.cast({"behaviour": pl.UInt8})


def require_accepted(name: str, events: pl.DataFrame, rules: Rules, written: str = "") -> None:
    """Check the events of a data set by the rules of a worker.

    Args:
        written: The oldest time as written in its file, with its place (DataSet.oldest).

    Raises:
        DataError: A worker with these rules would refuse an event. The error says what to do.
    """
    for fault in _settings_faults(rules):
        if events.select(fault.bad.any()).item():
            cure = "set rating_scale to the scale of the data, or correct the data"
            if fault.field == "time":
                oldest = int(events.select(pl.col("time").min()).item())
                day = times.date(oldest - oldest % 86_400_000)
                likely = times.unit(oldest)
                cure = (
                    ""
                    if likely and not written
                    else f"if these times are right, train and replay with --min-time {day}, and set min_time for the worker"
                )
            if fault.field == "time" and written:
                count = int(events.select(fault.bad.sum()).item())
                more = f" ({count:,} events are older)" if count > 1 else ""
                made = f"; a program that took {likely} for milliseconds writes such dates" if likely else ""
                raise DataError(f"{written}, expected {fault.expected}{more}{made}; {cure}")
            raise DataError(_described(name, events, fault) + (f"; {cure}" if cure else ""))


def check_items(name: str, items: Iterable[Item]) -> None:
    """Raise DataError if a worker would refuse an item, or if an item occurs twice."""
    seen: set[str] = set()
    for item in items:
        which = f"{name}: item {validation.shown(item.item)}"
        try:
            _ITEM.decode(msgspec.json.encode(item))
        except RecordError as error:
            raise DataError(f"{which}: {error.named}") from None
        except (UnicodeEncodeError, TypeError) as error:
            found = "half of a pair of surrogates" if isinstance(error, UnicodeEncodeError) else "another type"
            raise DataError(f"{which}: found {found}, expected texts that UTF-8 can hold") from None
        if item.item in seen:
            raise DataError(
                f"{name}: item: found {validation.shown(item.item)} twice, expected each item once: keep only one of them"
            )
        seen.add(item.item)


def _faults(rules: Rules, now_ms: int) -> Iterator[Fault]:
    """Yield every fault that a row can have. The first one that applies is reported."""
    for field, (_, expected) in TYPES.items():
        yield Fault(field, pl.col(field).is_null(), expected)
    user, time = pl.col("user"), pl.col("time")
    for field in ("user", "item"):
        yield Fault(field, ~pl.col(field).str.len_chars().is_between(1, MAX_ID), validation.ID)
    yield Fault("user", (user == "*") | user.str.contains("\0", literal=True), validation.USER)
    for field, most in (("scene", MAX_ID), ("action", MAX_ID), ("id", MAX_ID), ("text", MAX_TEXT)):
        yield Fault(field, pl.col(field).str.len_chars() > most, TYPES[field][1])
    yield Fault("behaviour", ~pl.col("behaviour").is_between(0, LAST), TYPES["behaviour"][1])
    yield Fault(
        "action", (pl.col("behaviour") != CLICK) & (pl.col("action") != ""), "none, because only clicks have one"
    )
    yield Fault("time", ~time.is_between(0, MAX_TIME), f"0 to {MAX_TIME}")
    yield Fault("time", time > now_ms + FUTURE_MS, f"{validation.LATEST} now")
    yield from _settings_faults(rules)


def _settings_faults(rules: Rules) -> Iterator[Fault]:
    """Yield the faults that depend on the settings of a deployment."""
    yield Fault("time", pl.col("time") < rules.oldest, validation.earliest(rules.oldest))
    value, behaviour = pl.col("value"), pl.col("behaviour")
    rated = (behaviour == RATING) | ((behaviour == COMMENT) & value.is_not_nan())
    off = ~value.is_between(*rules.rating_scale)
    yield Fault("value", rated & (off | value.is_nan()), validation.scale(*rules.rating_scale))


def _described(name: str, table: pl.DataFrame, fault: Fault) -> str:
    """Return one line about the first row with a fault, and how many more rows have it."""
    rows = table.with_row_index("_row", offset=1).filter(fault.bad)
    row = rows.row(0, named=True)
    found = row[fault.field]
    text = "none" if found != found else validation.shown(found)
    hint = times.with_hint(found) if fault.field == "time" and found is not None else ""
    user, item, time = (validation.shown(row[field]) for field in ("user", "item", "time"))
    more = f"; and {len(rows) - 1:,} more" if len(rows) > 1 else ""
    where = f"event {row['_row']:,} of {len(table):,}: user {user}, item {item}, time {time}{more}"
    return f"{name}: {fault.field}: found {text}, expected {fault.expected}{hint} ({where})"


def _rows(name: str, events: Sequence[tuple[Any, ...]], schema: Mapping[str, Any]) -> pl.DataFrame:
    """Build a table from tuples.

    Types are checked first, because polars would turn True into a text and 1.5 into a whole number.
    """
    columns = list(zip(*events, strict=True)) or [()] * len(schema)
    made = [_series(name, field, column, schema[field]) for field, column in zip(schema, columns, strict=True)]
    return pl.DataFrame(made)


def _series(name: str, field: str, column: Sequence[Any], dtype: Any) -> pl.Series:
    """Return one field of all events. Raises DataError with the place of the first value of another type."""
    types, expected = TYPES[field]
    kinds = set(map(type, column))
    if all(issubclass(kind, types) and kind is not bool for kind in kinds):
        kind = types[-1]
        values = column if kinds <= {kind} else [kind(value) for value in column]
        try:
            return pl.Series(field, values, pl.Int64 if kind is int else dtype, strict=True)
        except (pl.exceptions.PolarsError, OverflowError, UnicodeEncodeError, TypeError):
            pass  # a number beyond 64 bits or a text that UTF-8 cannot hold; the loop below finds it
    for number, value in enumerate(column, start=1):
        if not _holds(value, types):
            found = validation.shown(value)
            hint = times.with_hint(value) if field == "time" and type(value) is int else ""
            raise DataError(
                f"{name}: {field}: found {found}, expected {expected}{hint} (event {number:,} of {len(column):,})"
            )
    raise DataError(f"{name}: {field}: expected {expected} in every event")


def _holds(value: object, types: tuple[type, ...]) -> bool:
    if not isinstance(value, types) or isinstance(value, bool):
        return False
    if isinstance(value, str):
        return validation.is_text(value)
    return not isinstance(value, int) or -(2**63) <= value < 2**63


def _columns(name: str, events: pl.DataFrame, schema: Mapping[str, Any]) -> pl.DataFrame:
    """Return a table with the columns of `schema` in that order, with narrower numbers widened.

    Raises DataError for other columns.
    """
    made = []
    for field, dtype in schema.items():
        if field not in events.columns:
            raise DataError(f"{name}: {field}: missing, expected the columns {', '.join(schema)}")
        column = events[field]
        found, types = column.dtype, TYPES[field][0]
        if types == (str,):
            fits, expected = found == pl.String, "String"
        elif types == (int,):
            fits, expected, dtype = found.is_integer(), "whole numbers", pl.Int64
        else:
            fits, expected = found.is_float() or found.is_integer(), "numbers"
        if not fits:
            raise DataError(f"{name}: {field}: found a column of {found}, expected {expected}")
        try:
            made.append(column if found == dtype else column.cast(dtype, strict=True))
        except pl.exceptions.PolarsError:
            raise DataError(f"{name}: {field}: found numbers beyond 64 bits, expected {TYPES[field][1]}") from None
    return pl.DataFrame(made)
