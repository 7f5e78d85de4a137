"""Build the items of a data set, each once. Every form uses this definition."""

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
    """Return an item with its texts cut to the length that a message may carry.

    Args:
        title: A text or None.
        categories: As `labels` accepts them.

    Raises:
        ValueError: A title or a category is not a text.
    """
    return Item(name, _title(title), cut(text) or None, labels(categories))


def collected(
    source: Source,
    events: Sequence[Event] | pl.DataFrame,
    items: Iterable[Item],
    scale: tuple[float, float] = (0.5, 5.0),
    *,
    timed: bool = True,
) -> DataSet:
    """Build a data set with models.data.dataset.dataset, on the source's rating scale if it was given, else on `scale`.

    `described` keeps one item per id. Items that only events name are added without a title. Raises DataError if there
    are no events.
    """
    if not len(events):
        raise DataError(f"{source.name}: found no events; expected at least one row that is an event")
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
    """Return each item once, in the order of first appearance.

    If an item is described twice, the later description counts, as in the topic `items`. But a description without a
    title never replaces one with a title.
    """
    found: dict[str, Item] = {}
    for one in items:
        if one.title or not (before := found.get(one.item)) or not before.title:
            found[one.item] = one
    return list(found.values())


def labels(found: Any) -> tuple[str, ...]:
    """Return the category names in a text or in nested lists of texts.

    Each name is returned once. Empty names are left out. There are at most 64 names of at most 256 characters each.
    """
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
