"""Read Last.fm 1K: what a thousand people listened to.

A track that was played is a click on its ARTIST: a tenth of the tracks have no id, and users rarely play a track again
but often return to an artist. The artist's id is that of MusicBrainz, or the name if there is none.
"""

from __future__ import annotations

import re
from typing import Final

import polars as pl

from models.data.catalogue import collected, item
from models.data.columns import check, converted, names, shaped, with_dates, with_ids
from models.data.dataset import DataSet
from models.data.form import Form, named
from models.data.forms.lines import chosen, first_lines
from models.data.rows import MAX_ID
from models.data.source import Source
from models.data.table import fields
from stream.core.messages import CLICK

PLAYS: Final = "userid-timestamp-artid-artname-traid-traname.tsv"
COLUMNS: Final = ("user", "time", "artist", "name", "track", "title")
SHAPE: Final = re.compile(r"user_\d+\t\d{4}-\d\d-\d\dT\d\d:\d\d:\d\dZ(\t[^\t]*){4}", re.ASCII)


def read(source: Source) -> DataSet:
    """Read the plays. The file has no header, and a quotation mark in it is a plain character."""
    path = chosen(source, PLAYS) or source.need(PLAYS)
    tables, artists = [], []
    for table in fields(path, COLUMNS, "\t", header=False, quoted=False):
        by_name = pl.col("name").str.slice(0, MAX_ID)
        table = table.with_columns(item=pl.when(pl.col("artist") == "").then(by_name).otherwise(pl.col("artist")))
        check(path, table, "artist", pl.col("item") != "", "an artist's id, or a name after it")
        table = table.with_columns(**converted(path, table, {"item": ("item", names)}))
        table = with_dates(path, with_ids(path, table, "user"), "time", "%Y-%m-%dT%H:%M:%SZ", "2009-05-04T23:08:57Z")
        tables.append(shaped(table, CLICK))
        artists.append(table.select("item", "name").unique("item", keep="first", maintain_order=True))
    if not tables:
        return collected(source, [], [])
    named = pl.concat(artists).unique("item", keep="first", maintain_order=True).sort("item")
    return collected(source, pl.concat(tables), [item(*row) for row in named.iter_rows()])


def fits(source: Source) -> bool:
    lines = first_lines(source, PLAYS)
    return bool(lines) and all(SHAPE.fullmatch(line) for line in lines)


FORMS: Final[tuple[Form, ...]] = (
    Form(
        name="Last.fm 1K",
        expected=f"{PLAYS} (separated by tabs, no header)",
        terms="non-commercial use, distributed with permission of Last.fm (http://ocelma.net/MusicRecommendationDataset/lastfm-1K.html)",
        origin="O. Celma, Music Recommendation and Discovery, Springer 2010",
        fits=fits,
        read=read,
        files=named(PLAYS, "userid-profile.tsv"),
    ),
)
