"""Read KuaiRec: short videos. A video that was shown is a rating.

Its value is the watch ratio (time played divided by length), capped at 2. As in the paper, 2 means that the user liked
the video; 0 means that the user skipped it.
"""

from __future__ import annotations

import ast
import csv
import logging
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Final

import polars as pl

from models.data.catalogue import collected, item
from models.data.columns import check, shaped, with_ids, with_times
from models.data.dataset import DataSet
from models.data.form import Form, named
from models.data.forms.lines import chosen, first_lines
from models.data.rows import csv_rows, field, table_id
from models.data.source import Source, numbered
from models.data.table import fields, named_again, require_columns
from stream.core.errors import DataError
from stream.core.messages import RATING, Item

log = logging.getLogger("freshet.data")
SCALE: Final = (0.0, 2.0)
MATRICES: Final = ("big_matrix.csv", "small_matrix.csv")
COLUMNS: Final = ("user_id", "video_id", "play_duration", "video_duration", "time", "date", "timestamp", "watch_ratio")
CAPTIONS: Final = "kuairec_caption_category.csv"
CAPTION_COLUMNS: Final = ("video_id", "manual_cover_text", "caption")
LEVELS: Final = ("first_level_category_name", "second_level_category_name", "third_level_category_name")
UNKNOWN: Final = frozenset({"UNKNOWN", ""})
START: Final = re.compile(r"\d+,", re.ASCII)


def read(source: Source) -> DataSet:
    """Read both matrices, or the one that exists. No pair of user and video is in both.

    The time is `timestamp`, in seconds (`time` is Beijing time). Rows of the small matrix without a time, 4 in a
    hundred, are left out, and a warning is logged.
    """
    found = [path for name in MATRICES if (path := source.find(name))]
    tables = [table for path in found or [chosen(source) or source.need(MATRICES[0])] for table in _matrix(path)]
    return collected(source, pl.concat(tables), _videos(source).values(), SCALE)


def fits(source: Source) -> bool:
    return first_lines(source, *MATRICES)[:1] == [",".join(COLUMNS)]


def _matrix(path: Path) -> list[pl.DataFrame]:
    tables, left = [], 0
    for table in fields(path, COLUMNS):
        untimed = (pl.col("timestamp") == "") & (pl.col("time") == "")
        timed = table.filter(~untimed)
        left += len(table) - len(timed)
        timed = with_times(path, with_ids(path, timed, "user_id", "video_id"), "timestamp", 1000)
        ratio = pl.col("watch_ratio").cast(pl.Float64, strict=False)
        check(path, timed, "watch_ratio", ratio.is_not_nan() & (ratio >= 0), "a number from 0")
        timed = timed.rename({"user_id": "user", "video_id": "item"})
        tables.append(shaped(timed, RATING, value=ratio.clip(*SCALE)))
    if left:
        log.warning("%s: %d rows without a time are left out", path, left)
    return tables


def _videos(source: Source) -> dict[str, Item]:
    """Return the videos by id.

    The title is the caption, else the text on the cover. The categories are the names of three levels, else the numbers
    of `feat`.
    """
    videos: dict[str, Item] = {}
    if path := source.find("item_categories.csv"):
        videos |= {one.item: one for one in csv_rows(path, ("video_id", "feat"), _numbered_kinds)}
    if path := source.find(CAPTIONS):
        for one in _captions(path):
            known = videos.get(one.item)
            videos[one.item] = item(
                one.item, one.title, one.text or "", one.categories or (known and known.categories) or ()
            )
    return videos


def _numbered_kinds(row: dict[str, str]) -> Item:
    return item(field(row, "video_id", table_id), categories=field(row, "feat", _numbers))


def _numbers(value: str) -> list[str]:
    if not re.fullmatch(r"\[\s*(\d+(\s*,\s*\d+)*)?\s*\]", value, re.ASCII):
        raise ValueError("expected a list of numbers such as [27, 9]")
    return [str(number) for number in ast.literal_eval(value)]


def _captions(path: Path) -> Iterator[Item]:
    """Read the captions.

    Some captions of the published file continue on the next line without quotation marks: a line that does not begin
    with a number and a comma continues the line before it.
    """
    header: list[str] | None = None
    for number, text in _whole(path):
        try:
            cells = next(csv.reader([text], strict=True), [])
        except csv.Error as error:
            raise DataError(f"{path}, line {number}: {error}") from None
        if header is None:
            header = cells
            require_columns(path, header, CAPTION_COLUMNS)
            continue
        if len(cells) != len(header):
            raise DataError(f"{path}, line {number}: found {len(cells)} fields, expected {len(header)}")
        row = dict(zip(header, cells, strict=True))
        try:
            name = field(row, "video_id", table_id)
        except ValueError as error:
            raise DataError(f"{path}, line {number}: {error}") from None
        title = row["caption"] if row["caption"] not in UNKNOWN else row["manual_cover_text"]
        kinds = [row.get(level, "") for level in LEVELS]
        yield item(name, "" if title in UNKNOWN else title, categories=[kind for kind in kinds if kind not in UNKNOWN])


def _whole(path: Path) -> Iterator[tuple[int, str]]:
    start, parts = 1, list[str]()
    header = ""
    for number, line in numbered(path):
        header = header or line
        if number > 1 and line == header:
            raise named_again(path, number)
        if parts and (number == 2 or START.match(line)):
            yield start, " ".join(parts)
            start, parts = number, []
        parts.append(line)
    if parts:
        yield start, " ".join(parts)


FORMS: Final[tuple[Form, ...]] = (
    Form(
        name="KuaiRec",
        expected="big_matrix.csv, small_matrix.csv or both (user_id,video_id,play_duration,video_duration,time,date,timestamp,"
        "watch_ratio), optionally with item_categories.csv and kuairec_caption_category.csv in the same folder",
        terms="CC BY-SA 4.0 (https://kuairec.com/)",
        origin="C. Gao et al., KuaiRec: A Fully-observed Dataset and Insights for Evaluating Recommender Systems, CIKM 2022",
        fits=fits,
        read=read,
        columns=COLUMNS,
        files=named(
            *MATRICES,
            "item_categories.csv",
            CAPTIONS,
            "item_daily_features.csv",
            "user_features.csv",
            "user_features_raw.csv",
            "social_network.csv",
            "video_raw_categories_multi.csv",
        ),
    ),
)
