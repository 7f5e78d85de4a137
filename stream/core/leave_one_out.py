"""Folds a user's last events once with all of them and once without each, to show what each event did to the state. Pure.

All these folds run together: the n-th event takes one call of the step model, whatever is left out.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from stream.core.features import InputRows, InputSpec
from stream.core.fold import Catalogue, Floats, InterestModels, StepInput, UserBatch, input_rows
from stream.core.state import NO_TIME, Half, Interest


class Past(NamedTuple):
    """One event of a user.

    Attributes:
        behaviour: Index into stream.core.messages.BEHAVIOURS.
        item: The item's id.
        time: Epoch ms.
        value: The rating; NaN for none.
        scene: The scene; "" for none.
        action: The click's action; "" for none.
        vector: float32 [T], the comment's text; None for none, or if it is not known.
        read: The rating that was read out of the comment's text; NaN for none.
    """

    behaviour: int
    item: str
    time: int
    value: float
    scene: str = ""
    action: str = ""
    vector: Floats | None = None
    read: float = float("nan")


def remembered(state: Interest) -> list[Past]:
    """Return the events that a state remembers, oldest first, without comment texts. Raises StateError."""
    return [
        Past(one.behaviour, one.item, one.time, one.value, one.scene, one.action)
        for one in state.recents()
    ]  # fmt: skip


def past_of(user: UserBatch) -> list[Past]:
    """Return the last events in a user's state, oldest first: as they were folded just now, else as the state remembers.

    Raises StateError.
    """
    found = remembered(user.state)
    folded = [
        Past(one.behaviour, one.item, one.time, one.value, one.scene, one.action, one.vector, one.read)
        for one in user.folded
    ]  # fmt: skip
    return [*found[: max(0, len(found) - len(folded))], *folded[-len(found) :]] if found else []


class Folds:
    """The states after all events and after all but each one, computed step by step.

    `states` float16 [1 + n, H]: row 0 with all n events, row 1 + i without event i. Every fold begins at zero.

    Args:
        events: The n events, oldest first.
        models: The models.
        catalogue: The items.
        spec: The form of the step model's inputs.
        hidden: Width H of its states.
    """

    def __init__(
        self, events: Sequence[Past], models: InterestModels, catalogue: Catalogue, spec: InputSpec, hidden: int
    ) -> None:
        self._events = events
        self._models = models
        self._spec = spec
        self._h = np.zeros((1 + len(events), hidden), np.float16)
        self._c = np.zeros_like(self._h)
        self._done = 0
        self._gaps = list(_gaps(events))
        inputs = [
            StepInput(
                one.item, one.behaviour, one.scene, one.action, _value(one), gap, one.vector
            )
            for one, (gap, _, _) in zip(events, self._gaps, strict=True)
        ]  # fmt: skip
        self._rows = input_rows(inputs, catalogue, spec)[0] if inputs else None

    @property
    def states(self) -> Half:
        """The states after the events that were folded so far."""
        return self._h

    def step(self, most: int) -> bool:
        """Fold up to `most` events. Return whether there are more. Raises what the model raises."""
        end = min(len(self._events), self._done + most)
        while self._done < end and self._rows is not None:
            self._fold(self._done, self._rows)
            self._done += 1
        return self._done < len(self._events)

    def _fold(self, at: int, rows: InputRows) -> None:
        """Fold event `at` in all folds that contain it. Those without a later event are the same as that with all."""
        size = 1 + at
        gap, latest, without = self._gaps[at]
        same = np.full(size, at)
        wave = InputRows(
            rows.item[same], rows.behaviour[same], rows.scene[same], rows.action[same], rows.numbers[same],
            rows.comment[same],
        )  # fmt: skip
        if latest >= 0 and without != gap:  # without the latest event, more time has passed
            wave.numbers[1 + latest] = self._spec.numbers(_value(self._events[at]), without)
        h, c = self._models.step(wave, self._h[:size], self._c[:size])
        self._h[1 + at], self._c[1 + at] = self._h[0], self._c[0]  # without this event
        self._h[:size], self._c[:size] = h, c


def _value(event: Past) -> float:
    return event.read if event.value != event.value else event.value


def _gaps(events: Iterable[Past]) -> Iterable[tuple[int, int, int]]:
    """Yield (time gap, index of the latest event before, time gap without it) of each event. Index -1: none before.

    The gap is that of stream.core.state.fold; without any event but the latest it is the same.
    """
    first = second = NO_TIME
    latest = -1
    for index, event in enumerate(events):
        yield _gap(first, event.time), latest, _gap(second, event.time)
        if event.time >= first:
            first, second, latest = event.time, first, index
        elif event.time > second:
            second = event.time


def _gap(before: int, time: int) -> int:
    return NO_TIME if before == NO_TIME else max(0, time - before)


def effects(folds: NDArray[np.float32]) -> NDArray[np.float32]:
    """Return float32 [n, m]: what each event adds to the score of each item.

    Args:
        folds: float32 [1 + n, m], the items' recurrent scores in the states of `Folds`.
    """
    return folds[:1] - folds[1:]
