"""Find items by words of their titles. Pure.

All titles are one text, in the order of popularity, so that one search in it finds the most popular ones first. Letters
are compared without case and accents.
"""

from __future__ import annotations

import unicodedata
from bisect import bisect_right
from collections.abc import Callable, Iterable
from itertools import accumulate
from typing import Final

MOST_MATCHES: Final = 2000
"""Titles that are compared with each other for one answer: the most popular ones that have all words."""


def folded(text: str) -> str:
    """Return a text as it is compared: without case and accents, with single spaces."""
    letters = (one for one in unicodedata.normalize("NFKD", text.casefold()) if not unicodedata.combining(one))
    return " ".join("".join(letters).split())


class Titles:
    """An index of titles. Immutable.

    Args:
        titles: (item, its title as `folded` returns it), the most popular first.
    """

    def __init__(self, titles: Iterable[tuple[str, str]]) -> None:
        pairs = list(titles)
        self._items = [item for item, _ in pairs]
        self._titles = [title for _, title in pairs]
        self._text = "\n".join(self._titles)
        self._starts = [0, *accumulate(len(title) + 1 for title in self._titles)]

    def find(self, query: str, n: int, wanted: Callable[[str], bool]) -> list[str]:
        """Return at most n items whose titles have all words of a query, best first.

        First those whose title is the query, then those that begin with it, those with words that begin with the words of
        the query, and the others; in each group the most popular first.

        Args:
            query: Words, or parts of words.
            n: Maximum number of items.
            wanted: Says of an item whether it may be returned.
        """
        phrase = folded(query)
        words = list(dict.fromkeys(phrase.split()))
        if not words:
            return []
        found: list[tuple[int, int]] = []
        rarest = min(words, key=self._text.count)
        at = self._text.find(rarest)
        while at >= 0 and len(found) < MOST_MATCHES:
            index = bisect_right(self._starts, at) - 1
            title = self._titles[index]
            if all(word in title for word in words) and wanted(self._items[index]):
                found.append((_group(title, phrase, words), index))
            at = self._text.find(rarest, self._starts[index + 1])
        return [self._items[index] for _, index in sorted(found)[:n]]


def _group(title: str, phrase: str, words: list[str]) -> int:
    if title == phrase:
        return 0
    if title.startswith(phrase):
        return 1
    beginnings = f" {title}"
    return 2 if all(f" {word}" in beginnings for word in words) else 3
