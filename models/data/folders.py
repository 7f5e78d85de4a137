"""Find the form of a folder or file before it is read.

Exactly one known form must fit, or the data are refused and described.
"""

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
    "To read one file with named columns (CSV separated by , ; tab or |, JSON lines, or Parquet), name the columns: "
    "--user COLUMN --item COLUMN, and --time, --value, --behaviour, --text, --scene, --action-column if the file has them "
    "(docs/data.md)"
)
NAMED: Final = 4
"""How many files an error names at most."""
CUT: Final = (".csv", ".tsv", ".txt", ".dat", ".data", ".inter")
"""Suffixes of text files. Their last line may be cut short and still be readable."""


def read(path: Path, rating_scale: Scale | None = None) -> DataSet:
    """Read a folder or a file in one of the known forms. `form` of the result names the form.

    Args:
        rating_scale: Scale of the ratings, in place of the form's own.

    Raises:
        DataError: The data cannot be read. If no form fits, the error says what the data look like, which forms are
            known, and how to convert the data. If several forms fit, it names them. If one fits, it says what is wrong,
            with file and line.
    """
    path = path.resolve()
    if not path.exists():
        raise DataError(f"{path} is neither a folder nor a file; expected data in one of the known forms: {known()}")
    found = source(path, rating_scale)
    fitting = [form for form in FORMS if form.fits(found)]
    fitting = [form for form in fitting if form.name not in GENERAL] or fitting
    if len(fitting) > 1:
        names = " and ".join(form.name for form in fitting)
        raise DataError(
            f"{path}: fits several forms, {names}; name the one file to read, or put each data set into its own folder"
        )
    if not fitting:
        several = path.is_dir() and found.listed
        one = " If one of these files is the data, name that file instead of the folder." if several else ""
        raise DataError(f"no known form. {look(found)}.{one} {CONVERT}. Known forms: {known()}")
    (form,) = fitting
    if path.is_dir():
        require_all_known(found, form)
    return finished(form.read(found), form.name, found)


def require_all_known(found: Source, form: Form) -> None:
    """Raise DataError if a file of the folder would be skipped silently.

    Such a file is not read, is not known to be published with the files that are read (Form.files), and may hold data
    (Source.listed). Or its name counts as that of another file, but its content differs.
    """
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
            f"{folder}: read as {form.name}, but that form does not read {', '.join(others[:NAMED])}{more}, and files that "
            "may be data are never skipped. Move files that are not part of the data out of the folder, or name the one file "
            f"to read. Files that are part of the data need the names that the form expects: {form.expected}"
        )
    for one, other in found.twins:
        if not same(one, other):
            raise DataError(
                f"{folder}: {one.name} and {other.name} count as the same file but hold different data; expected one of "
                "them: move the other out of the folder"
            )


def same(one: Path, other: Path) -> bool:
    """Check whether two files, plain or packed, hold the same data. Raises DataError if one cannot be unpacked."""
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
    """Return every form with its files and columns, in one line."""
    return "; ".join(f"{form.name} ({form.expected})" for form in FORMS)


def finished(data: DataSet, form: str, found: Source) -> DataSet:
    """Finish a data set of any form: an event that occurs twice counts once.

    Raises DataError if there are no events.
    """
    if not len(data.events):
        raise DataError(f"{found.path}: found no events; it was read as {form}")
    events = once(data.events)
    notes = [f"read as: {form}", *data.notes]
    if repeats := len(data.events) - len(events):
        notes.append(f"{repeats:,} events repeat an earlier one in every field that is read: each event counts once")
    notes += [
        f"{path.name}: its last line does not end with a line break; if the file was cut short, the last event may be wrong"
        for path in unended(found)
    ]
    return replace(data, events=events, form=form, notes=tuple(notes))


def once(events: pl.DataFrame) -> pl.DataFrame:
    """Return events in time order without those that equal an earlier one in every column."""
    tied = events.filter(events["time"].is_duplicated()).select("user", "item", "behaviour", "time")
    if not tied.is_duplicated().any():  # most data: nothing more to compare
        return events
    return events.unique(keep="first", maintain_order=True)


def unended(found: Source) -> list[Path]:
    """Return the plain text files that do not end with a line break.

    Unpacking already fails on a packed file that is cut short.
    """
    paths = [path for path in found.listed if path.suffix not in PACKED and plain_name(path).lower().endswith(CUT)]
    return [path for path in paths if _last(path) not in (b"\n", b"\r", b"")]


def _last(path: Path) -> bytes:
    if path.stat().st_size == 0:
        return b""
    with open_bytes(path) as file:
        file.seek(-1, 2)
        return file.read(1)
