"""RecBole's atomic files: what becomes what, and in which unit times are."""

from __future__ import annotations

from pathlib import Path

import pytest

from models.data.forms import recbole
from stream.core.errors import DataError
from stream.core.messages import CLICK, RATING, Item
from tests.unit.models.data.forms.published import read, rows, sample


def test_recbole(tmp_path: Path) -> None:
    data = read(sample(tmp_path, "recbole"), "recbole")
    assert rows(data) == [
        ("196", "242", RATING, 881_250_949_000, 3.0, ""),
        ("196", "302", RATING, 881_250_950_000, 1.0, ""),
        ("186", "302", RATING, 891_717_742_000, 4.5, ""),
    ]
    assert data.rating_scale == (1.0, 4.5)
    assert data.items == (
        Item("242", "Kolya", categories=("Comedy",)),
        Item("302", "L.A. Confidential", categories=("Crime", "Film-Noir")),
    )


def test_recbole_without_ratings_or_times(tmp_path: Path) -> None:
    data = read(sample(tmp_path, "recbole sessions"), "recbole sessions")
    assert [row[:4] for row in rows(data)] == [
        ("1", "9654", CLICK, 1_462_752_000_000),
        ("1", "33043", CLICK, 1_462_752_001_500),
    ]
    (tmp_path / "diginetica.inter").write_text("user_id:token\titem_id:token\trating:float\n2\t9\t1.0\n2\t8\t1.0\n")
    data = read(tmp_path, "recbole")
    assert [row[1:3] for row in rows(data)] == [("9", CLICK), ("8", CLICK)]
    assert not data.timed


@pytest.mark.parametrize(
    ("times", "message"),
    [
        (("881250949", "1700000000000"), r"line 3: timestamp: a time in milliseconds, but line 2 has one in seconds"),
        (
            ("1700000000000.0", "1700000000001", "99999999999"),
            r"line 4: timestamp: a time in seconds, but line 2 has one",
        ),
    ],
)
def test_recbole_takes_one_unit_of_times_in_a_file(tmp_path: Path, times: tuple[str, ...], message: str) -> None:
    rows = "".join(f"1\t{item}\t{time}\n" for item, time in enumerate(times))
    (tmp_path / "x.inter").write_text(f"user_id:token\titem_id:token\ttimestamp:float\n{rows}")
    with pytest.raises(DataError, match=rf"x\.inter, {message}.*expected one unit"):
        read(tmp_path, "recbole")


def test_recbole_kinds_of_several_words() -> None:
    assert recbole._kinds("'Books', 'New, Used & Rental'") == ["Books", "New, Used & Rental"]
    assert recbole._kinds("Food, Coffee & Tea") == ["Food", "Coffee & Tea"]
    assert recbole._kinds("Animation Children's Comedy") == ["Animation", "Children's", "Comedy"]
