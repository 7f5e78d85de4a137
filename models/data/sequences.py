"""Text files that give order only, oldest first, in one of two forms; names are separated by blanks.

user item item ...   one user a line (the S3-Rec form). K. Zhou et al., S3-Rec, CIKM 2020.
user item            one event a line, users on several lines (the SASRec form). W.-C. Kang and J. McAuley, ICDM 2018.

There are no times: a user's n-th event is dated n minutes after 2014-01-01, and only the order within a user means anything.
Each event becomes a click.
"""

from __future__ import annotations

from pathlib import Path

import polars as pl

from models.data.dataset import DataSet, dataset
from models.data.rows import MAX_ID, read_text
from stream.errors import DataError
from stream.events import CLICK

SCALE = (0.5, 5.0)  # nothing is rated
START_MS = 1_388_534_400_000
STEP_MS = 60_000


def read_sequences(path: Path, name: str = "") -> DataSet:
    """One such file. Raises DataError, with the line, where it has neither form."""
    words = pl.col("line").str.extract_all(r"\S+")
    table = (
        pl.DataFrame({"line": read_text(path).split("\n")})
        .with_row_index("number", offset=1)
        .select("number", words=words)
        .filter(pl.col("words").list.len() > 0)
        .with_columns(count=pl.col("words").list.len(), user=pl.col("words").list.first())
    )
    _check(path, table)
    events = table.select("user", item=pl.col("words").list.slice(1)).explode("item")
    at = pl.int_range(pl.len(), dtype=pl.Int64).over("user")
    made = events.select(
        user="user",
        item="item",
        behaviour=pl.lit(CLICK, pl.UInt8),
        time=START_MS + at * STEP_MS,
        value=pl.lit(float("nan")),
        text=pl.lit(""),
        scene=pl.lit(""),
    )
    return dataset(name or path.stem, made, [], SCALE, timed=False)


def _check(path: Path, table: pl.DataFrame) -> None:
    if not len(table):
        raise DataError(f"{path}: empty; expected `user item item ...` or `user item` lines")
    short = table.filter(pl.col("count") < 2)
    if len(short):
        raise DataError(f"{path}, line {short['number'][0]}: expected a user and at least one item")
    again = table.filter(pl.col("user").is_duplicated())
    if len(again) and not (table["count"] == 2).all():
        line = table.filter(pl.col("count") != 2)["number"][0]
        raise DataError(
            f"{path}, line {line}: not two names, yet user {again['user'][0]} is on more than one line; "
            "expected `user item` on every line, or every user on one line"
        )
    long = table.filter(pl.col("words").list.eval(pl.element().str.len_chars() > MAX_ID).list.any())
    if len(long):
        raise DataError(f"{path}, line {long['number'][0]}: an id of more than {MAX_ID} characters")


def sequence_files(folder: Path) -> list[Path]:
    """Candidates of these forms."""
    return [path for path in sorted(folder.glob("*.txt")) if not path.stem.lower().startswith("readme")]
