"""Find the form of a folder or file before it is read.

Exactly one known form must fit, or the data are refused and described.
"""

from __future__ import annotations

import shlex
from contextlib import suppress
from dataclasses import replace
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Final

import polars as pl

from models.data.dataset import DataSet
from models.data.form import Form
from models.data.forms.messages import NEEDED, SUFFIXES, readable
from models.data.forms.registry import FORMS, GENERAL
from models.data.looks import EMPTY, description, is_empty, look, names_of, usual_columns
from models.data.source import BROKEN, LONGEST, PACKED, Scale, Source, open_bytes, plain_name, source
from stream.core.errors import DataError

NEAREST: Final = 3
"""How many forms an error shows at most."""
DOCUMENT: Final = "docs/data.md"
"""Where all forms are described."""
OWN_FILE: Final = "clicks.csv (user,item,time)"
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
            nearest, and how to read the data. If several forms fit, it names them. If one fits, it says what is wrong,
            with file and line.
    """
    path = path.resolve()
    if not path.exists():
        raise DataError(
            f"{path} is neither a folder nor a file; expected a data folder such as one with {OWN_FILE}, or a data file; "
            f"{DOCUMENT} shows all forms"
        )
    found = source(path, rating_scale)
    fitting = [form for form in FORMS if form.fits(found)]
    fitting = [form for form in fitting if form.name not in GENERAL] or fitting
    if len(fitting) > 1:
        names = " and ".join(form.name for form in fitting)
        raise DataError(
            f"{path}: fits several forms, {names}; name the one file to read, or put each data set into its own folder"
        )
    if not fitting:
        raise unknown(found)
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


def unknown(found: Source) -> DataError:
    """Return the error for data that no form fits: what was found, the nearest forms, and what to do.

    Each part is a line of its own.
    """
    files = [found.path] if found.path.is_file() else found.listed
    if files and all(map(is_empty, files)):
        empty = files[0] if len(files) == 1 else found.path
        return DataError(f"{empty}: {EMPTY}; expected events, for example {OWN_FILE}; {DOCUMENT} shows all forms")
    if len(files) == 1:
        with suppress(OSError, pl.exceptions.PolarsError):
            description(found, files[0])  # text in another encoding, or a damaged file: only that is worth a message
    named = {path: names_of(found, path) for path in files}
    return DataError(
        f"{found.path}: no known form fits.",
        f"found: {look(found)}",
        *_nearest(found, named),
        *(_cure(found, named) if files else [f"expected: events, for example {OWN_FILE}"]),
        f"all forms: {DOCUMENT}",
    )


def _nearest(found: Source, named: dict[Path, tuple[str, ...]]) -> list[str]:
    """Return a line for each of the nearest forms: those that share the most names of columns, or a file's name."""
    names = {name.strip().lower() for columns in named.values() for name in columns}
    near: list[tuple[int, str]] = []
    for form in FORMS:
        shared = [column for column in form.columns if column.lower() in names]
        patterns = [pattern for pattern in form.files(found) if not pattern.startswith("*")]
        files = [path.name for path in named if any(fnmatchcase(plain_name(path).lower(), one) for one in patterns)]
        if form.name in GENERAL and not any(plain_name(path).lower().endswith(".txt") for path in named):
            continue
        if files or len(shared) > 1:
            same = ([f"its columns {', '.join(shared)}"] if shared else []) + files[:1]
            near.append(
                (len(shared) + bool(files), f"expected by {form.name} (found: {' and '.join(same)}): {form.expected}")
            )
    return [line for _, line in sorted(near, key=lambda one: -one[0])[:NEAREST]]


def _cure(found: Source, named: dict[Path, tuple[str, ...]]) -> list[str]:
    """Return lines that say how the data can be read although no form fits them."""
    usual = {path: usual_columns(names) for path, names in named.items()}
    path = max(named, key=lambda path: len({"user", "item"} & set(usual[path])))
    columns = {"user": "COLUMN", "item": "COLUMN"} | usual[path]
    options = " ".join(
        f"--{'action-column' if field == 'action' else field} {name if name == 'COLUMN' else shlex.quote(name)}"
        for field, name in columns.items()
    )
    more = "" if usual[path] else ", and --time, --value, --text, --scene, --action-column if the file has them"
    begin = (
        "to read it as it is, name its columns"
        if found.path.is_file()
        else f"if {shlex.quote(path.name)} is the data, name that file instead of the folder, and its columns"
    )
    lines = [f"{begin}: {options}{more} (CSV with a header and the separator , ; tab or |, JSON lines, or Parquet)"]
    topic = "comments" if "text" in named[path] else "ratings" if "value" in named[path] else "clicks"
    suffix = Path(plain_name(path).lower()).suffix
    if set(NEEDED[topic]) <= set(named[path]) and readable(found, path, NEEDED[topic]):
        lines.append(f"or rename {shlex.quote(path.name)} to {topic}{suffix if suffix in SUFFIXES else '.csv'}")
    return lines


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
