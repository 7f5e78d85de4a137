"""Read text files of numbers that give only the order of events, oldest first, in one of two published forms.

The numbers are separated by blanks.

user item item ...   one user per line, each user once (the S3-Rec form). K. Zhou et al., S3-Rec, CIKM 2020.
user item            one event per line, a user's lines together (the SASRec form). W.-C. Kang and J. McAuley, ICDM 2018.

There are no times: a user's n-th event is dated n minutes after 2014-01-01, and only the order within a user means
anything. Each event becomes a click. Nothing names the columns, so only what the authors' files contain is accepted:
users and items are whole numbers, counted from 1. Words, decimal numbers, days, times, a header, and tables (the same
number of columns on every line) are refused with the line. A folder may hold NAME_item2attributes.json next to
NAME.txt: attributes of items are categories.
"""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Final

import polars as pl

from models.data.catalogue import item
from models.data.columns import shaped
from models.data.dataset import DataSet, by_number, dataset
from models.data.form import Form
from models.data.forms.lines import ORDER_START, ORDER_STEP
from models.data.rows import identity
from models.data.source import Source, open_text, plain_name
from models.data.table import LINE, blocks
from stream.core.errors import DataError
from stream.core.messages import CLICK, Item

SCALE: Final = (0.5, 5.0)  # nothing is rated
LINES: Final = "`user item item ...` or `user item` lines"
NEITHER: Final = f"{LINES} of whole numbers from 1"
CURE: Final = (
    "If these are columns, separate them by commas, write their names in the first line, and name them with --user and "
    "--item (--time, --value ...); ids may then be words (docs/data.md)"
)
NUMBER: Final = r"^[1-9][0-9]{0,7}$"
"""A number has at most eight digits, because times since 1970 have nine or more."""
GAPS: Final = 100
FEW: Final = 1000
"""The authors count users and items from 1 without gaps. In a part of such a file the largest number may be up to FEW,
plus GAPS for each different number. Days (20240131) and codes are larger."""
OTHERS: Final = (
    ".csv", ".tsv", ".json", ".jsonl", ".parquet", ".dat", ".data", ".item", ".inter", ".gz", ".zst", ".zip", ".tar", ".html",
    ".xml", ".py", ".md", ".sql",
)  # fmt: skip
STRANGE: Final = r"""[,;|"'`<>()\[\]{}\\\x00-\x08\x0b-\x1f\x7f]|::"""
HEADER: Final = re.compile(
    r"(user|item|session|movie|product|visitor|uid|iid|sid|rating|time|timestamp)s?(_?ids?)?(:\w+)?", re.IGNORECASE
)
TIME: Final = r"^[0-9]{9,16}(\.[0-9]+)?$"


def _path(source: Source) -> Path | None:
    """Return the single file that was given, or the .txt of a folder that holds no other data."""
    if source.path.is_dir():
        path = source.only(".txt")
        known = set() if path is None else {path, _attributes(source, path)}
        return path if known.issuperset(source.listed) else None
    name = plain_name(source.path).lower()
    return None if name.endswith(OTHERS) else source.path


def _attributes(source: Source, path: Path) -> Path | None:
    return source.find(f"{plain_name(path).rsplit('.', 1)[0]}_item2attributes.json")


def _fits(source: Source) -> bool:
    """Check whether the first line looks like two or more names. The reader checks every line."""
    path = _path(source)
    first = next((line for line in source.head(path) if line.strip()), "") if path else ""
    return len(first.split()) >= 2 and not re.search(STRANGE, first) and "\ufffd" not in first


def _read(source: Source) -> DataSet:
    """Read the file. Raises DataError, with the line, if it has neither form."""
    path = _path(source) or source.path
    lines = pl.concat(blocks(path, ["text"], "\n", quoted=False))
    words = pl.col("text").str.extract_all(r"\S+")
    table = (
        lines.with_columns(words=words)
        .filter(pl.col("words").list.len() > 0)
        .with_columns(count=pl.col("words").list.len(), user=pl.col("words").list.first())
    )
    _check(path, table)
    pairs = table.select(LINE, "user", item=pl.col("words").list.slice(1)).explode("item")
    for name in ("user", "item"):
        _counted(path, pairs, name)
    at = pl.int_range(pl.len(), dtype=pl.Int64).over("user")
    events = shaped(pairs.with_columns(time=ORDER_START + at * ORDER_STEP), CLICK)
    return dataset(source.name, events, _items(source, path, events), source.scale(SCALE), timed=False)


def _check(path: Path, table: pl.DataFrame) -> None:
    if not len(table):
        raise DataError(f"{path}: empty; expected {NEITHER}")
    _refuse(path, table, pl.col("text").str.contains(STRANGE), f"not numbers separated by blanks; expected {NEITHER}")
    first = table.row(0, named=True)
    if any(HEADER.fullmatch(word) for word in first["words"]):
        raise DataError(
            f"{path}, line {first[LINE]}: a header ({first['text'][:60]!r}); expected {NEITHER}. "
            f"Remove the header. {CURE}"
        )
    tabs = pl.col("text").str.contains("\t", literal=True) & (pl.col("count") != 2)
    _refuse(path, table, tabs, f"columns separated by tabs; expected {NEITHER}")
    _refuse(path, table, pl.col("count") < 2, "expected a user and at least one item")
    width = table["count"][0]
    same = bool((table["count"] == width).all())
    if same and width > 2:
        for column in range(width):
            if table["words"].list.get(column).str.contains(TIME).all():
                raise DataError(
                    f"{path}, line {first[LINE]}: {width} columns on every line, and column {column + 1} looks like times; "
                    f"expected {NEITHER}. {CURE}"
                )
    _numbers(path, table)
    again = table.filter(pl.col("user").is_duplicated())
    if len(again) and not (table["count"] == 2).all():
        line = table.filter(pl.col("count") != 2)[LINE][0]
        raise DataError(
            f"{path}, line {line}: not two names, yet user {again['user'][0]} is on more than one line; "
            f"expected `user item` on every line, or each user on only one line. {CURE}"
        )
    if same and width > 2:
        raise DataError(
            f"{path}, line {first[LINE]}: every line has {width} columns, as a table has; expected {NEITHER}. "
            f"{CURE}. If they are sequences of equal length, write them as `user item` lines"
        )
    if same and not len(again):
        raise DataError(
            f"{path}, line {first[LINE]}: every line has 2 columns, and no user is on two lines; expected {NEITHER}. {CURE}"
        )
    _together(path, table)


def _numbers(path: Path, table: pl.DataFrame) -> None:
    """Raise DataError for the first word that is not a number of the form."""
    good = pl.element().str.contains(NUMBER)
    wrong = table.filter(~pl.col("words").list.eval(good).list.all())
    if len(wrong):
        row = wrong.row(0, named=True)
        word = next(word for word in row["words"] if not re.fullmatch(NUMBER, word))
        raise DataError(
            f"{path}, line {row[LINE]}: found {word[:60]!r}, expected a whole number from 1 of at most 8 digits, as "
            f"in all {LINES}. {CURE}"
        )


def _together(path: Path, table: pl.DataFrame) -> None:
    """Raise DataError if a user occurs again after other users."""
    starts = table.filter(pl.col("user") != pl.col("user").shift(1, fill_value=""))
    apart = starts.filter(~pl.col("user").is_first_distinct())
    if len(apart):
        raise DataError(
            f"{path}, line {apart[LINE][0]}: user {apart['user'][0]} again, after other users; expected all lines of a user "
            f"together: if these are users and items, oldest first, sort by user (sort -s -n -k1,1). {CURE}"
        )


def _counted(path: Path, pairs: pl.DataFrame, name: str) -> None:
    """Raise DataError if the users or the items are not numbered from 1."""
    row = pairs.row(pairs[name].cast(pl.Int64).arg_max() or 0, named=True)
    different = pairs[name].n_unique()
    if int(row[name]) > FEW + GAPS * different:
        raise DataError(
            f"{path}, line {row[LINE]}: {name}: found the number {row[name]}, yet only {different} different ones; expected "
            f"{name}s numbered from 1, as in {NEITHER}. {CURE}"
        )


def _refuse(path: Path, table: pl.DataFrame, wrong: pl.Expr, why: str) -> None:
    if len(found := table.filter(wrong)):
        raise DataError(f"{path}, line {found[LINE][0]}: {why}; found {found['text'][0][:60]!r}. {CURE}")


def _items(source: Source, path: Path, events: pl.DataFrame) -> list[Item]:
    """Return the items of the events and of the attributes, sorted by number, or none if there are no attributes."""
    attributes = _attributes(source, path)
    if attributes is None:
        return []
    with open_text(attributes) as file:
        try:
            found = json.loads(file.read())
            if not isinstance(found, dict):
                raise ValueError("expected an object with items and their lists of attributes")
            attributes_of = {identity(name): [str(one) for one in of] for name, of in found.items()}
        except (ValueError, TypeError, RecursionError, OSError, EOFError) as error:
            raise DataError(f"{attributes}: {error}") from None
    known = set(events["item"].unique().to_list()) | set(attributes_of)
    return [item(name, categories=attributes_of.get(name, ())) for name in sorted(known, key=by_number)]


FORMS: Final[tuple[Form, ...]] = (
    Form(
        "S3-Rec or SASRec text",
        f"one .txt of {NEITHER} separated by blanks, optionally with NAME_item2attributes.json next to NAME.txt",
        "the terms of the data set it was made from (Amazon 2014: research use)",
        "https://github.com/RUCAIBox/CIKM2020-S3Rec (Zhou et al., CIKM 2020), https://github.com/kang205/SASRec "
        "(Kang and McAuley, ICDM 2018)",
        _fits,
        _read,
        lambda source: [plain_name(path).lower() for path in source.listed],  # it fits only if it knows all of them
    ),
)
