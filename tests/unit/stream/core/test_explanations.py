"""The words of explanations."""

from __future__ import annotations

from typing import Any

import pytest
from msgspec import UNSET

from stream.core.explanations import (
    Boost,
    EventPart,
    Moved,
    Parts,
    Pinned,
    Support,
    TextPart,
    in_words,
    popular_words,
    rounded,
)

NONE = Parts(1.0, 0.0, 0.0, 0.0)


def event(kind: str = "click", item: str = "7", adds: float = 1.0, **more: Any) -> Support:
    return Support(EventPart(type=kind, item=item, time=0, moved=adds, **more), adds)


@pytest.mark.parametrize(
    ("support", "words"),
    [
        (event("rating", title="Heat (1995)", value=5.0), "because you rated Heat (1995) 5"),
        (event("rating", value=4.5), "because you rated item 7 4.5"),
        (event("comment", title="Heat"), "because you wrote about Heat"),
        (event("comment", title="Heat", value=3.0), "because you wrote about Heat and rated it 3"),
        (event(), "because you clicked item 7"),
        (event(action="purchase"), "because you bought item 7"),
        (event(action="cart"), "because you put item 7 into the cart"),
        (event(action="share"), "because you did 'share' with item 7"),
    ],
)
def test_what_the_user_did(support: Support, words: str) -> None:
    assert in_words(NONE, [support], [], UNSET, UNSET) == words


def test_the_two_that_add_most_are_named_each_item_once() -> None:
    events = [
        event(item="1", adds=0.4),
        event(item="2", adds=0.5),
        event("rating", item="1", adds=0.3, value=5.0),
        event(item="3", adds=0.45),
        event(item="4", adds=-2.0),
    ]
    assert in_words(NONE, events, [], UNSET, UNSET) == "because you rated item 1 5 and clicked item 2"
    assert (
        in_words(NONE, [event(item="1"), event(item="2", adds=0.1)], [], UNSET, UNSET) == "because you clicked item 1"
    )


def test_popularity_is_named_if_it_adds_more() -> None:
    popular = Parts(0.1, 0.0, 0.5, 0.0)
    assert (
        in_words(popular, [event(adds=0.1)], [], UNSET, UNSET)
        == "because you clicked item 7, and because it is popular"
    )
    assert in_words(popular, [event(adds=0.6)], [], UNSET, UNSET) == "because you clicked item 7"
    assert in_words(popular, [event(adds=-0.6)], [], UNSET, UNSET) == "because it is popular"
    assert "no single one" in in_words(NONE, [event(adds=-0.6)], [], UNSET, UNSET)


def alike(item: str, part: float, **more: Any) -> TextPart:
    return TextPart(item=item, age=0, part=part, **more)


@pytest.mark.parametrize(
    ("support", "texts", "words"),
    [
        ([], [alike("1", 2.0, title="Heat")], "because its description is like that of Heat"),
        ([], [alike("1", 1.1), alike("2", 0.9)], "because its description is like those of item 1 and item 2"),
        ([], [alike("1", 1.9), alike("2", 0.1)], "because its description is like that of item 1"),
        (
            [event(adds=1.0)],
            [alike("1", 2.0)],
            "because its description is like that of item 1, and because you clicked item 7",
        ),
        (
            [event(adds=5.0)],
            [alike("1", 2.0)],
            "because you clicked item 7, and because its description is like that of item 1",
        ),
        ([event(adds=20.0)], [alike("1", 2.0)], "because you clicked item 7"),
        ([event(adds=0.1)], [alike("1", 2.0)], "because its description is like that of item 1"),
    ],
)
def test_texts_that_are_alike_are_named_by_what_they_add(
    support: list[Support], texts: list[TextPart], words: str
) -> None:
    assert in_words(Parts(1.0, 0.0, 0.0, 0.0, 2.0), support, [], UNSET, UNSET, texts=texts) == words


def test_texts_that_are_not_alike_are_not_named() -> None:
    apart = [alike("1", -1.0), alike("2", -1.0)]
    assert (
        in_words(Parts(1.0, 0.0, 0.0, 0.0, -2.0), [event()], [], UNSET, UNSET, texts=apart)
        == "because you clicked item 7"
    )
    popular = in_words(Parts(1.0, 0.0, 3.0, 0.0, 2.0), [], [], UNSET, UNSET, texts=[alike("1", 2.0)])
    assert popular == "because its description is like that of item 1, and because it is popular"


def test_rules_and_places() -> None:
    moved = Moved(0.5, 6, 1, -0.2, 0.4)
    boost, pin = Boost("toys-week", 2.0, 0.693147), Pinned("star", 0, 1.5)
    assert in_words(NONE, [event()], [boost], UNSET, moved) == (
        "because you clicked item 7; rule toys-week multiplies its odds by 2; moved up from place 7 to 2, so that the slate "
        "shows more of what you like"
    )
    assert in_words(NONE, [], [], pin, UNSET) == "rule star puts it at place 1"
    assert "moved down from place 2 to 3" in in_words(NONE, [], [], UNSET, Moved(0.5, 1, 2, 0.0, 0.0))
    assert in_words(NONE, [event()], [], UNSET, moved, ["few"]).endswith(
        "moved up from place 7 to 2, by the re-ranking and the rule few"
    )
    assert in_words(NONE, [event()], [], UNSET, moved, ["few", "star"]).endswith("the rules few and star")
    assert "moved" not in in_words(NONE, [event()], [], UNSET, Moved(0.5, 2, 2, 0.0, 0.0))
    assert popular_words(1.0, [boost], pin) == (
        "because it is popular: 1 interaction in training; rule toys-week multiplies its count by 2; rule star puts it at place 1"
    )


def test_a_weighted_count_is_not_rounded_to_a_whole_one() -> None:
    assert popular_words(25.5, [], UNSET) == (
        "because it is popular: 25.5 interactions in training, weighted by their actions"
    )
    assert popular_words(12345.0, [], UNSET) == "because it is popular: 12,345 interactions in training"


def test_numbers_are_rounded_without_a_negative_zero() -> None:
    assert str(rounded(-1e-9)) == "0.0"
    assert rounded(1 / 3) == 0.333333
