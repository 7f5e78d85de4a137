"""Which form a folder or file has, before it is read: exactly one of the known forms, or it is refused and described."""

from __future__ import annotations

from dataclasses import replace
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Final

import polars as pl

from models.data.dataset import DataSet
from models.data.form import Form
from models.data.forms.registry import FORMS, GENERAL
from models.data.looks import look
from models.data.source import BROKEN, LONGEST, PACKED, Scale, Source, open_bytes, plain_name, source
from stream.core.errors import DataError

CONVERT: Final = (
    "To read one file whose columns have names (CSV with , ; tab or | between, JSON lines, Parquet), say which they are: "
    "--user COLUMN --item COLUMN, and --time, --value, --behaviour, --text, --scene, --action-column where there are such "
    "(docs/data.md)"
)
NAMED: Final = 4
"""Files that an error names."""
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
        several = path.is_dir() and found.listed
        one = " If one of these files is the data, name one file and not the folder." if several else ""
        raise DataError(f"no known form. {look(found)}.{one} {CONVERT}. Known forms: {known()}")
    (form,) = fitting
    if path.is_dir():
        require_all_known(found, form)
    return finished(form.read(found), form.name, found)


def require_all_known(found: Source, form: Form) -> None:
    """Raises DataError where a file of the folder would be passed over without a word: it is neither read nor known to lie beside
    what is read (Form.files), nor plainly no data (Source.listed); or it has the name of another and holds something else."""
    folder = found.path
    patterns = form.files(found)
    others = [
        path.name for path in found.listed if not any(fnmatchcase(plain_name(path).lower(), one) for one in patterns)
    ]
    others += sorted(
        one.name for one in folder.iterdir() if not (one.name.startswith(".") or one.is_file() or one.is_dir())
    )
    if others:
        more = f" and {len(others) - NAMED} more" if len(others) > NAMED else ""
        raise DataError(
            f"{folder}: read as {form.name}, but that form does not read {', '.join(others[:NAMED])}{more}, and nothing is "
            "passed over that may be data. Move what does not belong to the data out of the folder, or name the one file to "
            f"read; what belongs to it needs a name that is read: {form.expected}"
        )
    for one, other in found.twins:
        if not same(one, other):
            raise DataError(
                f"{folder}: {one.name} and {other.name} stand for one file and hold different data; expected one of them: take "
                "the other out of the folder"
            )


def same(one: Path, other: Path) -> bool:
    """Do two files, plain or packed, hold the same? Raises DataError where one cannot be unpacked."""
    with open_bytes(one) as first, open_bytes(other) as second:
        while True:
            pieces = []
            for path, file in ((one, first), (other, second)):
                try:
                    pieces.append(file.read(LONGEST))
                except BROKEN as error:
                    raise DataError(f"{path} cannot be unpacked: {error}") from None
            if pieces[0] != pieces[1]:
                return False
            if not pieces[0]:
                return True


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
