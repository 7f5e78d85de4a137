"""Text files that give order only, oldest first, in one of two forms; names are separated by blanks.

user item item ...   one user a line (the S3-Rec form). K. Zhou et al., S3-Rec, CIKM 2020.
user item            one event a line, users on several lines (the SASRec form). W.-C. Kang and J. McAuley, ICDM 2018.

There are no times: a user's n-th event is dated n minutes after 2014-01-01, and only the order within a user means anything.
Each event becomes a click. Nothing names the columns, so what does not look like names is refused: commas, quotes, braces, a
header, tabs between more than two columns, a table whose lines all have a time in one place. A folder may hold
NAME_item2attributes.json beside NAME.txt: attributes of items are categories.
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
from models.data.rows import MAX_ID, identity, table_id
from models.data.source import Source, open_text, plain_name
from models.data.table import LINE, blocks
from stream.errors import DataError
from stream.events import CLICK, Item

SCALE: Final = (0.5, 5.0)  # nothing is rated
NEITHER: Final = "`user item item ...` or `user item` lines"
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
    """The file that was named alone, or the folder's only .txt."""
    if source.path.is_dir():
        return source.only(".txt")
    name = plain_name(source.path).lower()
    return None if name.endswith(OTHERS) else source.path


def _fits(source: Source) -> bool:
    """Does its first line look like two names, or more? The reader judges every line."""
    path = _path(source)
    first = next((line for line in source.head(path) if line.strip()), "") if path else ""
    return len(first.split()) >= 2 and not re.search(STRANGE, first) and "\ufffd" not in first


def _read(source: Source) -> DataSet:
    """Raises DataError, with the line, where it has neither form."""
    path = _path(source) or source.path
    lines = pl.concat(blocks(path, ["text"], "\n", quoted=False))
    words = pl.col("text").str.extract_all(r"\S+")
    table = (
        lines.with_columns(words=words)
        .filter(pl.col("words").list.len() > 0)
        .with_columns(count=pl.col("words").list.len(), user=pl.col("words").list.first())
    )
    _check(path, table)
    pairs = table.select("user", item=pl.col("words").list.slice(1)).explode("item")
    at = pl.int_range(pl.len(), dtype=pl.Int64).over("user")
    events = shaped(pairs.with_columns(time=ORDER_START + at * ORDER_STEP), CLICK)
    return dataset(source.name, events, _items(source, path, events), source.scale(SCALE), timed=False)


def _check(path: Path, table: pl.DataFrame) -> None:
    if not len(table):
        raise DataError(f"{path}: empty; expected {NEITHER}")
    _refuse(path, table, pl.col("text").str.contains(STRANGE), f"not names with blanks between; expected {NEITHER}")
    first = table.row(0, named=True)
    if any(HEADER.fullmatch(word) for word in first["words"]):
        raise DataError(
            f"{path}, line {first[LINE]}: a header ({first['text'][:60]!r}); expected {NEITHER}. "
            "Name the columns by --user and --item, or take the header off"
        )
    tabs = pl.col("text").str.contains("\t", literal=True) & (pl.col("count") != 2)
    _refuse(path, table, tabs, f"columns with tabs between; expected {NEITHER}")
    _refuse(path, table, pl.col("count") < 2, "expected a user and at least one item")
    again = table.filter(pl.col("user").is_duplicated())
    if len(again) and not (table["count"] == 2).all():
        line = table.filter(pl.col("count") != 2)[LINE][0]
        raise DataError(
            f"{path}, line {line}: not two names, yet user {again['user'][0]} is on more than one line; "
            "expected `user item` on every line, or every user on one line"
        )
    width = table["count"][0]
    if width > 2 and (table["count"] == width).all():
        for place in range(width):
            if table["words"].list.get(place).str.contains(TIME).all():
                raise DataError(
                    f"{path}, line {first[LINE]}: {width} columns on every line, and column {place + 1} looks like times; "
                    f"expected {NEITHER}. Give the columns names in a first line, and name them by --user, --item and --time"
                )
    for name in table["words"].explode().unique().sort():
        try:
            table_id(name)
        except ValueError as error:
            why = f"an id of more than 256 characters ({error})" if len(name) > MAX_ID else str(error)
            _refuse(path, table, pl.col("words").list.contains(name), why)


def _refuse(path: Path, table: pl.DataFrame, wrong: pl.Expr, why: str) -> None:
    if len(found := table.filter(wrong)):
        raise DataError(f"{path}, line {found[LINE][0]}: {why}; found {found['text'][0][:60]!r}")


def _items(source: Source, path: Path, events: pl.DataFrame) -> list[Item]:
    """Those of the events and of the attributes, by number; none without attributes."""
    attributes = source.find(f"{plain_name(path).rsplit('.', 1)[0]}_item2attributes.json")
    if attributes is None:
        return []
    with open_text(attributes) as file:
        try:
            found = json.loads(file.read())
            if not isinstance(found, dict):
                raise ValueError("expected an object of items with lists of attributes")
            attributes_of = {identity(name): [str(one) for one in of] for name, of in found.items()}
        except (ValueError, TypeError, RecursionError, OSError, EOFError) as error:
            raise DataError(f"{attributes}: {error}") from None
    known = set(events["item"].unique().to_list()) | set(attributes_of)
    return [item(name, categories=attributes_of.get(name, ())) for name in sorted(known, key=by_number)]


FORMS: Final[tuple[Form, ...]] = (
    Form(
        "S3-Rec or SASRec text",
        f"one .txt of {NEITHER} with blanks between, NAME_item2attributes.json beside NAME.txt if there",
        "as the data set it was made from (Amazon 2014: research use)",
        "https://github.com/RUCAIBox/CIKM2020-S3Rec (Zhou et al., CIKM 2020), https://github.com/kang205/SASRec "
        "(Kang and McAuley, ICDM 2018)",
        _fits,
        _read,
    ),
)
