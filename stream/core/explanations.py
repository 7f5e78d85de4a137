"""Why an item is in a slate: the parts of its score, as structs for the API and the command, and the same in words. Pure."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import Annotated, Final

from msgspec import UNSET, Meta, Struct, UnsetType

from stream.core.messages import Scored

MOST_EXPLAINED: Final = 100
"""Items of one answer that are explained, the first ones."""
MOST_EVENTS: Final = 10
"""Events shown for an item: those that have moved its score most."""
NAMED: Final = 2
"""Events that the words name."""
LEAST_SHARE: Final = 0.2
"""An event is named if it adds at least this share of what the one that adds most does."""
DIGITS: Final = 6

Title = Annotated[str, Meta(description="the item's title; absent if the catalogue has none")]


class Parts(Struct, frozen=True):
    """The parts of a score. Their sum is the score, to 1e-4."""

    interest: Annotated[float, Meta(description="the recurrent interest state against the item's vector")]
    neighbours: Annotated[
        float, Meta(description="the item is a neighbour of the user's last choices; see `neighbours`")
    ]
    popularity: Annotated[
        float,
        Meta(
            description="popularity, which counts less with every event; in answers of strategy popularity, the number of "
            "interactions in training"
        ),
    ]
    rules: Annotated[float, Meta(description="boosts and pins; see `boosts` and `pin`")]
    text: Annotated[
        float,
        Meta(
            description="the item's text is like those of the user's last choices; see `texts`. 0 if the bundle has no text term"
        ),
    ] = 0.0


class NeighbourPart(Struct, frozen=True, kw_only=True):
    """One of the user's last choices, of which the item is a neighbour."""

    item: str
    title: Title | UnsetType = UNSET
    age: Annotated[int, Meta(description="how many choices came after it")]
    part: Annotated[float, Meta(description="its part of `parts.neighbours`")]


class TextPart(Struct, frozen=True, kw_only=True):
    """One of the user's last choices, to whose text that of the item was compared."""

    item: str
    title: Title | UnsetType = UNSET
    age: Annotated[int, Meta(description="how many choices came after it")]
    part: Annotated[float, Meta(description="its part of `parts.text`, below 0 if the texts are less alike than most")]


class EventPart(Struct, frozen=True, kw_only=True):
    """One of the user's last events, and how it has moved the item's score."""

    type: str
    item: str
    title: Title | UnsetType = UNSET
    time: Annotated[int, Meta(description="epoch milliseconds")]
    value: Annotated[float, Meta(description="the rating, if it has one")] | UnsetType = UNSET
    action: Annotated[str, Meta(description="the click's action, if it has one")] | UnsetType = UNSET
    moved: Annotated[
        float,
        Meta(
            description="what `parts.interest` is higher by with this event: all events folded again, less all but this one"
        ),
    ]


class Boost(Struct, frozen=True):
    """A boost that applies to the item."""

    rule: str
    factor: float
    part: Annotated[
        float,
        Meta(
            description="its part of `parts.rules`: the logarithm of the factor; in answers of strategy popularity, what it adds "
            "to the count"
        ),
    ]


class Pinned(Struct, frozen=True):
    """The pin that has put the item at its place."""

    rule: str
    place: Annotated[int, Meta(description="the place of the rule, from 0")]
    part: Annotated[
        float, Meta(description="its part of `parts.rules`: a pinned item has the score of the item behind it")
    ]


class Moved(Struct, frozen=True):
    """What the re-ranking for diversity did to the item (docs/diversity.md). It changes places, and no score."""

    strength: float
    before: Annotated[int, Meta(description="its place by score, from 0")] | None
    after: Annotated[int, Meta(description="its place, from 0")]
    quality: Annotated[
        float, Meta(description="(1 - strength) * relevance, 0 for the item with the best score; lower is worse")
    ]
    gain: Annotated[float, Meta(description="strength * (novelty + 0.5 * calibration) as it was taken")]


class Explanation(Struct, frozen=True, kw_only=True):
    """Why an item has its score and its place."""

    text: Annotated[str, Meta(description="the main reasons in words")]
    parts: Parts
    neighbours: Annotated[list[NeighbourPart], Meta(description="the largest first")] = []
    texts: Annotated[list[TextPart], Meta(description="the largest first")] = []
    events: Annotated[
        list[EventPart],
        Meta(
            description=f"the last events that have moved `parts.interest` most, at most {MOST_EVENTS}, the largest change first"
        ),
    ] = []
    earlier: Annotated[
        float,
        Meta(
            description="the part of `parts.interest` that the last 64 events, folded again, do not give: from earlier events "
            "and texts of comments, which a state does not keep"
        ),
    ] = 0.0
    boosts: list[Boost] = []
    pin: Pinned | UnsetType = UNSET
    diversity: Moved | UnsetType = UNSET
    trained: Annotated[
        bool,
        Meta(description="whether the bundle was trained with the item; if not, its vector is made of its text alone"),
    ] = True


class ExplainedItem(Scored, frozen=True):
    """An item, with an explanation if the request has asked for it."""

    explanation: Explanation | UnsetType = UNSET


class Support(Struct, frozen=True):
    """An event that the words may name, and what it adds to the score in all, as a neighbour, too."""

    event: EventPart
    adds: float


_ACTIONS: Final = {
    "": "clicked {}", "click": "clicked {}", "view": "looked at {}", "cart": "put {} into the cart",
    "purchase": "bought {}", "like": "liked {}", "dislike": "disliked {}", "skip": "skipped {}",
}  # fmt: skip


def rounded(number: float) -> float:
    """Return a part as it is shown."""
    return round(float(number), DIGITS) + 0.0  # no -0.0


def in_words(
    parts: Parts,
    support: Iterable[Support],
    boosts: Sequence[Boost],
    pin: Pinned | UnsetType,
    moved: Moved | UnsetType,
    placing: Sequence[str] = (),
    texts: Sequence[TextPart] = (),
) -> str:
    """Return the main reasons in words.

    Args:
        parts: The parts of the score.
        support: Events of the user and what each adds to the score, the newest last. Those on the same item add up.
        boosts: The boosts.
        pin: The pin.
        moved: What the re-ranking did.
        placing: The rules that pin items or cap categories in this slate: they move other items, too.
        texts: The choices to whose texts the item's was compared, the largest part first.
    """
    sentences = []
    reasons: list[tuple[float, str]] = []  # how much each adds
    if named := _named(support):
        reasons.append((named[0].adds, "you " + " and ".join(_did(one.event) for one in named)))
    if parts.text > 0 and texts and texts[0].part > 0:
        alike = [one for one in texts[:NAMED] if one.part >= LEAST_SHARE * texts[0].part]
        titles = " and ".join(_name(one.item, one.title) for one in alike)
        reasons.append((parts.text, f"its description is like {'those' if len(alike) > 1 else 'that'} of {titles}"))
    if reasons:
        reasons.sort(key=lambda one: -one[0])
        most = reasons[0][0]
        words = [why for adds, why in reasons if adds >= LEAST_SHARE * most]
        words += ["it is popular"] * (parts.popularity > most)
        sentences.append("because " + ", and because ".join(words))
    elif parts.popularity > 0:
        sentences.append("because it is popular")
    elif pin is UNSET:
        sentences.append(
            "because it is nearest to all of your events together, although no single one of the last speaks for it"
        )
    sentences += [f"rule {one.rule} multiplies its odds by {one.factor:g}" for one in boosts]
    if pin is not UNSET:
        sentences.append(f"rule {pin.rule} puts it at place {pin.place + 1}")
    if moved is not UNSET and moved.before is not None and moved.before != moved.after:
        up = moved.before > moved.after
        why = "so that the slate shows more of what you like" if up else "as others show more of what you like"
        if placing:
            why = f"by the re-ranking and the rule{'' if len(placing) == 1 else 's'} {' and '.join(placing)}"
        sentences.append(f"moved {'up' if up else 'down'} from place {moved.before + 1} to {moved.after + 1}, {why}")
    return "; ".join(sentences)


def popular_words(count: float, boosts: Sequence[Boost], pin: Pinned | UnsetType) -> str:
    """Return in words why an item is among the popular ones. count: its interactions in training."""
    weighted = "" if count == round(count) else ", weighted by their actions"
    shown = f"{round(count, 1):,.10g} interaction{'' if count == 1 else 's'} in training{weighted}"
    found = [f"because it is popular: {shown}"]
    found += [f"rule {one.rule} multiplies its count by {one.factor:g}" for one in boosts]
    if pin is not UNSET:
        found.append(f"rule {pin.rule} puts it at place {pin.place + 1}")
    return "; ".join(found)


def _named(support: Iterable[Support]) -> list[Support]:
    """Return the events that add most, at most one for each item: the newest."""
    by_item: dict[str, Support] = {}
    for one in support:
        before = by_item.get(one.event.item)
        by_item[one.event.item] = Support(one.event, one.adds + (before.adds if before else 0.0))
    found = sorted((one for one in by_item.values() if one.adds > 0), key=lambda one: -one.adds)[:NAMED]
    return [one for one in found if one.adds >= LEAST_SHARE * found[0].adds]


def _did(event: EventPart) -> str:
    """Return what a user did: rated Heat (1995) 5."""
    name = _name(event.item, event.title)
    if event.type == "rating":
        return f"rated {name} {event.value:g}" if event.value is not UNSET else f"rated {name}"
    if event.type == "comment":
        return f"wrote about {name}" + (f" and rated it {event.value:g}" if event.value is not UNSET else "")
    action = event.action if event.action is not UNSET else ""
    known = _ACTIONS.get(action)
    return known.format(name) if known else f"did {action!r} with {name}"


def _name(item: str, title: str | UnsetType) -> str:
    return f"item {item}" if title is UNSET else title


Titles = Callable[[str], str]
"""Returns an item's title; "" if there is none."""
