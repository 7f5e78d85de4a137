"""Text of sequences is what its authors publish and nothing else: numbers from 1, `user item item ...` or grouped `user item`."""

from __future__ import annotations

from pathlib import Path

import pytest

from models.data import read
from stream.core.errors import DataError

CURE = "--user and --item"


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("1 242 3\n2 302 4\n3 377 1\n", r"line 1: every line has 3 columns, as a table has"),  # user item rating
        ("1 242 3\n", r"line 1: every line has 3 columns, as a table has"),
        ("1 10 4.5\n2 10 3.0\n", r"line 1: found '4\.5', expected a whole number"),
        ("1 4.5\n1 3.0\n", r"line 1: found '4\.5'"),
        ("1 4\n1 5\n2 -1\n", r"line 3: found '-1'"),
        ("ann a 2020-01-01\nbob b 2020-01-02\n", r"line 1: found 'ann', expected a whole number"),
        ("1 2 2020-01-01 10:00:00\n2 5 2020-01-01 10:00:00\n", r"line 1: found '2020-01-01'"),
        ("1 20200101\n1 20200102\n2 20200105\n", r"line 3: item: found the number 20200105, yet only 3 different ones"),
        ("20200101 5\n20200101 6\n20200102 5\n", r"line 3: user: found the number 20200102, yet only 2 different ones"),
        ("1 1600000000\n1 1600000001\n2 1600000001\n", r"line 1: found '1600000000'.* of at most 8 digits"),
        ("1 1600000000000\n1 1600000000001\n", r"line 1: found '1600000000000'"),
        ("GET /index.html 200 512\nPOST /cart 302\n", r"line 1: found 'GET'"),
        ("the quick brown fox\nanother line of prose goes here\n", r"line 1: found 'the'"),
        ("kunde artikel\n7 30\n7 10\n", r"line 1: found 'kunde'"),
        ("client_id article_id\nann a\nann b\n", r"line 1: found 'client_id'"),
        ("7 30 10\n8 20 x7 5\n", r"line 2: found 'x7'"),
        ("7 30 10\n8 20 \u0661 5\n", r"line 2: found '\u0661'"),
        ("7 30 10\n8 0 20 5\n", r"line 2: found '0'"),
        ("7 30 10\n8 020 20 5\n", r"line 2: found '020'"),
        ("7 30\n8 10\n7 10\n8 30\n", r"line 3: user 7 again, after other users.*sort -s -n -k1,1"),
        ("7 30\n8 10\n9 10\n", r"line 1: every line has 2 columns, and no user is on two lines"),
    ],
)
def test_what_its_authors_do_not_write_is_no_sequence(tmp_path: Path, text: str, message: str) -> None:
    (tmp_path / "log.txt").write_text(text)
    with pytest.raises(DataError, match=rf"log\.txt, {message}") as found:
        read(tmp_path / "log.txt")
    assert CURE in str(found.value)
    assert str(found.value).count("\n") == 0


@pytest.mark.parametrize(
    ("text", "events"),
    [
        ("1 1 2 3\n2 4 1\n", 5),
        ("1 1\n1 2\n2 1\n", 3),
        ("1\t1\n1\t2\n2\t1\n", 3),
        ("2 900 1\n1 1\n", 3),  # a piece of a larger file
    ],
)
def test_what_its_authors_write_is_read(tmp_path: Path, text: str, events: int) -> None:
    (tmp_path / "log.txt").write_text(text)
    assert len(read(tmp_path / "log.txt").events) == events
    assert len(read(tmp_path).events) == events


def test_text_beside_other_data_is_no_data_set(tmp_path: Path) -> None:
    (tmp_path / "orders.csv").write_text("customer;sku;when\n1;a;2024-01-01\n2;b;2024-01-02\n")
    for notes in ("Exported from the shop on Monday by Bob\nAsk him for details\n", "1 7 8 9\n2 7 9\n"):
        (tmp_path / "info.txt").write_text(notes)
        with pytest.raises(DataError, match=r"info\.txt.*orders\.csv.*name that file instead of the folder") as found:
            read(tmp_path)
        assert "--user customer --item sku --time when" in str(found.value)
