"""Define a form: one published way to write events into files, and the reader for it."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from models.data.dataset import DataSet
from models.data.source import Source


@dataclass(frozen=True)
class Form:
    """One form.

    Attributes:
        name: Name for people.
        expected: Its files and columns in one line, for errors.
        terms: Terms of use in one line.
        origin: The paper or the page.
        fits: Check whether the data look like this form, by file names and first lines. It is cheap and never raises
            because of the content.
        read: Read the events and items. Raises DataError with file and line.
        files: The files of a folder that it reads, and those that its publisher adds and that it skips. They are
            fnmatch patterns in lower case, without .gz or .zst.
        columns: Names of the columns or fields of its events, for the error if no form fits. () if the files name none.
    """

    name: str
    expected: str
    terms: str
    origin: str
    fits: Callable[[Source], bool]
    read: Callable[[Source], DataSet]
    files: Callable[[Source], Sequence[str]]
    columns: Sequence[str] = ()


def named(*files: str) -> Callable[[Source], Sequence[str]]:
    """Return a function for `Form.files` that returns these patterns for any folder."""
    return lambda _: files
