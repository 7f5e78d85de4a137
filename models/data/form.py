"""A form: one published way to write events into files, and the reader for it."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from models.data.dataset import DataSet
from models.data.source import Source


@dataclass(frozen=True)
class Form:
    """name: for people; expected: its files and columns in one line, for errors; terms: of use, in one line; origin: the
    paper or the page; fits: does it look like this form, by names of files and first lines (cheap, never raises for
    content)? read: the events and items. Raises DataError with file and line. files: of a folder, those that it reads, and those
    that its publisher puts beside them and that are passed over; patterns of fnmatch, in lower case, without .gz or .zst."""

    name: str
    expected: str
    terms: str
    origin: str
    fits: Callable[[Source], bool]
    read: Callable[[Source], DataSet]
    files: Callable[[Source], Sequence[str]]


def named(*files: str) -> Callable[[Source], Sequence[str]]:
    """For `files`: these, whatever lies in the folder."""
    return lambda _: files
