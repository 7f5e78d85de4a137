"""What the tally counts: sums that depend on which events there are, and not on the order in which they arrive. Pure.

A choice counts for its item once and for all. Pairs are counted from each user's newest HISTORY choices, in the order of
(time, source topic, offset): when these change, what the user added before is subtracted, and what the user adds now is
added. So a sum is a function of the events alone, however the records of several partitions and topics are interleaved.

For that, a user's record keeps the newest HISTORY choices and the last MARKS ids of every source topic by itself: within
one partition the order is always the same. A control record (stream.core.forgetting) in a topic takes back the choices that
are kept of this topic; what older ones have added to the counts of their items stays, and names nobody.
"""

from __future__ import annotations

import math
from bisect import insort
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from hashlib import blake2b
from typing import Final, NamedTuple

import msgspec

from stream.core.errors import StateError
from stream.core.messages import COMMENT, SOURCE_TOPICS, SourceEvent
from stream.core.tables import HISTORY
from stream.core.tally import SHARE_BITS, WEIGHT_BITS, ForwardDecay, PairShape, whole_weight

MARK: Final = 8
"""Bytes of an id that a user's record remembers."""
MARKS: Final = 64
"""Ids that it remembers of each source topic."""
TOPICS: Final = len(SOURCE_TOPICS)
Pair = tuple[str, str]
Read = Callable[[Sequence[bytes]], Sequence[bytes | None]]
"""Users' keys -> their records."""


class Choice(NamedTuple):
    """A choice of a user. Choices are ordered by it.

    Attributes:
        time: Epoch ms.
        topic: Index of the source topic.
        offset: Of its record.
        item: The item's id.
        weight: Of its action.
    """

    time: int
    topic: int
    offset: int
    item: str
    weight: float


class History(msgspec.Struct, array_like=True):
    """What a user's record holds, for each source topic.

    Attributes:
        kept: The newest choices, the oldest first.
        marks: Hashes of the ids that came last.
    """

    kept: tuple[list[Choice], list[Choice], list[Choice]]
    marks: tuple[list[bytes], list[bytes], list[bytes]]

    def newest(self) -> list[Choice]:
        """Return the newest HISTORY choices of all topics, the oldest first."""
        filled = [of_topic for of_topic in self.kept if of_topic]
        if len(filled) == 1:  # it is in order
            return filled[0][-HISTORY:]
        return sorted(choice for of_topic in filled for choice in of_topic)[-HISTORY:]

    def add(self, choice: Choice) -> None:
        """Keep a choice if it is among the newest HISTORY of its topic."""
        kept = self.kept[choice.topic]
        insort(kept, choice)
        if len(kept) > HISTORY:
            del kept[0]

    def repeats(self, topic: int, identity: str) -> bool:
        """Return whether an id is among the last MARKS of its topic; if not, remember it."""
        mark, marks = blake2b(identity.encode(), digest_size=MARK).digest(), self.marks[topic]
        if mark in marks:
            return True
        marks.append(mark)
        if len(marks) > MARKS:
            del marks[0]
        return False

    @property
    def empty(self) -> bool:
        return not any(self.kept) and not any(self.marks)


_encoder: Final = msgspec.msgpack.Encoder()
_decoder: Final = msgspec.msgpack.Decoder(History)


def encode(history: History) -> bytes | None:
    """Return a user's record; None if there is nothing to keep."""
    return None if history.empty else _encoder.encode(history)


def decode(user: bytes, record: bytes | None) -> History:
    """Return what a user's record holds. Raises StateError, which names the user."""
    if record is None:
        return History(([], [], []), ([], [], []))
    try:
        return _decoder.decode(record)
    except msgspec.MsgspecError as error:
        raise StateError(
            f"user {user.decode(errors='replace')!r}: the tally's record cannot be read: {error}"
        ) from None


@dataclass(frozen=True)
class TableShape:
    """How tables are counted.

    Attributes:
        near: Decay of neighbours, and of the counts that they are divided by.
        prior: Decay of popularity.
        pairs: Which pairs count.
        chosen: Behaviours that count as choices; comments only with a value.
        weights: Action -> weight. At 0 or below, a click with it is not a choice.
    """

    near: ForwardDecay
    prior: ForwardDecay
    pairs: PairShape
    chosen: frozenset[int]
    weights: Mapping[str, float]

    def weight(self, event: SourceEvent) -> float:
        """Return the weight of an event as a choice; 0 if it is none."""
        if event.behaviour not in self.chosen or (event.behaviour == COMMENT and math.isnan(event.value)):
            return 0.0
        return max(0.0, self.weights.get(event.action, 1.0)) if event.action else 1.0


class ItemSums(NamedTuple):
    """The sums of one item: count, popular and touched of stream.core.tables.TableRow."""

    amount: int
    popular: int
    touched: int


@dataclass
class Sums:
    """All sums.

    Attributes:
        items: Item -> its sums.
        ahead: First item -> second item -> sum.
        now: Epoch ms of the newest event; 0 for none.
    """

    items: dict[str, ItemSums] = field(default_factory=dict)
    ahead: dict[str, dict[str, int]] = field(default_factory=dict)
    now: int = 0

    def add_pair(self, first: str, second: str, amount: int) -> None:
        """Add to a pair's sum."""
        row = self.ahead.get(first)
        if row is None:
            row = self.ahead[first] = {}
        if total := row.get(second, 0) + amount:
            row[second] = total
        else:
            self.set_pair(first, second, 0)

    def pair(self, first: str, second: str) -> int:
        """Return the sum of a pair."""
        return self.ahead.get(first, {}).get(second, 0)

    def set_pair(self, first: str, second: str, total: int) -> None:
        """Set the sum of a pair. One of 0 is not kept."""
        row = self.ahead.setdefault(first, {})
        if total:
            row[second] = total
        else:
            row.pop(second, None)
            if not row:
                del self.ahead[first]


@dataclass
class Changed:
    """What a micro-batch has changed: what must be written.

    Attributes:
        users: User's key -> record; None: it is deleted.
        items: Items whose sums have changed.
        pairs: Pairs whose sums have changed.
        events: Number of events, but not those that repeat an id.
        choices: Number of choices among them.
        repeated: Number of events that repeat an id.
    """

    users: dict[bytes, bytes | None] = field(default_factory=dict)
    items: set[str] = field(default_factory=set)
    pairs: set[Pair] = field(default_factory=set)
    events: int = 0
    choices: int = 0
    repeated: int = 0


def count(sums: Sums, shape: TableShape, events: Iterable[SourceEvent], read: Read) -> Changed:
    """Add events to the sums.

    Args:
        sums: Are changed.
        shape: How tables are counted.
        events: Acceptable events; those of one partition in the order of their offsets.
        read: Reads the users' records.

    Raises:
        StateError: A user's record cannot be read.
    """
    changed = Changed()
    groups: dict[bytes, list[SourceEvent]] = {}
    for event in events:
        groups.setdefault(event.user, []).append(event)
    users = list(groups)
    for user, record in zip(users, read(users), strict=True):
        history = decode(user, record)
        before = history.newest()
        for event in groups[user]:
            _take(sums, shape, history, event, changed)
        for (first, second), amount in change(before, history.newest(), shape.pairs, shape.near).items():
            sums.add_pair(first, second, amount)
            changed.pairs.add((first, second))
        changed.users[user] = encode(history)
    return changed


def _take(sums: Sums, shape: TableShape, history: History, event: SourceEvent, changed: Changed) -> None:
    topic = event.behaviour
    if event.forget:
        for choice in history.kept[topic]:
            _add(sums, shape, choice, -1, changed)
        history.kept[topic].clear()
        history.marks[topic].clear()
        return
    if (identity := event.mark or event.id) and history.repeats(topic, identity):
        changed.repeated += 1
        return
    changed.events += 1
    sums.now = max(sums.now, event.time)
    if weight := shape.weight(event):
        changed.choices += 1
        choice = Choice(event.time, topic, event.offset, event.item, weight)
        history.add(choice)
        _add(sums, shape, choice, 1, changed)


def _add(sums: Sums, shape: TableShape, choice: Choice, times: int, changed: Changed) -> None:
    """Add a choice to the sums of its item; with `times` = -1 subtract it."""
    own = whole_weight(choice.weight)
    before = sums.items.get(choice.item, ItemSums(0, 0, 0))
    after = ItemSums(
        before.amount + times * (shape.near.weight(choice.time) * own >> WEIGHT_BITS),
        before.popular + times * (shape.prior.weight(choice.time) * own >> WEIGHT_BITS),
        before.touched + times,
    )
    if after.touched:
        sums.items[choice.item] = after
    else:
        sums.items.pop(choice.item, None)
    changed.items.add(choice.item)


def change(before: Sequence[Choice], after: Sequence[Choice], shape: PairShape, decay: ForwardDecay) -> dict[Pair, int]:
    """Return by how much a user's part in each pair changes; pairs without a change are left out.

    Args:
        before: The choices that counted, the oldest first.
        after: Those that count now.
        shape: Which pairs count.
        decay: Their decay.
    """
    wanted = _touched(before, after, shape.reach)
    old, new = amounts(before, wanted, shape, decay), amounts(after, wanted, shape, decay)
    return {pair: amount for pair in wanted if (amount := new[pair] - old[pair])}


def _touched(before: Sequence[Choice], after: Sequence[Choice], reach: int) -> dict[Pair, None]:
    """Return the pairs that may differ. Usually the oldest choices have left and newer ones have come."""
    gone = next((at for at, choice in enumerate(before) if after and choice == after[0]), len(before))
    left = len(before) - gone
    if list(before[gone:]) != list(after[:left]):
        gone, left = len(before), 0
    found = {(before[at].item, other.item): None for at in range(gone) for other in before[at + 1 : at + 1 + reach]} | {
        (other.item, after[at].item): None for at in range(left, len(after)) for other in after[max(0, at - reach) : at]
    }
    return {pair: None for pair in found if pair[0] != pair[1]}


def amounts(
    choices: Sequence[Choice], wanted: Collection[Pair], shape: PairShape, decay: ForwardDecay
) -> dict[Pair, int]:
    """Return what a user adds to each wanted pair: what stream.core.tally.UserChoices returns, summed up.

    Args:
        choices: The user's choices, the oldest first.
        wanted: Pairs of two items.
        shape: Which pairs count.
        decay: Their decay.
    """
    places: dict[str, list[int]] = {item: [] for pair in wanted for item in pair}
    for at, choice in enumerate(choices):
        if choice.item in places:
            places[choice.item].append(at)
    shares, reach = _shares(shape), shape.reach
    found = {}
    for pair in wanted:
        total = greatest = 0
        firsts = places[pair[0]]
        for second in places[pair[1]] if firsts else ():
            for first in firsts:
                if 0 < second - first <= reach:
                    amount = _addend(choices[first], choices[second], shares[second - first - 1], decay)
                    total, greatest = total + amount, max(greatest, amount)
        found[pair] = min(total, shape.cap * greatest)
    return found


@lru_cache(maxsize=1)
def _shares(shape: PairShape) -> list[int]:
    return shape.shares()


@lru_cache(maxsize=1024)
def _root(first: float, second: float) -> int:
    """Return the weight of a pair of choices with these weights, in units of 2^-WEIGHT_BITS."""
    return math.isqrt(whole_weight(first) * whole_weight(second))


def _addend(first: Choice, second: Choice, share: int, decay: ForwardDecay) -> int:
    return (decay.weight(second.time) * share >> SHARE_BITS) * _root(first.weight, second.weight) >> WEIGHT_BITS
