"""From states and events to new states and slates. Pure: no Kafka, no Faust, no clock.

`apply_events` does one user's bookkeeping. `advance` runs the recurrent model over all users of a micro-batch in waves:
wave w holds every user's w-th event and takes one model call. `rank` scores all users in one call for
each set of rules that applies.
"""

from __future__ import annotations

import math
from collections.abc import Collection, Sequence
from dataclasses import dataclass, field
from typing import Final, NamedTuple, Protocol

import numpy as np
from numpy.typing import NDArray

from stream.core import candidates
from stream.core.diversity import Diversity
from stream.core.errors import StateError
from stream.core.features import NUMBERS, UNKNOWN, InputRows, InputSpec
from stream.core.filters import Columns, Filter
from stream.core.messages import COMMENT, Scored, SourceEvent
from stream.core.ruling import ENOUGH, Ruling, Selection
from stream.core.score_tables import ScoreTables
from stream.core.state import (
    HASH_BYTES,
    MAX_RECENT,
    MAX_SEEN,
    NO_TIME,
    Half,
    Interest,
    decode,
    erase,
    fold,
    is_duplicate,
    is_redelivered,
    item_hash,
    new,
    pass_over,
)

Floats = NDArray[np.float32]
Rows = NDArray[np.int64]
PLAIN: Final = Diversity()
"""The items in the order of their scores."""


class InterestModels(Protocol):
    """The two graphs of the hot path. See docs/bundle.md for shapes and dtypes.

    Attributes:
        ended: Number of graph calls that have ended since the start.
        last: How many of a user's last choices the score uses in addition to the state.
        choices: Behaviours that count as choices, except events whose action is `refused`.
        refused: Actions that are not choices.
    """

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
        self,
        h: Half,
        items: Floats,
        bias: Floats,
        hidden: Rows,
        recent: Rows,
        count: Rows,
        k: int,
        tables: ScoreTables | None,
    ) -> tuple[Floats, Rows]: ...


class Catalogue(Protocol):
    """An immutable view of the live items. See stream.catalogue.catalogue."""

    @property
    def offset(self) -> int: ...

    @property
    def items(self) -> Floats: ...

    @property
    def score_items(self) -> Floats: ...

    @property
    def bias(self) -> Floats: ...

    @property
    def columns(self) -> Columns: ...

    @property
    def categories(self) -> NDArray[np.int32]: ...

    @property
    def tables(self) -> ScoreTables | None: ...

    def category(self, name: str) -> int: ...

    def where(self, filtered: Filter) -> Catalogue: ...

    def row(self, item: str) -> int: ...

    def rows_of(self, items: Sequence[str]) -> list[int]: ...

    def item(self, row: int) -> str: ...

    def items_of(self, rows: Rows) -> list[str]: ...

    def hidden_rows(self, hashes: NDArray[np.uint32]) -> tuple[Rows, Rows]: ...


class StepInput(NamedTuple):
    """The input that one event gives the recurrent model. `gap_ms` is negative for a user's first event."""

    item: str
    behaviour: int
    scene: str
    action: str
    value: float
    gap_ms: int
    vector: Floats | None


@dataclass(slots=True)
class UserBatch:
    """One user's part of a micro-batch."""

    user: bytes
    partition: int
    state: Interest
    events: Sequence[SourceEvent] = ()  # all of the user's events, in order
    folded: list[SourceEvent] = field(default_factory=list)
    inputs: list[StepInput] = field(default_factory=list)
    passed: list[tuple[int, str]] = field(default_factory=list)  # (behaviour, "redelivered" | "duplicate")
    redelivered: int = 0
    duplicates: int = 0
    refused: int = 0
    late: int = 0
    refolded: bool = False
    erased: list[SourceEvent] = field(
        default_factory=list
    )  # events that a control record erased, and the record itself

    @property
    def changed(self) -> bool:
        """Whether the state's record must be written again."""
        return bool(self.folded or self.duplicates or self.refused or self.refolded or self.erased)

    @property
    def forgotten(self) -> bool:
        """Whether a control record of this micro-batch, also one that is read again, leaves the user without a state."""
        return not self.state.seq and any(event.forget for event in self.events)


def apply_events(
    user: bytes,
    partition: int,
    record: bytes | None,
    events: Sequence[SourceEvent],
    topics: Sequence[str],
    model: bytes,
    hidden: int,
    refused: Collection[SourceEvent] = (),
) -> UserBatch:
    """Fold the bookkeeping of one user's events, in the given order. `advance` then updates h and c.

    A record of another step model is folded again from its recent events.

    Args:
        user: The user's key.
        partition: The user's partition.
        record: The stored state, or None for a new user.
        events: The user's events.
        topics: Names of the source topics.
        model: Stamp of the step model in use.
        hidden: Width of the step model in use.
        refused: The events that are passed over.

    Raises:
        StateError: The record is damaged; the message names the user.
    """
    try:
        state = new(model, hidden) if record is None else decode(record)
        state.folded = []
        user_batch = UserBatch(user, partition, state, events)
        if state.model != model:
            _refold(user_batch, model, hidden)
        _fold(user_batch, topics, refused)
    except StateError as error:
        raise _named(user, partition, error) from None
    return user_batch


def _named(user: bytes, partition: int, error: StateError) -> StateError:
    return StateError(f"user {user.decode(errors='replace')!r}, partition {partition}: {error}")


def _fold(user_batch: UserBatch, topics: Sequence[str], refused: Collection[SourceEvent]) -> None:
    """Fold the bookkeeping of the batch's events."""
    state = user_batch.state
    for event in user_batch.events:
        if is_redelivered(state, event):
            user_batch.redelivered += 1
            user_batch.passed.append((event.behaviour, "redelivered"))
        elif event.forget:
            _erase(user_batch, event)
        elif is_duplicate(state, event):
            pass_over(state, event)
            user_batch.duplicates += 1
            user_batch.passed.append((event.behaviour, "duplicate"))
        elif any(event is one for one in refused):
            pass_over(state, event)
            user_batch.refused += 1
        else:
            user_batch.late += event.time < state.last_time
            gap = fold(state, event, topics[event.behaviour])
            user_batch.folded.append(event)
            value = event.read if math.isnan(event.value) else event.value
            user_batch.inputs.append(
                StepInput(event.item, event.behaviour, event.scene, event.action, value, gap, event.vector)
            )


def _erase(user_batch: UserBatch, event: SourceEvent) -> None:
    """Apply a control record. What was folded before it in the micro-batch is erased, too."""
    erase(user_batch.state, event)
    user_batch.erased += [*user_batch.folded, event]
    user_batch.folded.clear()
    user_batch.inputs.clear()


def _refold(user_batch: UserBatch, model: bytes, hidden: int) -> None:
    """Start from zeros and fold the last events again, without comment texts: states of two step models do not mix."""
    state = user_batch.state
    state.model = model
    state.h = state.c = np.zeros(hidden, np.float16)
    before = NO_TIME
    for recent in state.recents():
        gap = NO_TIME if before == NO_TIME else max(0, recent.time - before)
        before = max(before, recent.time)
        user_batch.inputs.append(
            StepInput(recent.item, recent.behaviour, recent.scene, recent.action, recent.value, gap, None)
        )
    user_batch.refolded = True


def advance(user_batches: Sequence[UserBatch], models: InterestModels, catalogue: Catalogue, spec: InputSpec) -> int:
    """Set h and c of every batch's state to those after its inputs. Returns the number of inputs with unknown items.

    Raises FloatingPointError if the model's result is not finite, and whatever the model raises. No state has changed
    then.
    """
    moving = sorted(
        (user_batch for user_batch in user_batches if user_batch.inputs), key=lambda user_batch: -len(user_batch.inputs)
    )
    unknown = 0
    if moving:
        h = np.stack([user_batch.state.h for user_batch in moving])
        c = np.stack([user_batch.state.c for user_batch in moving])
        for wave in range(len(moving[0].inputs)):
            inputs = [user_batch.inputs[wave] for user_batch in moving if len(user_batch.inputs) > wave]
            rows, missing = input_rows(inputs, catalogue, spec)
            unknown += missing
            n = len(inputs)
            h[:n], c[:n] = models.step(rows, h[:n], c[:n])
        if not (np.isfinite(h).all() and np.isfinite(c).all()):
            raise FloatingPointError("h or c is not finite")
        for row, user_batch in enumerate(moving):
            user_batch.state.h, user_batch.state.c = h[row], c[row]
    for user_batch in user_batches:
        if user_batch.changed:
            user_batch.state.catalogue = catalogue.offset
    return unknown


def input_rows(inputs: Sequence[StepInput], catalogue: Catalogue, spec: InputSpec) -> tuple[InputRows, int]:
    """Return the step model's rows for B inputs, and the number of inputs with an unknown item."""
    size = len(inputs)
    numbers = np.empty((size, NUMBERS), np.float32)
    comment = np.zeros((size, spec.text_dim), np.float32)
    item_rows = np.empty(size, np.int64)
    for at, one in enumerate(inputs):
        item_rows[at] = catalogue.row(one.item)
        numbers[at] = spec.numbers(one.value, one.gap_ms)
        if one.vector is not None:
            comment[at] = one.vector
    rows = InputRows(
        item=catalogue.items[item_rows],
        behaviour=np.fromiter((one.behaviour for one in inputs), np.int64, size),
        scene=np.fromiter((spec.scene(one.scene) for one in inputs), np.int64, size),
        action=np.fromiter((spec.action(one.action) for one in inputs), np.int64, size),
        numbers=numbers,
        comment=comment,
    )
    return rows, int((item_rows == UNKNOWN).sum())


def rank(
    user_batches: Sequence[UserBatch],
    models: InterestModels,
    catalogue: Catalogue,
    k: int,
    *,
    filter_seen: bool,
    ruling: Ruling | None = None,
    diversity: Diversity = PLAIN,
) -> list[list[Scored]]:
    """Return the best k live items for each batch's state, best first; fewer if fewer are live and unseen.

    Args:
        user_batches: The users.
        models: The models.
        catalogue: The items; a view of it if a request filters them.
        k: The slate's size.
        filter_seen: Whether items that the user has interacted with are left out.
        ruling: The rules; None for none.
        diversity: With a strength above 0, the best `diversity.candidates` are re-ranked, so that the items are not in the
            order of their scores. Rules hold, too (stream.core.candidates).
    """
    if ruling is None:
        return _ranked(user_batches, models, catalogue, k, filter_seen, None, diversity)
    groups: dict[Selection | None, list[int]] = {}
    for index, user_batch in enumerate(user_batches):
        selection = ruling.of(user_batch.user, user_batch.state.seq, catalogue)
        groups.setdefault(selection, []).append(index)
    slates: list[list[Scored]] = [[]] * len(user_batches)
    for selection, indices in groups.items():
        some = [user_batches[index] for index in indices]
        found = _ranked(some, models, catalogue, k, filter_seen, selection, diversity)
        for index, slate in zip(indices, found, strict=True):
            slates[index] = slate
    return slates


def _ranked(
    user_batches: Sequence[UserBatch],
    models: InterestModels,
    catalogue: Catalogue,
    k: int,
    filter_seen: bool,
    selection: Selection | None,
    diversity: Diversity,
) -> list[list[Scored]]:
    """Return the slates of users to whom the same rules apply."""
    if not user_batches:
        return []
    diverse = diversity.strength > 0
    arranged = selection is not None and (selection.arranges or diverse)
    h = np.stack([user_batch.state.h for user_batch in user_batches])
    hidden = _hidden(user_batches, catalogue) if filter_seen else np.empty((0, 2), np.int64)
    last = MAX_RECENT if diverse else models.last
    own = recent_choices(user_batches, catalogue, last, models.choices, models.refused)
    recent = own[own[:, 2] < models.last]
    count = np.fromiter((user_batch.state.seq for user_batch in user_batches), np.int64, len(user_batches))
    bias = catalogue.bias if selection is None else selection.bias
    wanted = k if selection is None else selection.candidates(k)
    if diverse:
        wanted = max(wanted, diversity.candidates + (0 if selection is None else len(selection.pinned(k))))
    seen = _seen_pins(selection, hidden, len(user_batches)) if selection is not None and arranged else None
    while True:
        scores, rows = models.score(h, catalogue.score_items, bias, hidden, recent, count, wanted, catalogue.tables)
        if selection is None or seen is None:
            if diverse:
                scores, rows = candidates.plain(scores, rows, own, catalogue, k, diversity.strength)
            return _slates(scores, rows, catalogue)
        if diverse:
            choices = candidates.ruled(scores, rows, own, catalogue, k, diversity, selection, seen)
        else:
            choices = [candidates.Choice(one, True, len(one) < wanted) for one in _pairs(scores, rows)]
        slates = [selection.arrange(one.ranked, k, of_user) for one, of_user in zip(choices, seen, strict=True)]
        if wanted >= len(bias) or all(one.done(len(slate), k) for one, slate in zip(choices, slates, strict=True)):
            break
        wanted = min(ENOUGH * wanted, len(bias))  # caps have left out too many
    return [[Scored(catalogue.item(row), round(score, 5)) for row, score in slate] for slate in slates]


def _slates(scores: Floats, rows: Rows, catalogue: Catalogue) -> list[list[Scored]]:
    """Return each user's items [B, k] in the order of the places, without places that have no recommendation."""
    real = np.isfinite(scores)
    made = list(map(Scored, catalogue.items_of(rows[real]), rounded(scores[real]).tolist()))
    ends = real.sum(axis=1).cumsum().tolist()
    return [made[first:end] for first, end in zip([0, *ends], ends, strict=False)]


def rounded(scores: Floats) -> NDArray[np.float64]:
    """Return scores, float32, with five decimals, float64: the same bits as Python's `round(score, 5)`.

    The product of a float32 and 100,000 has at most 41 significant bits, so it is exact in float64. Ties go to the even
    digit in both.
    """
    return np.rint(scores.astype(np.float64) * 1e5) / 1e5


def _pairs(scores: Floats, rows: Rows) -> list[list[tuple[int, float]]]:
    """Return each user's (row, score), without places that have no recommendation."""
    return [
        [
            (row, score)
            for score, row in zip(of_user, rows_of_user, strict=True)
            if math.isfinite(score)
        ]
        for of_user, rows_of_user in zip(scores.tolist(), rows.tolist(), strict=True)
    ]  # fmt: skip


def _seen_pins(selection: Selection, hidden: Rows, users: int) -> list[set[int]]:
    """Return, for each user, the pinned rows among the `hidden` pairs."""
    found: list[set[int]] = [set() for _ in range(users)]
    if selection.pins and len(hidden):
        pinned = np.array([row for _, row in selection.pins], np.int64)
        for user, row in hidden[np.isin(hidden[:, 1], pinned)].tolist():
            found[user].add(row)
    return found


def recent_choices(
    user_batches: Sequence[UserBatch], catalogue: Catalogue, last: int, choices: frozenset[int], refused: frozenset[str]
) -> Rows:
    """Return every user's `last` last choices, newest first.

    A choice is what training learned to predict (models/data/choices.py): an event of one of the behaviours `choices`,
    with none of the actions `refused`, on an item that the catalogue knows. A comment must have a value. The choices
    come from the user's last 64 events.

    Returns:
        int64 [R, 3]: (index of the batch, item row, age), with age from 0.

    Raises:
        StateError: A user's events cannot be read; the message names the user.
    """
    rows: list[int] = []
    ends = []
    for user_batch in user_batches if last else ():
        end = len(rows) + last
        try:
            for item, behaviour, valued in user_batch.state.newest(refused):
                if (
                    behaviour in choices
                    and (valued or behaviour != COMMENT)
                    and (row := catalogue.row(item)) != UNKNOWN
                ):
                    rows.append(row)
                    if len(rows) == end:
                        break
        except StateError as error:
            raise _named(user_batch.user, user_batch.partition, error) from None
        ends.append(len(rows))
    out = np.empty((len(rows), 3), np.int64)
    if rows:
        count = np.diff(ends, prepend=0)
        out[:, 0] = np.repeat(np.arange(len(user_batches)), count)
        out[:, 1] = rows
        out[:, 2] = np.arange(len(rows)) - np.repeat(np.cumsum(count) - count, count)
    return out


def _hidden(user_batches: Sequence[UserBatch], catalogue: Catalogue) -> Rows:
    """Return int64 [S, 2]: (index of the batch, item row) of every item that the batch's user has interacted with."""
    seen = [user_batch.state.seen for user_batch in user_batches]
    for index, user_batch in enumerate(user_batches):
        if len(seen[index]) >= MAX_SEEN * HASH_BYTES:  # full: only `recent` knows the latest items
            late = {item_hash(recent.item) for recent in user_batch.state.recents()}
            hashes = np.union1d(user_batch.state.seen_hashes(), np.fromiter(late, np.uint32, len(late)))
            seen[index] = hashes.tobytes()
    users = np.repeat(np.arange(len(seen)), [len(one) // HASH_BYTES for one in seen])
    places, rows = catalogue.hidden_rows(np.frombuffer(b"".join(seen), np.uint32))
    return np.stack((users[places], rows), axis=1)
