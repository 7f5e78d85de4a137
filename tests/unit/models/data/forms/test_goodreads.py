"""Goodreads: what becomes what, and where genres come from."""

from __future__ import annotations

from pathlib import Path

import polars as pl
import pytest

from stream.core.errors import DataError
from stream.core.messages import CLICK, COMMENT, RATING, Item
from tests.unit.models.data.forms.published import read, rows, sample
from tests.unit.models.data.published_samples import SAMPLES


def test_goodreads(tmp_path: Path) -> None:
    data = read(sample(tmp_path, "goodreads"), "goodreads")
    assert rows(data) == [
        ("8842281e", "402128", RATING, 1_366_384_515_000, 4.0, ""),
        ("3ca7375d", "402128", COMMENT, 1_420_070_401_000, 5.0, "I have three siblings."),
        ("8842281e", "92270", CLICK, 1_476_642_600_000, None, ""),
    ]
    assert data.items == (
        Item("402128", "Old Possum's Book", "Practical cats.", ("poetry", "cats")),
        Item("92270", ""),
    )


def test_goodreads_genres_stand_before_shelves(tmp_path: Path) -> None:
    SAMPLES["goodreads"](tmp_path)
    genres = '{"book_id": "402128", "genres": {"children": 2, "poetry, verse": 20}}\n'
    (tmp_path / "goodreads_book_genres_initial.json").write_text(genres)
    assert read(tmp_path, "goodreads").items[0].categories == ("poetry", "verse", "children")


@pytest.mark.parametrize("count", ['"1_0"', "null", "NaN", "true"])
def test_goodreads_genres_are_counted_by_numbers(tmp_path: Path, count: str) -> None:
    SAMPLES["goodreads"](tmp_path)
    genres = f'{{"book_id": "402128", "genres": {{"children": 2, "poetry": {count}}}}}\n'
    (tmp_path / "goodreads_book_genres_initial.json").write_text(genres)
    with pytest.raises(DataError, match=r"genres_initial.json, line 1: genres: found .*, expected a number of readers"):
        read(tmp_path, "goodreads")


def test_goodreads_table(tmp_path: Path) -> None:
    data = read(sample(tmp_path, "goodreads table"), "goodreads table")
    assert not data.timed
    zero = data.events.filter(pl.col("user") == "0")
    assert zero["item"].to_list() == ["402128", "92270"]
    assert zero["behaviour"].to_list() == [RATING, CLICK]
    assert data.events.filter(pl.col("user") == "1")["value"].to_list() == [3.0]
    assert data.items[0].title == "Old Possum's Book"
    (tmp_path / "book_id_map.csv").unlink()
    assert read(tmp_path, "goodreads table").events["item"].unique().sort().to_list() == ["947", "948"]
