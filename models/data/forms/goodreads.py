"""Read Goodreads (UCSD Book Graph), whole or by genre.

A book that is put on a shelf is a click. With stars it is a rating. With a text it is a comment whose value is the
stars (0 stars: none). The table goodreads_interactions.csv has no times.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from pathlib import Path
from typing import Any, Final

import polars as pl

from models.data.catalogue import collected, item
from models.data.columns import check, shaped, with_ids
from models.data.dataset import NAN, DataSet, Event
from models.data.form import Form, named
from models.data.forms.lines import (
    ORDER_START,
    ORDER_STEP,
    chosen,
    click,
    first_lines,
    has_fields,
    head,
    matching,
)
from models.data.forms.times import unix
from models.data.rows import field, identity, json_rows, rating, words
from models.data.source import Scale, Source
from models.data.table import fields
from stream.core import validation
from stream.core.messages import CLICK, COMMENT, RATING, Item

SCALE: Final = (1.0, 5.0)
COLUMNS: Final = ("user_id", "book_id", "is_read", "rating", "is_reviewed")
TABLE: Final = "goodreads_interactions.csv"
STATES: Final = frozenset({"to-read", "currently-reading", "read"})  # shelves that say nothing about the book
SPOILERS: Final = "goodreads_reviews_spoiler.json"  # the same reviews split into sentences, without a time of day
MOST: Final = 10  # shelves kept as categories


def read(source: Source) -> DataSet:
    """Stream JSON lines, about 30,000 per second.

    A review that is in both kinds of files is one event, with the whole text. The time is date_added, in the zone that
    it names.
    """
    made: dict[str, Event] = {}
    scale = source.scale(SCALE)
    for path in _events(source):
        for name, event in json_rows(path, lambda row: _event(row, scale)):
            made.setdefault(name, event)
    return collected(source, list(made.values()), _books(source), SCALE)


def fits(source: Source) -> bool:
    paths = _events(source)
    return bool(paths) and has_fields(head(source, paths[0]), ("user_id", "book_id", "rating", "date_added"))


def read_table(source: Source) -> DataSet:
    """Read the table.

    It numbers its books; book_id_map.csv next to it maps the numbers to the ids in goodreads_books*.json.
    """
    path = chosen(source, TABLE) or source.need(TABLE)
    own = source.find("book_id_map.csv")
    numbers = {} if own is None else _own_ids(own)
    tables = [_table(path, table, numbers, source.scale(SCALE)) for table in fields(path, COLUMNS)]
    # The n-th event of a user is dated n minutes after the start. Only the order within a user means anything.
    at = pl.int_range(pl.len(), dtype=pl.Int64).over("user")
    whole = pl.concat(tables).with_columns(time=ORDER_START + at * ORDER_STEP)
    rated = pl.col("stars") != 0
    behaviour = pl.when(rated).then(RATING).otherwise(CLICK)
    made = shaped(whole, behaviour, value=pl.when(rated).then(pl.col("stars")).otherwise(NAN))
    return collected(source, made, _books(source), SCALE, timed=False)


def fits_table(source: Source) -> bool:
    return not fits(source) and first_lines(source, TABLE)[:1] == [",".join(COLUMNS)]


def _events(source: Source) -> list[Path]:
    """Return the files with events, reviews first, because they have the whole text."""
    reviews = matching(source, "goodreads_reviews", ".json")
    paths = [*reviews, *matching(source, "goodreads_interactions", ".json")]
    paths = [path for path in paths if not path.name.lower().startswith(SPOILERS)]
    return paths or ([source.path] if source.path.is_file() else [])


def _event(row: dict[str, Any], scale: Scale) -> tuple[str, Event]:
    user, book, time = field(row, "user_id", identity), field(row, "book_id", identity), field(row, "date_added", unix)
    stars = field(row, "rating", lambda value: _stars(value, scale))
    name = "review_text" if "review_text" in row else "review_text_incomplete"
    text = field(row, name, words) if name in row else ""
    review = str(row.get("review_id") or f"{user} {book}")
    if text:
        return review, Event(user, book, COMMENT, time, stars or NAN, text)
    return review, Event(user, book, RATING, time, stars) if stars else click(user, book, time)


def _stars(value: Any, scale: Scale) -> float:
    """Return the stars, 0 for none."""
    try:
        return 0.0 if str(value) in ("0", "0.0") else rating(value, scale)
    except ValueError as error:
        raise ValueError(f"{error}, or 0 for none") from None


def _table(path: Path, table: pl.DataFrame, numbers: dict[str, str], scale: Scale) -> pl.DataFrame:
    table = with_ids(path, table, "user_id", "book_id")
    stars = pl.col("rating").cast(pl.Float64, strict=False)
    check(path, table, "rating", (stars == 0) | stars.is_between(*scale), f"0 (none) or {validation.scale(*scale)}")
    if numbers:
        found = pl.col("book_id").is_in(list(numbers))
        check(path, table, "book_id", found, "a number that book_id_map.csv lists")
        table = table.with_columns(pl.col("book_id").replace(numbers))
    return table.select(user="user_id", item="book_id", stars=stars)


def _own_ids(path: Path) -> dict[str, str]:
    tables = fields(path, ("book_id_csv", "book_id"))
    return dict(
        row for table in tables for row in with_ids(path, table, "book_id").select("book_id_csv", "book_id").rows()
    )


def _books(source: Source) -> Iterable[Item]:
    genres = {
        book: names
        for path in matching(source, "goodreads_book_genres", ".json")
        for book, names in json_rows(path, _genres)
    }
    for path in matching(source, "goodreads_books", ".json"):
        yield from json_rows(path, lambda row: _book(row, genres))


def _genres(row: dict[str, Any]) -> tuple[str, list[str]]:
    """Return a book and its genres, those that most readers name first.

    One name may list several, separated by commas.
    """
    counts = row["genres"]
    if not isinstance(counts, dict):
        raise ValueError("genres: expected an object with names and counts")
    ordered = sorted(counts, key=lambda name: -_readers(counts[name]))
    return field(row, "book_id", identity), [one for name in ordered for one in name.split(",")]


def _readers(count: Any) -> float:
    if isinstance(count, bool) or not isinstance(count, int | float) or not math.isfinite(count):
        raise ValueError(f"genres: found {validation.shown(count)}, expected a number of readers for each")
    return count


def _book(row: dict[str, Any], genres: dict[str, list[str]]) -> Item:
    name = field(row, "book_id", identity)
    kinds = genres.get(name) or (field(row, "popular_shelves", _shelves) if "popular_shelves" in row else [])
    text = field(row, "description", words) if "description" in row else ""
    return item(name, field(row, "title", words), text, kinds)


def _shelves(value: Any) -> list[str]:
    if not isinstance(value, list) or not all(isinstance(one, dict) for one in value):
        raise ValueError("expected a list of objects with name and count")
    return [words(one.get("name")) for one in value if one.get("name") not in STATES][:MOST]


TERMS: Final = "academic use only, no redistribution, no commercial use (https://cseweb.ucsd.edu/~jmcauley/datasets/goodreads.html)"
ORIGIN: Final = "M. Wan and J. McAuley, Item Recommendation on Monotonic Behavior Chains, RecSys 2018"
BOOKS: Final = "optionally with goodreads_books*.json(.gz) and goodreads_book_genres*.json(.gz) in the same folder"
BESIDE: Final = (
    "goodreads_books*.json", "goodreads_book_genres*.json", "goodreads_book_authors*.json", "goodreads_book_series*.json",
    "goodreads_book_works*.json", "book_id_map.csv", "user_id_map.csv",
)  # fmt: skip
FORMS: Final[tuple[Form, ...]] = (
    Form(
        name="Goodreads",
        expected="goodreads_interactions*.json(.gz) or goodreads_reviews*.json(.gz) (user_id, book_id, rating, date_added), "
        + BOOKS,
        terms=TERMS,
        origin=ORIGIN,
        fits=fits,
        read=read,
        files=named("goodreads_interactions*.json", "goodreads_reviews*.json", *BESIDE),
        columns=("user_id", "book_id", "rating", "date_added"),
    ),
    Form(
        name="Goodreads table",
        expected="goodreads_interactions.csv (user_id,book_id,is_read,rating,is_reviewed), optionally with "
        "book_id_map.csv and goodreads_books*.json(.gz) in the same folder",
        terms=TERMS,
        origin=ORIGIN,
        fits=fits_table,
        read=read_table,
        files=named(TABLE, *BESIDE),
        columns=COLUMNS,
    ),
)
