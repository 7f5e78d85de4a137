"""Read a log of freshet's own messages: clicks, ratings, comments and items.

The files are JSON lines, CSV or Parquet, plain or packed. Each line or row is one message, with the fields of
stream.core.messages. In a CSV an empty field means no value, and categories are separated by |. A missing file counts
as empty. Without a file of items, the items are those of the events. A later line for the same item replaces an earlier
one.
"""

from __future__ import annotations

import io
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any, Final, TypeVar

import msgspec
import polars as pl

from models.data import rows
from models.data.catalogue import described
from models.data.columns import NAMED, instant, number
from models.data.dataset import NAN, DataSet, Event, dataset
from models.data.form import Form, named
from models.data.forms.movielens import names
from models.data.forms.reviews import first_row
from models.data.rows import json_rows, rating, table_id
from models.data.source import BROKEN, Scale, Source, open_bytes, plain_name
from models.data.table import LINE, headed
from stream.core.errors import DataError, RecordError
from stream.core.json_body import convert
from stream.core.messages import BEHAVIOURS, SOURCE_TOPICS, Click, Comment, Item, Rating
from stream.core.refusals import found
from stream.core.validation import shown

SCALE: Final = (0.5, 5.0)  # the default of the settings; a log does not name its scale
SEPARATORS: Final = (",", ";", "\t")
"""What may separate the columns of a CSV. The first line shows which one does."""
SUFFIXES: Final = (".jsonl", ".json", ".csv", ".parquet")
WIDENED: Final = (
    "the rating scale is {0:g} to {1:g}: widened from {2:g} to {3:g} to hold the ratings found; if the data have another "
    "scale, give --rating-scale LOW HIGH; the worker needs rating_scale = [{0}, {1}]"
)
KINDS: Final[dict[str, type[Click] | type[Rating] | type[Comment]]] = {
    "clicks": Click,
    "ratings": Rating,
    "comments": Comment,
}
NEEDED: Final[dict[str, tuple[str, ...]]] = {
    "clicks": ("user", "item", "time"),
    "ratings": ("user", "item", "time", "value"),
    "comments": ("user", "item", "time", "text"),
    "items": ("item", "title"),
}
YES: Final = {"true": True, "True": True, "1": True, "false": False, "False": False, "0": False}
Note = Callable[[Iterable[str]], None]
"""Takes names of columns or fields, known or not."""
Kind = TypeVar("Kind", bound=msgspec.Struct)


def _files(source: Source, topic: str) -> list[Path]:
    return [path for suffix in SUFFIXES if (path := source.find(f"{topic}{suffix}"))]


def _fits(source: Source) -> bool:
    """Check the file names. For .csv and .json, which other forms use too (ratings.csv), the fields decide."""
    return any(_ours(source, topic, path) for topic in SOURCE_TOPICS for path in _files(source, topic))


def _ours(source: Source, topic: str, path: Path) -> bool:
    suffix = Path(plain_name(path).lower()).suffix
    if suffix == ".csv":
        return separator(source, path, NEEDED[topic]) is not None
    return suffix != ".json" or set(NEEDED[topic]) <= set(first_row(source, path))


def readable(source: Source, path: Path, needed: Sequence[str]) -> bool:
    """Check whether a file that has the needed fields could be read as messages if it had the name of a topic."""
    suffix = Path(plain_name(path).lower()).suffix
    return suffix in (".jsonl", ".json", ".parquet") or separator(source, path, needed) is not None


def separator(source: Source, path: Path, needed: Sequence[str]) -> str | None:
    """Return the separator with which the first line of a CSV names all the needed columns, or None if there is none."""
    found = (one for one in SEPARATORS if set(needed) <= {name.strip() for name in names(source, path, one)})
    return next(found, None)


def _time(text: str) -> int:
    """Return a cell of a CSV as epoch ms. Raises ValueError."""
    if not text.lstrip("-")[:1].isdecimal():
        raise ValueError(f"time: found {found(text)}, expected epoch milliseconds or ISO 8601")
    return instant(text, 1)


def _read(source: Source) -> DataSet:
    """Read the log. The rating scale is the one given for the data, else 0.5 to 5, widened if ratings lie outside."""
    events: list[Event] = []
    unread: dict[Path, dict[str, None]] = {}
    for behaviour, topic in enumerate(SOURCE_TOPICS):
        events += (_event(behaviour, message) for message in _messages(source, topic, KINDS[topic], unread))
    if not events:
        raise DataError(f"{source.path}: found no {', no '.join(BEHAVIOURS)}; expected at least one")
    items = described(_messages(source, "items", Item, unread))
    values = [event.value for event in events if event.value == event.value]
    scale = source.scale((min([SCALE[0], *values]), max([SCALE[1], *values])))
    notes: tuple[str, ...] = () if scale in (SCALE, source.rating_scale) else (WIDENED.format(*scale, *SCALE),)
    notes += (*_not_read(unread), *_unknown(events, items), *_untitled(items))
    return dataset(source.name, events, items, scale, notes=notes)


def _not_read(unread: Mapping[Path, Mapping[str, None]]) -> Iterator[str]:
    """Yield one note for each file that has columns or fields which messages do not have."""
    for path, surplus in unread.items():
        first = ", ".join(shown(name) for name in list(surplus)[:NAMED]) + (", ..." if len(surplus) > NAMED else "")
        of_items = plain_name(path).lower().startswith("items.")
        hint = "; what filters ask for belongs in `attributes`, one JSON object per item" if of_items else ""
        yield f"{path.name}: not read, because a message has no such field: {first}{hint}"


def _untitled(items: Sequence[Item]) -> Iterator[str]:
    """Yield one note if the file of items has items with an empty title: slates show only their ids."""
    untitled = [one.item for one in items if not one.title.strip()]
    if untitled:
        first = ", ".join(shown(item) for item in untitled[:NAMED]) + (", ..." if len(untitled) > NAMED else "")
        yield f"{len(untitled):,} of {len(items):,} items have an empty title: {first}"


def _unknown(events: Sequence[Event], items: Sequence[Item]) -> Iterator[str]:
    """Yield one note if events name items that the file of items lacks.

    Often a column is wrong, such as prices in place of ids.
    """
    known = {one.item for one in items}
    lacking = Counter(event.item for event in events if event.item not in known) if known else Counter[str]()
    if lacking:
        first = ", ".join(shown(item) for item in list(lacking)[:NAMED]) + (", ..." if len(lacking) > NAMED else "")
        count = f"{lacking.total():,} of {len(events):,} events name items that the file of items lacks"
        yield f"{count}, {len(lacking):,} items in all: {first}"


def _messages(source: Source, topic: str, kind: type[Kind], unread: dict[Path, dict[str, None]]) -> Iterator[Kind]:
    """Yield the messages of a topic, and note in `unread` the names of each file that messages do not have."""
    known, scale = frozenset(kind.__struct_fields__), source.rating_scale
    for path in _files(source, topic):
        note = partial(_note, unread, path, known)
        suffix = Path(plain_name(path).lower()).suffix
        if suffix == ".parquet":
            yield from _parquet(path, kind, scale, note)
        elif suffix == ".csv":
            yield from _csv(source, path, NEEDED[topic], kind, note)
        else:
            yield from json_rows(path, partial(_noted, note, kind, scale))


def _note(unread: dict[Path, dict[str, None]], path: Path, known: frozenset[str], names: Iterable[str]) -> None:
    """Note the names of a file that messages do not have, in their order."""
    if surplus := [name for name in names if name not in known]:
        unread.setdefault(path, {}).update(dict.fromkeys(surplus))


def _noted(note: Note, kind: type[Kind], scale: Scale | None, row: dict[str, Any]) -> Kind:
    note(row)
    return _made(row, kind, scale)


def _csv(source: Source, path: Path, needed: tuple[str, ...], kind: type[Kind], note: Note) -> Iterator[Kind]:
    known, scale = set(kind.__struct_fields__), source.rating_scale
    for block in headed(path, needed, separator(source, path, needed) or ","):
        note(name for name in block.columns if name != LINE)
        for row in block.iter_rows(named=True):
            filled = {name: value for name, value in row.items() if name in known and (value or name in needed)}
            try:
                _require_ids(filled)
                made = _made({name: _READ.get(name, str)(value) for name, value in filled.items()}, kind, scale)
            except ValueError as error:
                raise DataError(f"{path}, line {row[LINE]}: {error}") from None
            yield made


def _require_ids(row: Mapping[str, Any]) -> None:
    """Raise ValueError if a row of a table has a word for a missing value, or a rounded number, as an id.

    A JSON message may have such an id.
    """
    for name in ("user", "item"):
        if isinstance(text := row.get(name), str) and text:
            try:
                table_id(text)
            except ValueError as error:
                raise ValueError(f"{name}: {error}") from None


def _value(text: str) -> float:
    try:
        return rows.number(text)
    except ValueError as error:
        raise ValueError(f"value {text[:30]!r}: {error}") from None


def _yes(text: str) -> bool:
    if text not in YES:
        raise ValueError(f"available {text[:30]!r}: expected true or false")
    return YES[text]


def _object(text: str) -> Any:
    try:
        return msgspec.json.decode(text)
    except msgspec.DecodeError:
        raise ValueError(f"attributes {shown(text)}: expected a JSON object") from None


_READ: Final[dict[str, Callable[[str], Any]]] = {
    "time": _time,
    "value": _value,
    "rank": lambda text: int(number(text)),
    "dwell_ms": lambda text: int(number(text)),
    "categories": lambda text: text.split("|"),
    "scenes": lambda text: text.split("|"),
    "available": _yes,
    "attributes": _object,
}
"""How a CSV field that is not a text is read."""


def parquet(path: Path) -> pl.DataFrame:
    """Read a whole Parquet file, plain or packed. Raises DataError."""
    try:
        with open_bytes(path) as file:
            return pl.read_parquet(io.BytesIO(file.read()))
    except (pl.exceptions.PolarsError, pl.exceptions.PanicException, *BROKEN) as error:
        raise DataError(f"{path} cannot be read as Parquet: {str(error)[:200]}") from None


def _parquet(path: Path, kind: type[Kind], scale: Scale | None, note: Note) -> Iterator[Kind]:
    table = parquet(path)
    note(table.columns)
    for at, row in enumerate(table.iter_rows(named=True), start=1):
        filled: dict[str, Any] = {name: value for name, value in row.items() if value is not None}
        try:
            _require_ids(filled)
            yield _made(filled, kind, scale)
        except ValueError as error:
            raise DataError(f"{path}, row {at}: {error}") from None


def _made(row: dict[str, Any], kind: type[Kind], scale: Scale | None) -> Kind:
    """Return a row as the message that a worker would read. scale: of its value, None for any. Raises ValueError."""
    try:
        made = convert(row, kind)
        if scale and (value := getattr(made, "value", None)) is not None:
            rating(value, scale)
        return made
    except RecordError as error:
        raise ValueError(f"{error.named}") from None


def _event(behaviour: int, message: Click | Rating | Comment) -> Event:
    value = None if isinstance(message, Click) else message.value
    text = message.text if isinstance(message, Comment) else ""
    value = NAN if value is None else value
    action = (message.action or "") if isinstance(message, Click) else ""
    return Event(
        message.user, message.item, behaviour, message.time, value, text, message.scene or "", action, message.id or ""
    )


FORMS: Final[tuple[Form, ...]] = (
    Form(
        "freshet's messages",
        "clicks, ratings, comments (.jsonl, .json, .csv or .parquet) with items in the same folder, or one of these alone",
        "your own",
        "docs/messages.md",
        _fits,
        _read,
        named(*(f"{topic}{suffix}" for topic in (*SOURCE_TOPICS, "items") for suffix in SUFFIXES)),
        ("user", "item", "time", "value", "text", "scene", "action"),
    ),
)
