"""What is an id in a table, and what is none: nulls and what other programs write for them, and floats that stand for several."""

from __future__ import annotations

import json
import math
from decimal import Decimal
from pathlib import Path
from typing import Any

import polars as pl
import pytest

from models.data import read
from models.data.general import Columns, read_columns
from models.data.rows import NULLS, table_id
from stream.core.errors import DataError

NAMED = Columns("u", "i")
STEAM = 76_561_198_057_728_740


def refusal(path: Path, columns: Columns = NAMED) -> str:
    with pytest.raises(DataError) as raised:
        read_columns(path, columns)
    return str(raised.value)


def parquet(path: Path, users: list[Any], dtype: Any) -> Path:
    pl.DataFrame({"u": pl.Series(users, dtype=dtype), "i": [f"i{n}" for n in range(len(users))]}).write_parquet(path)
    return path


def jsonl(path: Path, *users: str) -> Path:
    path.write_text("".join(f'{{"u": {user}, "i": "i{n}"}}\n' for n, user in enumerate(users)))
    return path


def csv(path: Path, *users: str) -> Path:
    path.write_text("u,i\n" + "".join(f"{user},i{n}\n" for n, user in enumerate(users)))
    return path


@pytest.mark.parametrize(
    ("users", "dtype", "message"),
    [
        ([1.0, math.nan, 3.0, None], pl.Float64, "line 2: u: found nan, expected a text or a whole number: leave out"),
        ([1.0, None], pl.Float64, "line 2: u: empty; expected a name or a number"),
        ([1.0, math.inf], pl.Float64, "line 2: u: found inf, expected a text or a whole number"),
        ([1.0, 1.5], pl.Float64, "line 2: u: found 1.5, expected a text or a whole number"),
        ([1.0, float(STEAM)], pl.Float64, "line 2: u: found 7.656119805772874e+16, expected"),
        ([1.0, float(2**53)], pl.Float64, "line 2: u: found 9007199254740992.0, expected a whole number below"),
        ([1.0, float(2**24)], pl.Float32, "line 2: u: found 16777216.0, expected a whole number below 16777216"),
        (
            [Decimal("1.00"), Decimal("2.50")],
            pl.Decimal(38, 2),
            "line 2: u: found 2.50, expected a text or a whole number",
        ),
    ],
)
def test_a_parquet_column_of_floats_is_read_exactly_or_refused(
    tmp_path: Path, users: list[Any], dtype: Any, message: str
) -> None:
    if message.startswith("line 2: u: found 7.65"):
        message = f"line 2: u: found {float(STEAM)!r}, expected a whole number below 9007199254740992: "
    assert f"x.parquet, {message}" in refusal(parquet(tmp_path / "x.parquet", users, dtype))


def test_all_wrong_rows_of_a_parquet_are_counted(tmp_path: Path) -> None:
    message = refusal(parquet(tmp_path / "x.parquet", [math.nan, 1.0, 1e17] * 20, pl.Float64))
    assert "line 1: u: found nan" in message
    assert "line 3: u: found 1e+17" in message
    assert "40 wrong values in all" in message
    assert "and 30 more" in message


@pytest.mark.parametrize(
    ("users", "dtype"),
    [
        ([12.0, -3.0, float(2**53 - 1)], pl.Float64),
        ([12.0, -3.0, float(2**24 - 1)], pl.Float32),
        ([Decimal("12.00"), Decimal("-3.00"), Decimal(STEAM)], pl.Decimal(38, 2)),
        ([12, -3, STEAM], pl.Int64),
    ],
)
def test_whole_numbers_of_any_type_are_those_numbers(tmp_path: Path, users: list[Any], dtype: Any) -> None:
    found = read_columns(parquet(tmp_path / "x.parquet", users, dtype), NAMED).events["user"]
    assert sorted(found) == sorted(str(int(user)) for user in users)


@pytest.mark.parametrize(
    ("value", "message"),
    [
        ("NaN", "u: found nan, expected a text or a whole number"),
        ("Infinity", "u: found inf, expected a text or a whole number"),
        ("1.5", "u: found 1.5, expected a text or a whole number"),
        ("1e16", "u: found 1e+16, expected a whole number below 9007199254740992"),
        ("9007199254740993.0", "u: found 9007199254740992.0, expected a whole number below 9007199254740992"),
        ("true", "u: found True, expected a text or a whole number"),
        ("[1]", "u: found [1], expected a text or a whole number"),
        ("null", "u: empty; expected a name or a number"),
    ],
)
def test_a_number_of_json_that_is_no_id_names_the_line(tmp_path: Path, value: str, message: str) -> None:
    assert f"x.jsonl, line 2: {message}" in refusal(jsonl(tmp_path / "x.jsonl", "1", value))


def test_whole_numbers_of_json_are_those_numbers(tmp_path: Path) -> None:
    path = jsonl(tmp_path / "x.jsonl", "12.0", "12", '"12"', str(STEAM), str(STEAM + 1), "9007199254740993")
    assert set(read_columns(path, NAMED).events["user"]) == {"12", str(STEAM), str(STEAM + 1), "9007199254740993"}


WORDS = ("NULL", "null", "None", "\\N", "nan", "NaN", "NA", "N/A", "<NA>")


@pytest.mark.parametrize("word", WORDS)
def test_a_word_for_no_value_is_no_id_in_any_table(tmp_path: Path, word: str) -> None:
    assert word in NULLS
    message = (
        f"u: found {word!r}, which programs write for a missing value; expected a name or a number: leave the row out"
    )
    assert f"x.csv, line 3: {message}" in refusal(csv(tmp_path / "x.csv", "a", word))
    assert f"x.jsonl, line 2: {message}" in refusal(jsonl(tmp_path / "x.jsonl", '"a"', json.dumps(word)))
    assert f"x.parquet, line 2: {message}" in refusal(parquet(tmp_path / "x.parquet", ["a", word], pl.String))


def test_a_word_for_no_value_is_no_id_in_published_tables(tmp_path: Path) -> None:
    rated = tmp_path / "ratings.csv"
    rated.write_text("userId,movieId,rating,timestamp\n1,10,4.0,1445981651\nNULL,10,4.0,1445981651\n")
    with pytest.raises(DataError, match=r"ratings.csv, line 3: userId: found 'NULL', which programs write"):
        read(rated)
    for name, head in (("clicks.csv", "user,item,time\nann,a,1700000000000\n"),):
        (tmp_path / name).write_text(head + "ann,None,1700000000001\n")
        with pytest.raises(DataError, match=r"clicks.csv, line 3: item: found 'None', which programs write"):
            read(tmp_path / name)
    pl.DataFrame({"user": ["nan"], "item": ["a"], "time": [1_700_000_000_000]}).write_parquet(
        tmp_path / "clicks.parquet"
    )
    with pytest.raises(DataError, match=r"clicks.parquet, row 1: user: found 'nan', which programs write"):
        read(tmp_path / "clicks.parquet")
    inter = tmp_path / "x.inter"
    inter.write_text("user_id:token\titem_id:token\ttimestamp:float\n1\t2\t1600000000\nNaN\t2\t1600000000\n")
    with pytest.raises(DataError, match=r"x.inter, line 3: user_id: found 'NaN', which programs write"):
        read(inter)


def test_a_message_of_json_may_name_a_user_so(tmp_path: Path) -> None:
    """There a null has a type of its own, and the wire takes such a user."""
    (tmp_path / "clicks.jsonl").write_text('{"user": "None", "item": "a", "time": 1700000000000}\n')
    assert read(tmp_path).events["user"].to_list() == ["None"]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("7.656119805772874e+16", "found '7.656119805772874e+16', which programs write for a large number"),
        ("1e+16", "found '1e+16', which programs write for a large number"),
        ("7.65612E+16", "found '7.65612E+16', which programs write for a large number"),
        ("9007199254740992.0", "found '9007199254740992.0', expected a whole number below 9007199254740992"),
    ],
)
def test_a_number_that_a_program_has_rounded_is_no_id(tmp_path: Path, text: str, message: str) -> None:
    assert f"x.csv, line 3: u: {message}" in refusal(csv(tmp_path / "x.csv", "a", text))


@pytest.mark.parametrize(
    ("text", "read_as"),
    [
        ("12.0", "12"), ("12.00", "12"), ("9007199254740991.0", "9007199254740991"), (str(STEAM), str(STEAM)), ("1.5", "1.5"),
        ("703.015.38", "703.015.38"), ("5e10", "5e10"), ("none", "none"), ("Nan", "Nan"), ("nanna", "nanna"), ("007", "007"),
    ],
)  # fmt: skip
def test_what_is_a_name_in_a_csv_stays_one(tmp_path: Path, text: str, read_as: str) -> None:
    assert read_columns(csv(tmp_path / "x.csv", text), NAMED).events["user"].to_list() == [read_as]


def test_a_scene_of_floats_is_read_by_the_same_rule(tmp_path: Path) -> None:
    named = Columns("u", "i", scene="s")
    table = pl.DataFrame({"u": ["a", "a"], "i": ["x", "y"], "s": [5.0, None]})
    table.write_parquet(tmp_path / "x.parquet")
    assert read_columns(tmp_path / "x.parquet", named).events["scene"].to_list() == ["5", ""]
    table.with_columns(s=pl.Series([5.0, math.nan])).write_parquet(tmp_path / "x.parquet")
    assert "x.parquet, line 2: s: found nan" in refusal(tmp_path / "x.parquet", named)
    (tmp_path / "x.jsonl").write_text('{"u": 1, "i": 2, "s": 5.0}\n{"u": 1, "i": 2, "s": 5.5}\n')
    assert "x.jsonl, line 2: s: found 5.5" in refusal(tmp_path / "x.jsonl", named)


def test_the_words_and_no_others() -> None:
    assert [table_id(name) for name in ("Nully", "nullable", "N", "\\n", "-")] == ["Nully", "nullable", "N", "\\n", "-"]
    assert "" not in NULLS


def test_an_artist_may_have_such_a_name(tmp_path: Path) -> None:
    plays = tmp_path / "userid-timestamp-artid-artname-traid-traname.tsv"
    plays.write_text("user_000001\t2009-05-04T23:08:57Z\t\tNULL\t\tFundamental\n")
    assert read(tmp_path).events["item"].to_list() == ["NULL"]


def test_the_text_of_sequences_is_a_table_too(tmp_path: Path) -> None:
    (tmp_path / "x.txt").write_text("7 30 10 20\n8 30 NaN 20\n")
    with pytest.raises(DataError, match=r"x.txt, line 2: found 'NaN', expected a whole number"):
        read(tmp_path / "x.txt")
