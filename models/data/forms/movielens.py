"""Read MovieLens as CSV (20M, 25M, 32M, latest, latest-small).

A rating is a rating, a tag is a comment, and the genres of a movie are its categories.
F. M. Harper and J. A. Konstan, The MovieLens Datasets, ACM TiiS 5 (4), 2015.
"""

from __future__ import annotations

from pathlib import Path
from typing import Final

import polars as pl

from models.data.catalogue import described, item
from models.data.columns import events, ids, joined, ratings, texts, times
from models.data.dataset import DataSet, dataset
from models.data.form import Form, named
from models.data.rows import csv_rows, table_id
from models.data.source import Scale, Source
from models.data.table import headed, split
from stream.core.messages import COMMENT, RATING, Item

SCALE: Final = (0.5, 5.0)
NO_GENRE: Final = "(no genres listed)"
RATINGS: Final = ("userId", "movieId", "rating", "timestamp")
TAGS: Final = ("userId", "movieId", "tag", "timestamp")
MOVIES: Final = ("movieId", "title", "genres")
TERMS: Final = "research use, no redistribution without permission, no commercial use without permission (GroupLens)"
ORIGIN: Final = "https://grouplens.org/datasets/movielens/; Harper and Konstan, ACM TiiS 5 (4), 2015"


def names(source: Source, path: Path, separator: str = ",") -> list[str]:
    """Return the fields of the first line, as if it were a header."""
    first = source.head(path, 1)
    return (split(first[0], separator) or []) if first else []


def _fits(source: Source) -> bool:
    path = source.find("ratings.csv")
    return path is not None and source.find("movies.csv") is not None and set(RATINGS) <= set(names(source, path))


def _read(source: Source) -> DataSet:
    """Read the folder. Times are seconds in the files and milliseconds here.

    Ratings of movies that movies.csv does not list stay events on unknown items.
    """
    tables = [_ratings(source.need("ratings.csv"), source.scale(SCALE))]
    if tags := source.find("tags.csv"):
        made = {
            "user": ("userId", ids),
            "item": ("movieId", ids),
            "time": ("timestamp", times(1000)),
            "text": ("tag", texts),
        }
        tables += [events(tags, block, COMMENT, made) for block in headed(tags, TAGS)]
    items = described(csv_rows(source.need("movies.csv"), MOVIES, _movie))
    return dataset(source.name, joined(tables), items, source.scale(SCALE))


def _alone(source: Source) -> Path | None:
    path = source.only(".csv")
    return path if path and set(RATINGS) <= set(names(source, path)) else None


def _read_alone(source: Source) -> DataSet:
    """Read ratings.csv alone. The items are the rated movies, without titles."""
    path = _alone(source)
    scale = source.scale(SCALE)
    return dataset(source.name, _ratings(path or source.need("ratings.csv"), scale), [], scale)


def _ratings(path: Path, scale: Scale) -> pl.DataFrame:
    made = {
        "user": ("userId", ids),
        "item": ("movieId", ids),
        "value": ("rating", ratings(scale)),
        "time": ("timestamp", times(1000)),
    }
    return joined(events(path, block, RATING, made) for block in headed(path, RATINGS))


def _movie(row: dict[str, str]) -> Item:
    genres = [genre for genre in row["genres"].split("|") if genre != NO_GENRE]
    return item(table_id(row["movieId"]), row["title"], categories=genres)


FORMS: Final[tuple[Form, ...]] = (
    Form(
        "MovieLens CSV",
        "a folder with ratings.csv (userId,movieId,rating,timestamp), movies.csv (movieId,title,genres) and optionally tags.csv",
        TERMS,
        ORIGIN,
        _fits,
        _read,
        named("ratings.csv", "movies.csv", "tags.csv", "links.csv", "genome-scores.csv", "genome-tags.csv"),
        RATINGS,
    ),
    Form(
        "MovieLens ratings.csv alone",
        "one .csv with the columns userId,movieId,rating,timestamp",
        TERMS,
        ORIGIN,
        lambda source: _alone(source) is not None,
        _read_alone,
        named("*.csv"),
        RATINGS,
    ),
)
