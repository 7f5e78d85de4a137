"""MovieLens folders (ratings.csv, movies.csv, tags.csv): a rating is a rating, a tag a comment, a movie's genres its
categories. F. M. Harper and J. A. Konstan, The MovieLens Datasets, ACM TiiS 5 (4), 2015.
"""

from __future__ import annotations

from pathlib import Path

from models.data.dataset import DataSet, Event, dataset
from models.data.rows import csv_rows, cut, identity, moment, rating
from stream.events import COMMENT, RATING, Item

SCALE = (0.5, 5.0)
NO_GENRE = "(no genres listed)"


def read_movielens(folder: Path) -> DataSet:
    """Times are seconds in the files and milliseconds here. Movies rated but not listed stay events on unknown items."""
    events = _ratings(folder / "ratings.csv")
    if (folder / "tags.csv").exists():
        events += csv_rows(folder / "tags.csv", ("userId", "movieId", "tag", "timestamp"), _tag)
    items = list(csv_rows(folder / "movies.csv", ("movieId", "title", "genres"), _movie))
    return dataset(folder.name, events, items, SCALE)


def read_ratings(path: Path) -> DataSet:
    """A ratings file alone: the movies are those that are rated, without titles."""
    return dataset(path.stem, _ratings(path), [], SCALE)


def _ratings(path: Path) -> list[Event]:
    return list(csv_rows(path, ("userId", "movieId", "rating", "timestamp"), _rating))


def _rating(row: dict[str, str]) -> Event:
    value = rating(row["rating"], SCALE)
    return Event(identity(row["userId"]), identity(row["movieId"]), RATING, _time(row), value)


def _tag(row: dict[str, str]) -> Event:
    return Event(identity(row["userId"]), identity(row["movieId"]), COMMENT, _time(row), text=cut(row["tag"]))


def _movie(row: dict[str, str]) -> Item:
    genres = tuple(genre for genre in row["genres"].split("|") if genre and genre != NO_GENRE)
    return Item(identity(row["movieId"]), row["title"][:1024], categories=genres)


def _time(row: dict[str, str]) -> int:
    return moment(row["timestamp"], 1000)
