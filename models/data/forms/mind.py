"""Read MIND, the Microsoft news data set: a click on a piece of news is a click.

behaviors.tsv and news.tsv have no header, and a quotation mark in them is a plain character.

The history of a user's first impression becomes clicks before it, in order and a minute apart. The histories of the
later impressions repeat it and are skipped. An item in an impression is a click if it is marked 1. In the test set
nothing is marked, so only histories become clicks.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import Final

import polars as pl

from models.data.catalogue import collected, item
from models.data.columns import check, joined, shaped, with_dates, with_ids
from models.data.dataset import DataSet
from models.data.form import Form, named
from models.data.forms.lines import chosen, first_lines
from models.data.source import Source
from models.data.table import LINE, fields
from stream.core.messages import CLICK, Item

BEHAVIORS: Final = "behaviors.tsv"
NEWS: Final = "news.tsv"
COLUMNS: Final = ("impression", "user", "time", "history", "impressions")
NEWS_COLUMNS: Final = (
    "id",
    "category",
    "subcategory",
    "title",
    "abstract",
    "url",
    "title_entities",
    "abstract_entities",
)
EXAMPLE: Final = "11/11/2019 9:05:58 AM"
MARKED: Final = r"^\S+-[01]( \S+-[01])*$"
UNMARKED: Final = r"^N\d+( N\d+)*$"
SHAPE: Final = re.compile(r"\d+\t[^\t]+\t\d{1,2}/\d{1,2}/\d{4} \d{1,2}:\d\d:\d\d [AP]M\t[^\t]*\t[^\t]*", re.ASCII)
STEP: Final = 60_000


def read(source: Source) -> DataSet:
    """Read the data set. Times are read as UTC (the file names no zone)."""
    path = chosen(source, BEHAVIORS) or source.need(BEHAVIORS)
    firsts: list[pl.DataFrame] = []
    clicks: list[pl.DataFrame] = []
    for table in fields(path, COLUMNS, "\t", header=False, quoted=False):
        rows = _checked(path, table)
        clicks.append(_clicks(path, rows))
        # Of two impressions at the same time, the one with the longer history is the later one.
        ordered = rows.select("user", "time", "history", LINE).sort("time", pl.col("history").str.len_chars())
        firsts = [_earliest([*firsts, ordered])]
    news = source.find(NEWS)
    items = [] if news is None else [one for table in _news(news) for one in table]
    return collected(source, joined([*(_histories(path, first) for first in firsts), *clicks]), items)


def fits(source: Source) -> bool:
    lines = first_lines(source, BEHAVIORS)
    return bool(lines) and all(SHAPE.fullmatch(line) for line in lines)


def _earliest(impressions: list[pl.DataFrame]) -> pl.DataFrame:
    """Return the first impression of each user."""
    ordered = pl.concat(impressions).sort("time", maintain_order=True)
    return ordered.unique("user", keep="first", maintain_order=True)


def _checked(path: Path, table: pl.DataFrame) -> pl.DataFrame:
    table = with_ids(path, table, "user")
    table = with_dates(path, table, "time", "%m/%d/%Y %I:%M:%S %p", EXAMPLE)
    shown = pl.col("impressions").str.strip_chars()
    table = table.with_columns(pl.col("history").str.strip_chars(), impressions=shown)
    good = (shown == "") | shown.str.contains(MARKED) | shown.str.contains(UNMARKED)
    check(
        path,
        table,
        "impressions",
        good,
        "news ids separated by blanks, each followed by -1 or -0 (in the test set N and a number)",
    )
    check(
        path, table, "history", ~pl.col("history").str.contains("  ", literal=True), "news ids separated by one blank"
    )
    return table


def _clicks(path: Path, rows: pl.DataFrame) -> pl.DataFrame:
    shown = rows.select(LINE, "user", "time", item=pl.col("impressions").str.split(" ")).explode("item")
    clicked = shown.filter(pl.col("item").str.ends_with("-1")).with_columns(pl.col("item").str.strip_suffix("-1"))
    return shaped(with_ids(path, clicked, "item"), CLICK)


def _histories(path: Path, first: pl.DataFrame) -> pl.DataFrame:
    """Return the clicks of the histories.

    Their times count back from the impression: the last click is one step before it.
    """
    known = first.filter(pl.col("history") != "").with_columns(item=pl.col("history").str.split(" "))
    back = pl.int_ranges(pl.col("item").list.len().cast(pl.Int64), 0, -1)
    rows = (
        known.with_columns(back=back).explode("item", "back").with_columns(time=pl.col("time") - pl.col("back") * STEP)
    )
    return shaped(with_ids(path, rows, "item"), CLICK)


def _news(path: Path) -> list[list[Item]]:
    tables = (with_ids(path, table, "id") for table in fields(path, NEWS_COLUMNS, "\t", header=False, quoted=False))
    wanted = ("id", "title", "abstract", "category", "subcategory")
    return [[_item(*row) for row in table.select(wanted).iter_rows()] for table in tables]


def _item(name: str, title: str, abstract: str, category: str, subcategory: str) -> Item:
    return item(name, title, abstract, (category, subcategory))


FORMS: Final[tuple[Form, ...]] = (
    Form(
        name="MIND",
        expected="behaviors.tsv (impression, user, time, history, impressions; separated by tabs, no header), optionally with "
        "news.tsv in the same folder",
        terms="Microsoft Research License Terms: research use (https://msnews.github.io/)",
        origin="F. Wu et al., MIND: A Large-scale Dataset for News Recommendation, ACL 2020",
        fits=fits,
        read=read,
        files=named(BEHAVIORS, NEWS, "entity_embedding.vec", "relation_embedding.vec"),
    ),
)
