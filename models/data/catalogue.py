"""Items of a data set, each once: the one definition, for every form."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any, Final

import polars as pl

from models.data.dataset import DataSet, Event, dataset
from models.data.rows import cut
from models.data.source import Source
from stream.core.errors import DataError
from stream.core.messages import Item

MAX_TITLE: Final = 1024
MAX_LABEL: Final = 256
MAX_LABELS: Final = 64


def item(name: str, title: Any = "", text: str = "", categories: Any = ()) -> Item:
    """An item with its texts cut to what a message may carry. title: a text or None; categories: as `labels` takes them. Raises
    ValueError for a title or a category that is no text."""
    return Item(name, _title(title), cut(text) or None, labels(categories))


def collected(
    source: Source,
    events: Sequence[Event] | pl.DataFrame,
    items: Iterable[Item],
    scale: tuple[float, float] = (0.5, 5.0),
    *,
    timed: bool = True,
) -> DataSet:
    """As models.data.dataset.dataset, on the scale that was named for the source, or else on `scale`. Of items
    with one id `described` takes one, and items that only events name are added, without a title. Raises DataError without
    events."""
    if not len(events):
        raise DataError(f"{source.name}: no events in it; expected at least one row that is an event")
    listed = described(items)
    if listed:
        known = {one.item for one in listed}
        if isinstance(events, pl.DataFrame):
            found: Iterable[str] = events["item"].unique(maintain_order=True).to_list()
        else:
            found = dict.fromkeys(event.item for event in events)
        listed += [Item(one, "") for one in found if one not in known]
    return dataset(source.name, events, listed, source.scale(scale), timed=timed)


def described(items: Iterable[Item]) -> list[Item]:
    """Each item once, in the order in which they come first. Of an item that is described twice, the later description counts,
    as in the topic `items`; but one without a title never takes the place of one with a title."""
    found: dict[str, Item] = {}
    for one in items:
        if one.title or not (before := found.get(one.item)) or not before.title:
            found[one.item] = one
    return list(found.values())


def labels(found: Any) -> tuple[str, ...]:
    """Names of categories, of a text or of lists of texts in one another: each once, without those that are empty, at most 64 of
    at most 256 characters."""
    return tuple(dict.fromkeys(label[:MAX_LABEL] for label in _flat(found) if label))[:MAX_LABELS]


def _title(found: Any) -> str:
    if found is None:
        return ""
    if not isinstance(found, str):
        raise ValueError(f"title {str(found)[:30]!r}: expected a text")
    return found[:MAX_TITLE]


def _flat(found: Any) -> Iterable[str]:
    if isinstance(found, str):
        yield found.strip()
    elif isinstance(found, list | tuple):
        for part in found:
            yield from _flat(part)
    elif found is not None:
        raise ValueError(f"category {str(found)[:30]!r}: expected a text or a list of texts")
