"""Read RecBole atomic files: NAME.inter with a header of names and types (user_id:token, item_id:token, rating:float,
timestamp:float; separated by tabs), and NAME.item in the same folder. A row with a rating is a rating, else a click.

The files do not name the unit of their times, which must be the same throughout a file. Times from 100,000,000,000 on
are read as milliseconds (as seconds that would be the year 5138), smaller ones as seconds. A file with both is refused.
The rating scale is that of the ratings found. If all ratings are the same they say nothing, and the rows are clicks.
"""

from __future__ import annotations

import re
from glob import escape
from pathlib import Path
from typing import Final

import polars as pl

from models.data.catalogue import collected, item
from models.data.columns import check, shaped, with_ids
from models.data.dataset import DataSet
from models.data.form import Form
from models.data.forms.lines import ORDER_START, ORDER_STEP, head, matching
from models.data.source import Source
from models.data.table import LINE, fields
from stream.core.errors import DataError
from stream.core.messages import CLICK, MAX_TIME, RATING, Item

USERS: Final = ("user_id", "session_id")
NAMED: Final = re.compile(
    r"[^\s:]+:(token|float|token_seq|float_seq)(\t[^\s:]+:(token|float|token_seq|float_seq))*", re.ASCII
)
TITLES: Final = ("title", "movie_title", "name", "item_name")
TEXTS: Final = ("description", "abstract")
KINDS: Final = ("class", "genre", "genres", "categories", "category", "movie_genres", "tags")
MILLISECONDS: Final = 1e11
QUOTED: Final = re.compile(r"'([^']*)'|\"([^\"]*)\"")


def read(source: Source) -> DataSet:
    """Read the folder's only .inter file.

    Without the column timestamp the order of the rows is the time order within a user.
    """
    path = _inter(source)
    if path is None:
        raise DataError(f"{source.path}: expected one file NAME.inter; found {len(matching(source, '', '.inter'))}")
    columns = _names(source, path)
    user = next((name for name in USERS if name in columns), USERS[0])
    wanted = [user, "item_id", *(name for name in ("rating", "timestamp") if name in columns)]
    tables = [_typed(path, table, user) for table in fields(path, wanted, "\t", quoted=False, name=_name)]
    rows = pl.concat(tables)
    timed = "timestamp" in columns
    rows = _timed(path, rows) if timed else rows.with_columns(time=_order())
    # A single value is not a scale: it marks the pair of user and item and does not rate it.
    low, high = (rows["rating"].min(), rows["rating"].max()) if "rating" in columns and len(rows) else (None, None)
    items = [] if (described := source.find(f"{_stem(path)}.item")) is None else _items(source, described)
    if not isinstance(low, float) or not isinstance(high, float) or low == high:
        return collected(source, shaped(rows, CLICK), items, timed=timed)
    made = shaped(rows, RATING, value=pl.col("rating"))
    return collected(source, made, items, (low, high), timed=timed)


def fits(source: Source) -> bool:
    path = _inter(source)
    lines = [] if path is None else head(source, path, 1)
    if not lines or not NAMED.fullmatch(lines[0].rstrip()):
        return False
    columns = {_name(name) for name in lines[0].split("\t")}
    return "item_id" in columns and not columns.isdisjoint(USERS)


def _inter(source: Source) -> Path | None:
    """Return the .inter file if there is only one.

    Several (parts of a benchmark, or several data sets) are not one data set.
    """
    found = matching(source, "", ".inter")
    return found[0] if len(found) == 1 else None


def _stem(path: Path) -> str:
    return path.name.lower().split(".inter")[0]


def _files(source: Source) -> list[str]:
    """Return the names of all atomic files of the data set."""
    path = _inter(source)
    ends = ("inter", "item", "user", "kg", "link", "net", "useremb", "itememb")
    return [] if path is None else [f"{escape(_stem(path))}.{end}" for end in ends]


def _name(column: str) -> str:
    return column.strip().rsplit(":", 1)[0]


def _names(source: Source, path: Path) -> list[str]:
    lines = source.head(path, 1)
    return [_name(column) for column in lines[0].split("\t")] if lines else []


def _typed(path: Path, table: pl.DataFrame, user: str) -> pl.DataFrame:
    table = with_ids(path, table, user, "item_id").rename({user: "user", "item_id": "item"})
    for name in ("rating", "timestamp"):
        if name in table.columns:
            number = pl.col(name).cast(pl.Float64, strict=False)
            check(path, table, name, number.is_finite(), "a number")
            table = table.with_columns(number.alias(name))
    return table


def _timed(path: Path, rows: pl.DataFrame) -> pl.DataFrame:
    """Add `time` (epoch ms). Raises DataError if a time is in another unit than the first one, or out of range."""
    large = (rows["timestamp"] >= MILLISECONDS).alias("large")
    names = {True: "milliseconds", False: "seconds"}
    if len(rows) and large.any() and not large.all():
        line = rows.filter(large != large[0])[LINE][0]
        raise DataError(
            f"{path}, line {line}: timestamp: a time in {names[not large[0]]}, but line {rows[LINE][0]} has one in "
            f"{names[bool(large[0])]} (times from {MILLISECONDS:,.0f} on are milliseconds); expected one unit in the file"
        )
    unit = 1 if large.any() else 1000
    time = (pl.col("timestamp") * unit).round()
    check(path, rows, "timestamp", time.is_between(0, MAX_TIME), f"0 to {MAX_TIME // unit}")
    return rows.with_columns(time=time.cast(pl.Int64))


def _order() -> pl.Expr:
    return ORDER_START + pl.int_range(pl.len(), dtype=pl.Int64).over("user") * ORDER_STEP


def _items(source: Source, path: Path) -> list[Item]:
    columns = _names(source, path)
    title, text, kind = (next((name for name in known if name in columns), None) for known in (TITLES, TEXTS, KINDS))
    wanted = ["item_id", *(name for name in (title, text, kind) if name)]
    made = []
    for table in fields(path, wanted, "\t", quoted=False, name=_name):
        for row in with_ids(path, table, "item_id").iter_rows(named=True):
            kinds = _kinds(row[kind]) if kind else ()
            made.append(item(row["item_id"], row[title] if title else "", row[text] if text else "", kinds))
    return made


def _kinds(text: str) -> list[str]:
    """Split a token_seq.

    Its names are separated by blanks, or, if they have several words, quoted and separated by commas.
    """
    if "'" in text[:2] or '"' in text[:2]:
        return [one or other for one, other in QUOTED.findall(text)]
    return text.split(", ") if ", " in text else text.split()


FORMS: Final[tuple[Form, ...]] = (
    Form(
        name="RecBole atomic files",
        expected="one NAME.inter (header user_id:token or session_id:token, item_id:token, and optionally rating:float and "
        "timestamp:float; separated by tabs), optionally with NAME.item in the same folder",
        terms="the terms of the data set that was converted (https://github.com/RUCAIBox/RecSysDatasets)",
        origin="W. X. Zhao et al., RecBole, CIKM 2021; https://recbole.io/docs/user_guide/data/atomic_files.html",
        fits=fits,
        read=read,
        columns=("user_id:token", "session_id:token", "item_id:token", "rating:float", "timestamp:float"),
        files=_files,
    ),
)
