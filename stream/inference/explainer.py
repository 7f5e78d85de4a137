"""Explains the items of an answer: the parts of each score, the events that moved it, rules, and the re-ranking.

An unexplained answer takes no part in this. An explained one costs one step-model call for each of the user's last events
(stream.core.leave_one_out), and one more ranking if it was re-ranked. `Job.step` does a little at a time, so that other
answers are scored in between.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Final, TypeVar

import numpy as np
from msgspec import UNSET, UnsetType
from numpy.typing import NDArray

from stream.core.diversity import Diversity, Items, gains
from stream.core.errors import StateError
from stream.core.explanations import (
    MOST_EVENTS,
    MOST_EXPLAINED,
    NAMED,
    Boost,
    EventPart,
    Explanation,
    Moved,
    NeighbourPart,
    Parts,
    Pinned,
    Support,
    TextPart,
    Titles,
    in_words,
    popular_words,
    rounded,
)
from stream.core.fold import Catalogue, UserBatch, rank, recent_choices
from stream.core.leave_one_out import Folds, effects, past_of
from stream.core.messages import BEHAVIOURS, Scored
from stream.core.rules import BOOST, CAP, OF_ITEMS, PIN, Active
from stream.core.ruling import Ruling
from stream.core.state import MAX_RECENT
from stream.inference.bundle import Bundle
from stream.inference.models import Models
from stream.inference.score_terms import ScoreTerms

Floats = NDArray[np.float32]
Rows = NDArray[np.int64]

AT_ONCE: Final = 8
"""Events folded in one `Job.step`."""
Choice = TypeVar("Choice", NeighbourPart, TextPart)

ITEMS_AT_ONCE: Final = 10
"""Items explained in one `Job.step`."""


@dataclass(frozen=True)
class Answered:
    """The items to explain, and how they were found.

    Attributes:
        user: The user, as the items were scored.
        items: The items, in the order of the answer. The first MOST_EXPLAINED are explained.
        catalogue: The items' catalogue, or the view of it that was scored.
        k: The number of items that was asked of the ranking.
        filter_seen: Whether items that the user has interacted with were left out.
        ruling: The rules; None for none.
        diversity: How the items were re-ranked.
        title: Returns an item's title; "" for none.
    """

    user: UserBatch
    items: Sequence[Scored]
    catalogue: Catalogue
    k: int
    filter_seen: bool
    ruling: Ruling | None
    diversity: Diversity
    title: Titles


class Explainer:
    """Explains answers of one bundle.

    Args:
        bundle: The bundle.
        models: Its models. Only the thread that may call them may call `Job.step`.

    Raises:
        BundleError: The terms of its scores are not known.
    """

    def __init__(self, bundle: Bundle, models: Models) -> None:
        self.terms = ScoreTerms(bundle)
        self.bundle = bundle
        self.models = models

    def begin(self, answered: Answered) -> Job:
        """Return the work of explaining an answer. Raises StateError if the user's events cannot be read."""
        return Job(self, answered)


class Job:
    """One answer being explained: call `step` until it returns False, then take `explanations`.

    Attributes:
        explanations: Those of the items so far, in their order.

    Args:
        explainer: The explainer.
        answered: The answer.
    """

    def __init__(self, explainer: Explainer, answered: Answered) -> None:
        self._terms = explainer.terms
        self._models = explainer.models
        self._answered = answered
        self._items = answered.items[:MOST_EXPLAINED]
        self._past = past_of(answered.user)
        bundle = explainer.bundle
        self._trained = len(bundle.item_ids)
        self._folds = Folds(self._past, explainer.models, answered.catalogue, bundle.spec, bundle.hidden)
        self._by_score: list[Scored] | None = None
        self._found: _Found | None = None
        self.explanations: list[Explanation] = []
        self._titles: dict[str, str] = {}
        names = list(dict.fromkeys(one.item for one in self._past))
        self._item_numbers = {name: number for number, name in enumerate(names)}
        self._of_item = np.array([self._item_numbers[one.item] for one in self._past], np.int64)

    def step(self) -> bool:
        """Do some of the work. Return whether there is more.

        Raises StateError if a fold is not finite, and what the models raise.
        """
        answered = self._answered
        if answered.diversity.strength > 0 and self._by_score is None:
            ruling = None if answered.ruling is None else replace(answered.ruling, kinds=OF_ITEMS)
            size = max(answered.k, answered.diversity.candidates) + len(_Applying(answered).pinned)
            self._by_score = rank(
                [answered.user], self._models, answered.catalogue, size, filter_seen=answered.filter_seen, ruling=ruling
            )[0]
            return True
        if self._folds.step(AT_ONCE):
            return True
        if self._found is None:
            self._found = self._find()
            return True
        first = len(self.explanations)
        for at in range(first, min(first + ITEMS_AT_ONCE, len(self._items))):
            self.explanations.append(self._explain(at, self._found))
        return len(self.explanations) < len(self._items)

    def _find(self) -> _Found:
        """Return what is known once all is folded. Raises StateError if a fold is not finite."""
        answered, catalogue, models = self._answered, self._answered.catalogue, self._models
        state = answered.user.state
        rows = np.fromiter((catalogue.row(one.item) for one in self._items), np.int64, len(self._items))
        vectors = catalogue.score_items[rows][:, : catalogue.items.shape[1]]  # the output vectors, if there are any
        interest = self._terms.interest(state.h[None], vectors)[0]
        if not np.isfinite(self._folds.states).all():
            raise StateError("the step model's result is not finite")
        folds = self._terms.interest(self._folds.states, vectors)
        recent = recent_choices([answered.user], catalogue, models.last, models.choices, models.refused)[:, 1:]
        return _Found(
            rows=rows,
            interest=interest,
            earlier=interest - folds[0],
            moved=effects(folds),
            recent=recent,
            near=self._terms.neighbours(rows, recent, catalogue.tables),
            texts=self._terms.texts(catalogue.score_items[rows], catalogue.score_items[recent[:, 0]], recent[:, 1]),
            popularity=self._terms.popularity(rows, state.seq, catalogue.tables),
            rules=_Applying(answered),
            places=self._moves(),
        )

    def _explain(self, at: int, found: _Found) -> Explanation:
        scored, row = self._items[at], int(found.rows[at])
        near, text = found.near[:, at], found.texts[:, at]
        model = float(found.interest[at]) + float(near.sum()) + float(text.sum()) + float(found.popularity[at])
        boosts = found.rules.boosts(row)
        boosted = sum(one.part for one in boosts)
        pin = found.rules.pin(row, scored.score - model - boosted)
        parts = Parts(
            rounded(found.interest[at]),
            rounded(near.sum()),
            rounded(found.popularity[at]),
            rounded(boosted + (0.0 if pin is UNSET else pin.part)),
            rounded(text.sum()),
        )
        moved = found.places.get(at, UNSET)
        by = found.moved[:, at]
        most = np.argsort(-np.abs(by), kind="stable")[:MOST_EVENTS].tolist()
        events = [one for one in (self._event(index, float(by[index])) for index in most) if one.moved]
        neighbours = self._choices(NeighbourPart, found.recent, near)
        texts = self._choices(TextPart, found.recent, text)
        return Explanation(
            text=in_words(parts, self._support(by, neighbours), boosts, pin, moved, found.rules.placing, texts),
            parts=parts,
            neighbours=neighbours,
            texts=texts,
            events=events,
            earlier=rounded(found.earlier[at]),
            boosts=boosts,
            pin=pin,
            diversity=moved,
            trained=row <= self._trained,
        )

    def _support(self, moved: Floats, neighbours: Sequence[NeighbourPart]) -> list[Support]:
        """Return the items' newest events that add most, with what all events of that item add, as its neighbours, too."""
        adds = np.bincount(self._of_item, moved, len(self._item_numbers))
        for near in neighbours:
            if (number := self._item_numbers.get(near.item)) is not None:
                adds[number] += near.part
        best = np.argsort(-adds, kind="stable")[:NAMED]
        newest = [int(np.flatnonzero(self._of_item == number)[-1]) for number in best]
        return [
            Support(self._event(index, float(moved[index])), float(adds[number]))
            for index, number in zip(newest, best, strict=True)
        ]

    def _event(self, index: int, moved: float) -> EventPart:
        one = self._past[index]
        return EventPart(
            type=BEHAVIOURS[one.behaviour],
            item=one.item,
            title=self._title(one.item),
            time=one.time,
            value=one.value if one.value == one.value else UNSET,
            action=one.action or UNSET,
            moved=rounded(moved),
        )

    def _choices(self, kind: type[Choice], recent: Rows, near: Floats) -> list[Choice]:
        """Return what each of the user's choices adds to an item's score, the largest first."""
        item = self._answered.catalogue.item
        found = [
            kind(item=item(row), title=self._title(item(row)), age=age, part=rounded(part))
            for (row, age), part in zip(recent.tolist(), near.tolist(), strict=True)
            if part
        ]
        return sorted(found, key=lambda one: -one.part)

    def _title(self, item: str) -> str | UnsetType:
        title = self._titles.get(item)
        if title is None:
            title = self._titles[item] = self._answered.title(item)
        return title or UNSET

    def _moves(self) -> dict[int, Moved]:
        """Return index of an item -> what the re-ranking did to it."""
        answered, catalogue, before = self._answered, self._answered.catalogue, self._by_score
        if not before:
            return {}
        pinned = _Applying(answered).pinned
        place = {one.item: at for at, one in enumerate(before)}
        rows = np.fromiter((catalogue.row(one.item) for one in before), np.int64, len(before))
        free = [at for at, row in enumerate(rows.tolist()) if row not in pinned]  # pinned items are no candidates
        free = free[: max(answered.k, answered.diversity.candidates)]
        candidate = {before[at].item: number for number, at in enumerate(free)}
        after = [(at, one.item) for at, one in enumerate(self._items) if one.item in candidate]
        rows = rows[free]
        own = recent_choices([answered.user], catalogue, MAX_RECENT, self._models.choices, self._models.refused)
        categories = catalogue.categories
        items = Items(catalogue.items[rows][None], categories[rows][None], categories[own[:, 1]], own[:, 0])
        scores = np.array([[before[at].score for at in free]], np.float32)
        strength = answered.diversity.strength
        taken = gains(scores, items, strength, np.array([candidate[name] for _, name in after], np.int64))
        return {
            at: Moved(strength, place[name], at, rounded(quality), rounded(gain))
            for (at, name), quality, gain in zip(after, taken.quality, taken.gain, strict=True)
        }


@dataclass(frozen=True)
class _Found:
    """What is known of m items, of the user's n events and of R choices.

    Attributes:
        rows: int64 [m].
        interest: float32 [m].
        earlier: float32 [m], what the last events do not give of it.
        moved: float32 [n, m].
        recent: int64 [R, 2], (item row, age).
        near: float32 [R, m].
        texts: float32 [R, m].
        popularity: float32 [m].
        rules: The rules that apply.
        places: Index of an item -> what the re-ranking did.
    """

    rows: Rows
    interest: Floats
    earlier: Floats
    moved: Floats
    recent: Rows
    near: Floats
    texts: Floats
    popularity: Floats
    rules: _Applying
    places: dict[int, Moved]


class _Applying:
    """The rules that apply to an answer."""

    def __init__(self, answered: Answered) -> None:
        ruling, user, catalogue = answered.ruling, answered.user, answered.catalogue
        self._catalogue = catalogue
        self._rules: list[Active] = []
        self.pinned: dict[int, int] = {}
        """Row -> the place at which it is pinned."""
        self.placing: list[str] = []
        """The rules that pin an item of the slate, or cap its categories."""
        if ruling is None:
            return
        seq = user.state.seq
        indices = ruling.rules.applying(user.user, seq, ruling.scene, ruling.now_ms, ruling.kinds)
        self._rules = [ruling.rules.rules[index] for index in indices]
        selection = ruling.of(user.user, seq, catalogue)
        if selection is not None:
            self.pinned = {row: place for place, row in selection.pins if place < answered.k}
        places = set(self.pinned.values())
        self.placing = [one.rule for one in self._rules if one.kind == CAP or (one.kind == PIN and one.place in places)]

    def boosts(self, row: int) -> list[Boost]:
        """Return the boosts of an item."""
        return [
            Boost(one.rule, one.factor, rounded(np.log(one.factor)))
            for one in self._rules
            if one.kind == BOOST and one.filtered is not None and self._catalogue.columns.mask(one.filtered)[row]
        ]

    def pin(self, row: int, part: float) -> Pinned | UnsetType:
        """Return the pin of an item; `part` is what it adds to the item's own score."""
        place = self.pinned.get(row)
        if place is None:
            return UNSET
        item = self._catalogue.item(row)
        rule = next(one.rule for one in self._rules if one.kind == PIN and one.item == item and one.place == place)
        return Pinned(rule, place, rounded(part))


def explain_popular(answered: Answered, popularity: Floats) -> list[Explanation]:
    """Return the explanations of items that are ranked by popularity alone. The user needs no state.

    Args:
        answered: The answer.
        popularity: float32 [N + 1], interactions in training, by row.
    """
    rules = _Applying(answered)
    found = []
    for scored in answered.items[:MOST_EXPLAINED]:
        row = answered.catalogue.row(scored.item)
        count = float(popularity[row]) if row < len(popularity) else 0.0
        boosts, so_far = [], count
        for one in rules.boosts(row):
            boosts.append(Boost(one.rule, one.factor, rounded(so_far * (one.factor - 1.0))))
            so_far *= one.factor
        pin = rules.pin(row, scored.score - so_far)
        parts = Parts(0.0, 0.0, rounded(count), rounded(scored.score - count))
        found.append(
            Explanation(
                text=popular_words(count, boosts, pin),
                parts=parts,
                boosts=boosts,
                pin=pin,
                trained=row < len(popularity),
            )
        )
    return found
