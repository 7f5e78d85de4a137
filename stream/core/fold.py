"""From states and events to new states and slates. Pure: no Kafka, no Faust, no clock.

`take_in` does one user's bookkeeping, `advance` runs the recurrent model over all users of a micro-batch in waves (wave w
holds every user's w-th event: one model call each), `rank` scores all of them in one call.
"""

from __future__ import annotations

import math
from collections.abc import Collection, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple, Protocol

import numpy as np
from numpy.typing import NDArray

from stream.core import state as interest
from stream.core.errors import StateError
from stream.core.features import NUMBERS, UNKNOWN, InputRows, InputSpec
from stream.core.messages import COMMENT, Scored, SourceEvent
from stream.core.state import MAX_SEEN, NO_TIME, Half, Interest

Floats = NDArray[np.float32]
Rows = NDArray[np.int64]


class InterestModels(Protocol):
    """The two graphs of the hot path; see docs/bundle.md for shapes and dtypes. last: how many of a user's last choices
    the score looks at beside the state; choices: behaviours that count as such, but for events of an action that is `refused`;
    ended: how many graph calls have, since the start."""

    @property
    def ended(self) -> int: ...

    @property
    def last(self) -> int: ...

    @property
    def choices(self) -> frozenset[int]: ...

    @property
    def refused(self) -> frozenset[str]: ...

    def step(self, rows: InputRows, h: Half, c: Half) -> tuple[Half, Half]: ...

    def score(
        self, h: Half, items: Floats, bias: Floats, hidden: Rows, recent: Rows, count: Rows, k: int
    ) -> tuple[Floats, Rows]: ...


class Catalogue(Protocol):
    """One immutable view of the live items; see stream.catalogue.catalogue."""

    @property
    def offset(self) -> int: ...

    @property
    def items(self) -> Floats: ...

    @property
    def bias(self) -> Floats: ...

    def row(self, item: str) -> int: ...

    def item(self, row: int) -> str: ...

    def hidden_rows(self, hashes: NDArray[np.uint32]) -> Rows: ...


class StepInput(NamedTuple):
    """What one event brings to the recurrent model. gap_ms: negative for a user's first event."""

    item: str
    behaviour: int
    scene: str
    action: str
    value: float
    gap_ms: int
    vector: Floats | None


@dataclass(slots=True)
class Turn:
    """One user's part of a micro-batch."""

    user: bytes
    partition: int
    state: Interest
    events: Sequence[SourceEvent] = ()  # all that were given, in order
    folded: list[SourceEvent] = field(default_factory=list)
    inputs: list[StepInput] = field(default_factory=list)
    passed: list[tuple[int, str]] = field(default_factory=list)  # (behaviour, "replayed" | "duplicate")
    replayed: int = 0
    duplicates: int = 0
    refused: int = 0
    late: int = 0
    refolded: bool = False

    @property
    def changed(self) -> bool:
        """The state's record must be written again."""
        return bool(self.folded or self.duplicates or self.refused or self.refolded)


def take_in(
    user: bytes,
    partition: int,
    record: bytes | None,
    events: Sequence[SourceEvent],
    topics: Sequence[str],
    model: bytes,
    hidden: int,
    refused: Collection[SourceEvent] = (),
) -> Turn:
    """Fold the bookkeeping of one user's events, in the order given; h and c follow in `advance`.

    refused: those of the events that the fence only passes over.

    record: the stored state, None for a new user; model, hidden: stamp and width of the step model in use. A record of
    another step model is folded again from its recent events. Raises StateError naming the user on a damaged record.
    """
    try:
        state = interest.new(model, hidden) if record is None else interest.decode(record)
        state.folded = []
        turn = Turn(user, partition, state, events)
        if state.model != model:
            _refold(turn, model, hidden)
        _fold(turn, topics, refused)
    except StateError as error:
        raise _named(user, partition, error) from None
    return turn


def _named(user: bytes, partition: int, error: StateError) -> StateError:
    return StateError(f"user {user.decode(errors='replace')!r}, partition {partition}: {error}")


def _fold(turn: Turn, topics: Sequence[str], refused: Collection[SourceEvent]) -> None:
    """Fold the bookkeeping of the turn's events."""
    state = turn.state
    for event in turn.events:
        if interest.is_replay(state, event):
            turn.replayed += 1
            turn.passed.append((event.behaviour, "replayed"))
        elif interest.is_duplicate(state, event):
            interest.pass_over(state, event)
            turn.duplicates += 1
            turn.passed.append((event.behaviour, "duplicate"))
        elif any(event is one for one in refused):
            interest.pass_over(state, event)
            turn.refused += 1
        else:
            turn.late += event.time < state.last_time
            gap = interest.fold(state, event, topics[event.behaviour])
            turn.folded.append(event)
            value = event.read if math.isnan(event.value) else event.value
            turn.inputs.append(
                StepInput(event.item, event.behaviour, event.scene, event.action, value, gap, event.vector)
            )


def _refold(turn: Turn, model: bytes, hidden: int) -> None:
    """States of two step models do not mix: start from zeros and read the last events again (without comment texts)."""
    state = turn.state
    state.model = model
    state.h = state.c = np.zeros(hidden, np.float16)
    before = NO_TIME
    for recent in state.recents():
        gap = NO_TIME if before == NO_TIME else max(0, recent.time - before)
        before = max(before, recent.time)
        turn.inputs.append(
            StepInput(recent.item, recent.behaviour, recent.scene, recent.action, recent.value, gap, None)
        )
    turn.refolded = True


def advance(turns: Sequence[Turn], models: InterestModels, catalogue: Catalogue, spec: InputSpec) -> int:
    """Set h and c of every turn's state to those after its inputs. Returns how many inputs were of unknown items.

    Raises FloatingPointError where the model's result is not finite, and what the model raises; no state has changed then.
    """
    moving = sorted((turn for turn in turns if turn.inputs), key=lambda turn: -len(turn.inputs))
    unknown = 0
    if moving:
        h = np.stack([turn.state.h for turn in moving])
        c = np.stack([turn.state.c for turn in moving])
        for wave in range(len(moving[0].inputs)):
            inputs = [turn.inputs[wave] for turn in moving if len(turn.inputs) > wave]
            rows, missing = input_rows(inputs, catalogue, spec)
            unknown += missing
            n = len(inputs)
            h[:n], c[:n] = models.step(rows, h[:n], c[:n])
        if not (np.isfinite(h).all() and np.isfinite(c).all()):
            raise FloatingPointError("h or c is not finite")
        for place, turn in enumerate(moving):
            turn.state.h, turn.state.c = h[place], c[place]
    for turn in turns:
        if turn.changed:
            turn.state.catalogue = catalogue.offset
    return unknown


def input_rows(inputs: Sequence[StepInput], catalogue: Catalogue, spec: InputSpec) -> tuple[InputRows, int]:
    """B inputs -> the step model's rows, and how many name an item that nobody knows."""
    size = len(inputs)
    numbers = np.empty((size, NUMBERS), np.float32)
    comment = np.zeros((size, spec.text_dim), np.float32)
    places = np.empty(size, np.int64)
    for at, one in enumerate(inputs):
        places[at] = catalogue.row(one.item)
        numbers[at] = spec.numbers(one.value, one.gap_ms)
        if one.vector is not None:
            comment[at] = one.vector
    rows = InputRows(
        item=catalogue.items[places],
        behaviour=np.fromiter((one.behaviour for one in inputs), np.int64, size),
        scene=np.fromiter((spec.scene(one.scene) for one in inputs), np.int64, size),
        action=np.fromiter((spec.action(one.action) for one in inputs), np.int64, size),
        numbers=numbers,
        comment=comment,
    )
    return rows, int((places == UNKNOWN).sum())


def rank(
    turns: Sequence[Turn], models: InterestModels, catalogue: Catalogue, k: int, *, filter_seen: bool
) -> list[list[Scored]]:
    """The best k live items for each turn's state, best first; fewer where fewer are live and unseen."""
    if not turns:
        return []
    h = np.stack([turn.state.h for turn in turns])
    hidden = _hidden(turns, catalogue) if filter_seen else np.empty((0, 2), np.int64)
    recent = recent_choices(turns, catalogue, models.last, models.choices, models.refused)
    count = np.fromiter((turn.state.seq for turn in turns), np.int64, len(turns))
    scores, rows = models.score(h, catalogue.items, catalogue.bias, hidden, recent, count, k)
    return [
        [
            Scored(catalogue.item(row), round(score, 5))
            for score, row in zip(of_user, rows_of_user, strict=True)
            if math.isfinite(score)
        ]
        for of_user, rows_of_user in zip(scores.tolist(), rows.tolist(), strict=True)
    ]


def recent_choices(
    turns: Sequence[Turn], catalogue: Catalogue, last: int, choices: frozenset[int], refused: frozenset[str]
) -> Rows:
    """int64 [R, 3]: (place of the turn, item row, age) of every user's `last` last choices, newest first, age from 0.

    A choice is what training learned to predict (models/data/choices.py): an event of one of the behaviours `choices`, a
    comment only with a value, of none of the actions `refused`, of an item that the catalogue knows. Looked for among the user's
    last 64 events. Raises StateError naming the user where they cannot be read.
    """
    rows: list[int] = []
    ends = []
    for turn in turns if last else ():
        end = len(rows) + last
        try:
            for item, behaviour, valued in turn.state.newest(refused):
                if (
                    behaviour in choices
                    and (valued or behaviour != COMMENT)
                    and (row := catalogue.row(item)) != UNKNOWN
                ):
                    rows.append(row)
                    if len(rows) == end:
                        break
        except StateError as error:
            raise _named(turn.user, turn.partition, error) from None
        ends.append(len(rows))
    out = np.empty((len(rows), 3), np.int64)
    if rows:
        count = np.diff(ends, prepend=0)
        out[:, 0] = np.repeat(np.arange(len(turns)), count)
        out[:, 1] = rows
        out[:, 2] = np.arange(len(rows)) - np.repeat(np.cumsum(count) - count, count)
    return out


def _hidden(turns: Sequence[Turn], catalogue: Catalogue) -> Rows:
    """int64 [S, 2]: (place of the turn, item row) of every item that its user has had."""
    pairs = []
    for place, turn in enumerate(turns):
        hashes = turn.state.seen_hashes()
        if len(hashes) >= MAX_SEEN:  # full: the latest items are known from `recent` only
            late = {interest.item_hash(recent.item) for recent in turn.state.recents()}
            hashes = np.union1d(hashes, np.fromiter(late, np.uint32, len(late)))
        rows = catalogue.hidden_rows(hashes)
        pair = np.empty((len(rows), 2), np.int64)
        pair[:, 0] = place
        pair[:, 1] = rows
        pairs.append(pair)
    return np.concatenate(pairs)
