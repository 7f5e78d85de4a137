"""Items of a data set, each once."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, Final

from stream.events import Item

MAX_TITLE: Final = 1024
MAX_LABEL: Final = 256
MAX_LABELS: Final = 64


def described(items: Iterable[Item]) -> list[Item]:
    """Each item once, in the order in which they come first. Of an item that is described twice, the later description counts,
    as in the topic `items`; but one without a title never takes the place of one with a title."""
    found: dict[str, Item] = {}
    for item in items:
        if item.title or not (before := found.get(item.item)) or not before.title:
            found[item.item] = item
    return list(found.values())


def labels(found: Any) -> tuple[str, ...]:
    """Names of categories, of a text or of lists of texts in one another: each once, without those that are empty, at most 64 of
    at most 256 characters."""
    return tuple(dict.fromkeys(label[:MAX_LABEL] for label in _flat(found) if label))[:MAX_LABELS]


def title(found: Any) -> str:
    """A title, cut to what a message may carry; "" for none. Raises ValueError for what is no text."""
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
