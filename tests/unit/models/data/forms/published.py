"""The forms of published data sets, and made-up folders in them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import polars as pl

from models.data.dataset import DataSet
from models.data.forms import goodreads, kuairec, lastfm, mind, recbole, shops, steam, yelp
from models.data.source import source
from tests.unit.models.data.published_samples import SAMPLES

FORMS = {
    form.name: form
    for module in (yelp, steam, goodreads, mind, shops, lastfm, kuairec, recbole)
    for form in module.FORMS
}

FORM_OF = {
    "yelp": "Yelp",
    "steam reviews": "Steam reviews",
    "steam users": "Steam, Australian users",
    "steam owned": "Steam, Australian users",
    "goodreads": "Goodreads",
    "goodreads table": "Goodreads table",
    "mind": "MIND",
    "retailrocket": "RetailRocket",
    "yoochoose": "Yoochoose",
    "diginetica": "Diginetica",
    "lastfm": "Last.fm 1K",
    "kuairec": "KuaiRec",
    "recbole": "RecBole atomic files",
    "recbole sessions": "RecBole atomic files",
}

DAY = 86_400_000


def sample(folder: Path, name: str) -> Path:
    SAMPLES[name](folder)
    return folder


def read(path: Path, name: str) -> DataSet:
    data: DataSet = FORMS[FORM_OF[name]].read(source(path))
    return data


def rows(data: DataSet) -> list[tuple[Any, ...]]:
    """user, item, behaviour, time, value (None: none), text: in time order."""
    table = data.events.select("user", "item", "behaviour", "time", pl.col("value").fill_nan(None), "text")
    return table.rows()


REVIEW = "yelp_academic_dataset_review.json"

CAPTIONS = "kuairec_caption_category.csv"
