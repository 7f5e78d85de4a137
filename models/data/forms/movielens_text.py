"""Read MovieLens 100K, 1M and 10M, text without a header.

A rating is a rating, a tag is a comment, and genres are categories.
F. M. Harper and J. A. Konstan, The MovieLens Datasets, ACM TiiS 5 (4), 2015.

Nothing in these files names their columns. So users and movies must be whole numbers, and times must be in 1995 or
later.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Final

import polars as pl

from models.data.catalogue import described, item
from models.data.columns import events, joined, number, numbers, ratings, texts, times
from models.data.dataset import DataSet, dataset
from models.data.form import Form, named
from models.data.forms.movielens import NO_GENRE, ORIGIN, TERMS
from models.data.source import Source, utf8_or_latin1
from models.data.table import LINE, blocks
from stream.core.errors import DataError
from stream.core.messages import COMMENT, RATING, Item

FIRST: Final = 788_918_400_000
"""1995-01-01 in epoch ms. GroupLens has no older ratings."""
RATINGS: Final = ("user", "item", "rating", "timestamp")
TAGS: Final = ("user", "item", "tag", "timestamp")
MOVIES: Final = ("movie", "title", "genres")
GENRES: Final = (
    "unknown", "Action", "Adventure", "Animation", "Children's", "Comedy", "Crime", "Documentary", "Drama", "Fantasy",
    "Film-Noir", "Horror", "Musical", "Mystery", "Romance", "Sci-Fi", "Thriller", "War", "Western",
)  # fmt: skip
FILMS: Final = ("movie", "title", "released", "video", "address", *GENRES)
WHOLE: Final = (1.0, 5.0)
HALVES: Final = (0.5, 5.0)


def _hundred_thousand(source: Source) -> bool:
    path = source.find("u.data")
    return path is not None and _width(source, path, "\t") == 4


def _read_hundred_thousand(source: Source) -> DataSet:
    scale = source.scale(WHOLE)
    ratings_table = _ratings(source.need("u.data"), "\t", scale)
    films = source.find("u.item")
    items = described(_films(films)) if films else []
    return dataset(source.name, ratings_table, items, scale)


def _films(path: Path) -> Iterator[Item]:
    for row in _rows(path, FILMS, "|"):
        flags = [row[genre] for genre in GENRES]
        if wrong := set(flags) - {"0", "1"}:
            raise DataError(f"{path}, line {row[LINE]}: genres: expected 19 flags of 0 or 1, found {min(wrong)[:20]!r}")
        genres = tuple(genre for genre, flag in zip(GENRES[1:], flags[1:], strict=True) if flag == "1")
        yield _item(path, row, genres)


def _dat(source: Source) -> Path | None:
    path = source.find("ratings.dat")
    return path if path and _width(source, path, "::") == 4 else None


def _million(source: Source) -> bool:
    return _dat(source) is not None and not _halves(source)


def _ten_million(source: Source) -> bool:
    return _dat(source) is not None and _halves(source)


def _halves(source: Source) -> bool:
    """Check whether the data are 10M: it has tags and half stars, and 1M has neither."""
    path = source.need("ratings.dat")
    lines = (line.split("::") for line in source.head(path, 1000))
    return source.find("tags.dat") is not None or any("." in line[2] for line in lines if len(line) == 4)


def _read_million(source: Source) -> DataSet:
    return _read_dat(source, source.scale(WHOLE))


def _read_ten_million(source: Source) -> DataSet:
    return _read_dat(source, source.scale(HALVES))


def _read_dat(source: Source, scale: tuple[float, float]) -> DataSet:
    tables = [_ratings(source.need("ratings.dat"), "::", scale)]
    if tags := source.find("tags.dat"):
        made = {**_WHO, "text": ("tag", texts)}
        rows = blocks(tags, TAGS, "::", quoted=False, encoding=utf8_or_latin1(tags))
        tables += [events(tags, block, COMMENT, made) for block in rows]
    movies = source.find("movies.dat")
    return dataset(source.name, joined(tables), described(_movies(movies)) if movies else [], scale)


def _movies(path: Path) -> Iterator[Item]:
    for row in _rows(path, MOVIES, "::"):
        yield _item(path, row, [genre for genre in row["genres"].split("|") if genre != NO_GENRE])


def _item(path: Path, row: dict[str, str], genres: Sequence[str]) -> Item:
    try:
        return item(number(row["movie"]), row["title"], categories=genres)
    except ValueError as error:
        raise DataError(f"{path}, line {row[LINE]}: movie: {error}") from None


def _rows(path: Path, columns: tuple[str, ...], separator: str) -> Iterator[dict[str, str]]:
    for block in blocks(path, columns, separator, quoted=False, encoding=utf8_or_latin1(path)):
        yield from block.iter_rows(named=True)


def _ratings(path: Path, separator: str, scale: tuple[float, float]) -> pl.DataFrame:
    made = {**_WHO, "value": ("rating", ratings(scale))}
    return joined(events(path, block, RATING, made) for block in blocks(path, RATINGS, separator, quoted=False))


def _width(source: Source, path: Path, separator: str) -> int:
    first = next((line for line in source.head(path) if line), "")
    return len(first.split(separator))


_WHO: Final = {"user": ("user", numbers), "item": ("item", numbers), "time": ("timestamp", times(1000, FIRST))}

FORMS: Final[tuple[Form, ...]] = (
    Form(
        "MovieLens 100K",
        "u.data (user, item, rating, time; separated by tabs), optionally with u.item in the same folder",
        TERMS,
        ORIGIN,
        _hundred_thousand,
        _read_hundred_thousand,
        named("u.data", "u.item", "u.user", "u.genre", "u.info", "u.occupation", "u[1-5ab].base", "u[1-5ab].test"),
    ),
    Form(
        "MovieLens 1M",
        "ratings.dat (user::movie::rating::time, whole stars), optionally with movies.dat in the same folder",
        TERMS,
        ORIGIN,
        _million,
        _read_million,
        named("ratings.dat", "movies.dat", "users.dat"),
    ),
    Form(
        "MovieLens 10M",
        "ratings.dat (user::movie::rating::time, half stars), optionally with movies.dat and tags.dat in the same folder",
        TERMS,
        ORIGIN,
        _ten_million,
        _read_ten_million,
        named("ratings.dat", "movies.dat", "tags.dat"),
    ),
)
