"""Read Amazon ratings alone, as CSV: a rating is a rating.

The files of 2014 and 2018 have no header and differ in the order of the columns, so the pattern of an ASIN decides: ten
characters that begin with B0 or digits. McAuley et al., SIGIR 2015; Ni et al., EMNLP 2019; Hou et al., arXiv
2403.03952.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import Final

from models.data.columns import Column, each, events, ids, joined, ratings, times
from models.data.dataset import DataSet, dataset
from models.data.form import Form, named
from models.data.forms.movielens import names
from models.data.forms.reviews import SCALE, TERMS
from models.data.rows import table_id
from models.data.source import Source
from models.data.table import blocks, headed
from stream.core.messages import RATING

ASIN: Final = re.compile(r"(B0[A-Z0-9]{8}|[0-9]{9}[0-9X])", re.ASCII)
USER: Final = re.compile(r"A[A-Z0-9]{8,30}", re.ASCII)
FIRST: Final = 788_918_400_000
"""1995-01-01 in epoch ms. Amazon opened in that year."""
OF_2014: Final = ("user", "item", "rating", "timestamp")
OF_2018: Final = ("item", "user", "rating", "timestamp")
OF_2023: Final = ("user_id", "parent_asin", "rating", "timestamp")


def _order(source: Source) -> tuple[str, ...] | None:
    """Return the columns in the order that the first lines show. Returns None if the lines fit neither order."""
    path = source.only(".csv")
    lines = [line.split(",") for line in source.head(path, 100) if line] if path else []
    if not lines or any(len(line) != 4 for line in lines):
        return None
    for order in (OF_2014, OF_2018):
        user, item = order.index("user"), order.index("item")
        if all(USER.fullmatch(line[user]) and ASIN.fullmatch(line[item]) for line in lines):
            return order
    return None


def _read(source: Source, order: tuple[str, ...]) -> DataSet:
    path = source.only(".csv") or source.path
    made = {
        "user": ("user", _looks(USER, "a reviewer (A and more letters or digits)")),
        "item": ("item", _looks(ASIN, "an ASIN (ten characters that begin with B0 or digits)")),
        "value": ("rating", ratings(source.scale(SCALE))),
        "time": ("timestamp", times(1000, FIRST)),
    }
    table = joined(events(path, block, RATING, made) for block in blocks(path, order))
    return dataset(source.name, table, [], source.scale(SCALE))


def _looks(pattern: re.Pattern[str], expected: str) -> Column:
    def one(text: str) -> str:
        if not pattern.fullmatch(text):
            raise ValueError(f"{text[:30]!r}: expected {expected}")
        return table_id(text)

    return lambda values: each(values, one, values.dtype)


def _headed(source: Source) -> Path | None:
    path = source.only(".csv")
    return path if path and set(OF_2023) <= set(names(source, path)) else None


def _read_headed(source: Source) -> DataSet:
    path = _headed(source) or source.path
    made = {
        "user": ("user_id", ids),
        "item": ("parent_asin", ids),
        "value": ("rating", ratings(source.scale(SCALE))),
        "time": ("timestamp", times(1)),
    }
    table = joined(events(path, block, RATING, made) for block in headed(path, OF_2023))
    return dataset(source.name, table, [], source.scale(SCALE))


_PAGE: Final = "https://cseweb.ucsd.edu/~jmcauley/datasets.html"

FORMS: Final[tuple[Form, ...]] = (
    Form(
        "Amazon ratings 2014",
        "one .csv without a header: user,item,rating,time in s",
        TERMS,
        f"{_PAGE}; McAuley et al., SIGIR 2015",
        lambda source: _order(source) == OF_2014,
        lambda source: _read(source, OF_2014),
        named("*.csv"),
    ),
    Form(
        "Amazon ratings 2018",
        "one .csv without a header: item,user,rating,time in s",
        TERMS,
        f"{_PAGE}; Ni et al., EMNLP 2019",
        lambda source: _order(source) == OF_2018,
        lambda source: _read(source, OF_2018),
        named("*.csv"),
    ),
    Form(
        "Amazon ratings 2023",
        "one .csv with the columns user_id,parent_asin,rating,timestamp (ms)",
        TERMS,
        "https://amazon-reviews-2023.github.io; Hou et al., arXiv 2403.03952",
        lambda source: _headed(source) is not None,
        _read_headed,
        named("*.csv"),
        OF_2023,
    ),
)
