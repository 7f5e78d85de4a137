"""Titles are found by words, without case and accents, the best first."""

from __future__ import annotations

import time

import pytest

from stream.gateway.search import Titles, folded

TITLES = [
    ("1", "Toy Story (1995)"),
    ("2", "The Story of Toys"),
    ("3", "Toy"),
    ("4", "Amélie"),
    ("5", "A Boy's history"),
    ("6", "Toy Story 2 (1999)"),
    ("7", "Straße nach   Süden"),
]
INDEX = Titles((item, folded(title)) for item, title in TITLES)


def found(query: str, n: int = 10) -> list[str]:
    return INDEX.find(query, n, lambda item: True)


@pytest.mark.parametrize(
    ("query", "items"),
    [
        ("toy", ["3", "1", "6", "2"]),  # the whole title, its beginning in the order given, the beginning of a word
        ("story toy", ["1", "2", "6"]),
        ("TOY  story", ["1", "6", "2"]),
        ("story", ["1", "2", "6", "5"]),  # a part of a word comes last
        ("amelie", ["4"]),
        ("AMÉLIE", ["4"]),
        ("strasse süden", ["7"]),
        ("1999)", ["6"]),
        ("nothing", []),
        ("   ", []),
        ("3 amelie", []),
        (")\ntoy", ["1", "6"]),  # two words
        ("(1995) the", []),  # no match across two titles
    ],
)
def test_words_are_found(query: str, items: list[str]) -> None:
    assert found(query) == items


def test_no_more_than_asked_for_and_none_that_is_not_wanted() -> None:
    assert found("toy", 2) == ["3", "1"]
    assert INDEX.find("toy", 2, lambda item: item != "3") == ["1", "6"]


def test_the_first_and_the_last_title_are_found_and_an_empty_index_has_none() -> None:
    assert found("toy story (1995)") == ["1"]
    assert found("nach") == ["7"]
    assert Titles(()).find("a", 5, lambda item: True) == []
    assert Titles([("x", "")]).find("a", 5, lambda item: True) == []


def test_100_000_titles_take_milliseconds() -> None:
    many = Titles((str(number), f"the title number {number}") for number in range(100_000))
    for query in ("t", "number 99999", "nowhere"):
        began = time.perf_counter()
        many.find(query, 100, lambda item: True)
        assert time.perf_counter() - began < 0.5
