"""A form: one published way to write events into files, and the reader for it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from models.data.dataset import DataSet
from models.data.source import Source


@dataclass(frozen=True)
class Form:
    """name: for people; expected: its files and columns in one line, for errors; terms: of use, in one line; origin: the
    paper or the page; fits: does it look like this form, by names of files and first lines (cheap, never raises for
    content)? read: the events and items. Raises DataError with file and line."""

    name: str
    expected: str
    terms: str
    origin: str
    fits: Callable[[Source], bool]
    read: Callable[[Source], DataSet]
