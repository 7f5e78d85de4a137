"""Judges the slates by what their users do next: was the item of an event in the slate that the user had before it?

This is prequential evaluation (P. Dawid, 1984): each event first tests what is served, then it is learned from. What
counts is what training predicts, too: choices (stream.core.fold.recent_choices) on items that the catalogue knows. The
same events judge the most popular live items that are not among the user's remembered ones, as many as a slate has. A
user without a slate has been shown these.

Slates leave out what the user has seen, so a choice of a remembered item is counted apart: it is no hit, whatever ranks.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

import numpy as np
from numpy.typing import NDArray

from stream.core.features import UNKNOWN
from stream.core.fold import Catalogue, UserBatch
from stream.core.messages import COMMENT
from stream.core.prequential import AGAIN, FRESHET, KNOWN, NEW, POPULARITY, Gains
from stream.kafka.standing_slates import Shown, Slot, StandingSlates

MOST: Final = 64
"""Users of a micro-batch that are judged at most, the first ones: under load it is a sample, and costs little."""


class Prequential:
    """Judges the standing slates of one placement.

    Args:
        standing: The standing slates.
        placement: The placement's name; "" for the default one.
        size: Items of a slate.
        counts: float32 [N + 1], the interactions of the bundle's items: their popularity.
        choices: Behaviours that are choices.
        refused: Actions that are not.
    """

    def __init__(
        self,
        standing: StandingSlates,
        placement: str,
        size: int,
        counts: NDArray[np.float32],
        choices: frozenset[int],
        refused: frozenset[str],
    ) -> None:
        self._standing, self._placement, self._size = standing, placement, size
        self._counts, self._choices, self._refused = counts, choices, refused
        self._ranked: tuple[Catalogue, NDArray[np.int64]] | None = None

    def judge(self, user_batches: Sequence[UserBatch], catalogue: Catalogue) -> Gains:
        """Judge the standing slates by the events that were just folded. Call it before their new slates are noted.

        Left out are users whose events were folded before or who were forgotten just now, and partitions whose standing
        slates are not read yet.
        """
        gains = Gains()
        behind = set(self._standing.behind())
        some = [one for one in user_batches if _counts(one) and one.partition not in behind][:MOST]
        by_partition: dict[int, list[UserBatch]] = {}
        for one in some:
            by_partition.setdefault(one.partition, []).append(one)
        for partition, theirs in by_partition.items():
            slates = self._standing.read(partition, [Slot(one.user, self._placement) for one in theirs])
            for one, slate in zip(theirs, slates, strict=True):
                self._judge(one, slate, catalogue, gains)
        return gains

    def _judge(self, user_batch: UserBatch, slate: Shown | None, catalogue: Catalogue, gains: Gains) -> None:
        events = [
            event
            for event in user_batch.folded
            if event.behaviour in self._choices
            and event.action not in self._refused
            and (event.behaviour != COMMENT or event.value == event.value)
        ]
        if not events:
            return
        remembered = [item for item, _, _ in user_batch.state.newest()]
        seen = set(remembered[len(user_batch.folded) :])
        shown = self._popular(seen, catalogue) if slate is None else slate.items
        popular: list[str] | None = None
        for event in events:
            row = catalogue.row(event.item)
            if row == UNKNOWN:
                continue
            if event.item in seen:
                gains.add(event.behaviour, AGAIN, ())
                continue
            popular = self._popular(seen, catalogue) if popular is None else popular
            seen.add(event.item)
            kind = KNOWN if row < len(self._counts) else NEW
            gains.add(
                event.behaviour,
                kind,
                ((FRESHET, _place(shown, event.item)), (POPULARITY, _place(popular, event.item))),
            )

    def _popular(self, seen: set[str], catalogue: Catalogue) -> list[str]:
        """Return the most popular live items that are not among those seen."""
        if self._ranked is None or self._ranked[0] is not catalogue:
            counts = np.zeros(len(catalogue.bias), np.float32)
            counts[: len(self._counts)] = self._counts[: len(counts)]
            live = np.flatnonzero(catalogue.bias == 0)
            self._ranked = catalogue, live[np.argsort(-counts[live], kind="stable")]
        rows = self._ranked[1][: self._size + len(seen)]
        return [item for item in map(catalogue.item, rows.tolist()) if item not in seen][: self._size]


def _counts(user_batch: UserBatch) -> bool:
    return bool(user_batch.folded) and not user_batch.redelivered and not user_batch.erased


def _place(items: Sequence[str], item: str) -> int | None:
    try:
        return items.index(item)
    except ValueError:
        return None
