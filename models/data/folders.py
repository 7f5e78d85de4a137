"""Which form a folder or file has, before it is read: exactly one of the known forms, or it is refused and described."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Final

import polars as pl

from models.data.dataset import DataSet
from models.data.forms.registry import FORMS, GENERAL
from models.data.looks import look
from models.data.source import PACKED, Scale, Source, open_bytes, plain_name, source
from stream.errors import DataError

CONVERT: Final = (
    "To read one file whose columns have names (CSV with , ; tab or | between, JSON lines, Parquet), say which they are: "
    "--user COLUMN --item COLUMN, and --time, --value, --behaviour, --text, --scene, --action-column where there are such "
    "(docs/data.md)"
)
CUT: Final = (".csv", ".tsv", ".txt", ".dat", ".data", ".inter")
"""Ends of names of text whose last line may be cut short and still be read."""


def read(path: Path, rating_scale: Scale | None = None) -> DataSet:
    """A folder or a file in one of the known forms -> its events and items; `form` says which. rating_scale: of the ratings, in
    place of the form's own.

    Raises DataError: where no form fits, it says what the data look like, what is known, and how to convert; where several fit,
    it names them; where one does, it names what is wrong, with file and line.
    """
    path = path.resolve()
    if not path.exists():
        raise DataError(
            f"{path} is not a folder and not a file; expected the data in one of the known forms: {known()}"
        )
    found = source(path, rating_scale)
    fitting = [form for form in FORMS if form.fits(found)]
    fitting = [form for form in fitting if form.name not in GENERAL] or fitting
    if len(fitting) > 1:
        names = " and ".join(form.name for form in fitting)
        raise DataError(
            f"{path}: fits several forms, {names}; name the one file to read, or put each into a folder of its own"
        )
    if not fitting:
        raise DataError(f"no known form. {look(found)}. {CONVERT}. Known forms: {known()}")
    (form,) = fitting
    return finished(form.read(found), form.name, found)


def known() -> str:
    """Every form with its files and columns, in one line."""
    return "; ".join(f"{form.name} ({form.expected})" for form in FORMS)


def finished(data: DataSet, form: str, found: Source) -> DataSet:
    """What holds for every form: an event that stands there twice counts once. Raises DataError where there is no event."""
    if not len(data.events):
        raise DataError(f"{found.path}: no event in it; it was read as {form}")
    events = once(data.events)
    notes = [f"read as: {form}", *data.notes]
    if repeats := len(data.events) - len(events):
        notes.append(
            f"{repeats:,} events stand there more than once, equal in every field that is read: each counts once"
        )
    notes += [
        f"{path.name}: its last line has no end; if the file was cut short, the last event may be wrong"
        for path in unended(found)
    ]
    return replace(data, events=events, form=form, notes=tuple(notes))


def once(events: pl.DataFrame) -> pl.DataFrame:
    """Events in time order without those that are equal to an earlier one in every column."""
    tied = events.filter(events["time"].is_duplicated()).select("user", "item", "behaviour", "time")
    if not tied.is_duplicated().any():  # most data: nothing more to compare
        return events
    return events.unique(keep="first", maintain_order=True)


def unended(found: Source) -> list[Path]:
    """Plain text files that do not end with the end of a line. What is packed tells by itself when it is cut."""
    paths = [path for path in found.listed if path.suffix not in PACKED and plain_name(path).lower().endswith(CUT)]
    return [path for path in paths if _last(path) not in (b"\n", b"\r", b"")]


def _last(path: Path) -> bytes:
    if path.stat().st_size == 0:
        return b""
    with open_bytes(path) as file:
        file.seek(-1, 2)
        return file.read(1)
