"""Read a folder that `freshet capture` has filled. models/data/capture.py describes it."""

from __future__ import annotations

from typing import Final

import polars as pl

from models.data.capture import MARK, events, items, mark_of
from models.data.dataset import DataSet, dataset
from models.data.form import Form, named
from models.data.source import Source
from stream.core.errors import DataError
from stream.core.messages import SOURCE_TOPICS


def _read(source: Source) -> DataSet:
    mark = mark_of(source.path)
    if mark is None:
        raise DataError(f"{source.path}: {MARK} is missing")
    frames = [
        frame.select(
            "user", "item", pl.lit(behaviour, pl.UInt8).alias("behaviour"), "time",
            pl.col("value").fill_null(float("nan")),
            *(pl.col(name).fill_null("") for name in ("text", "scene", "action", "id")),
        )
        for behaviour, kind in enumerate(SOURCE_TOPICS)
        for frame in events(source.path, kind, mark.partitions)
    ]  # fmt: skip
    if not frames or not (rows := pl.concat(frames)).height:
        raise DataError(f"{source.path}: no event is captured yet")
    return dataset(source.name, rows, items(source.path), source.scale(mark.rating_scale))


FORMS: Final[tuple[Form, ...]] = (
    Form(
        "freshet's capture",
        f"{MARK} and the folders clicks, ratings, comments and items that `freshet capture` writes",
        "your own",
        "docs/capture.md",
        lambda source: source.path.is_dir() and MARK in source.files,
        _read,
        named(MARK),
    ),
)
