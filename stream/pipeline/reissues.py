"""Replaces standing slates that show an item which can be recommended no longer.

A slate stands until its user's next event. When an item is removed, becomes unavailable or is left out by a rule of kind
`block` or `only`, the owner of each partition looks through the standing slates of its users (a *pass*), and publishes a
new slate for those that show such an item, of the user's state as it is. No event is applied, and the state's record
stays as it is. The slate names the items that were taken out in `withdrawn`.

What must be replaced follows from the standing slates and from what can be recommended now, and not from a list of
changes. So a worker that takes partitions over makes a pass of its own, and finishes what its predecessor left.

All of it happens in turns between two micro-batches: the states cannot change meanwhile. A turn is short, and shorter
while events wait.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Awaitable, Callable, Iterable, Sequence
from dataclasses import dataclass, field
from itertools import islice
from typing import Final

import msgspec

from stream.core.fold import Catalogue, UserBatch
from stream.core.messages import Recommendation, Scored
from stream.core.placements import Placement
from stream.core.recommendable import Recommendable
from stream.core.rules import RuleSet
from stream.core.state import is_empty
from stream.kafka.broker_clock import Clock
from stream.kafka.fencing import Fence
from stream.kafka.producer import Outgoing, RecordBatches
from stream.kafka.standing_slates import Shown, Slot, StandingSlates
from stream.kafka.state_store import InterestStore
from stream.observability.metrics import Metrics
from stream.pipeline.slate_reader import SlateReader
from stream.process.stopping import stopping
from stream.settings import Settings

QUIET_TURN: Final = 0.2
"""Seconds of a turn while no event waits. It ends as soon as one does."""

CHUNK: Final = 256
"""Users whose slates are scored and sent together while no event waits: an event that comes meanwhile waits for them."""

BUSY_CHUNK: Final = 16
"""The same between two micro-batches with events."""

SCAN: Final = 1000
"""Standing slates that are looked at together."""

MOST_FOUND: Final = 10_000
"""Users who are known to need a new slate; then a pass goes on only when there are fewer."""

READ: Final = 500
"""Slates that are read together from the topic."""

log = logging.getLogger("freshet.reissues")


@dataclass(frozen=True, kw_only=True)
class ReissueParts:
    """What re-issuing works with; most of it is the pipeline's.

    Attributes:
        settings: The worker's settings.
        fence: Knows which partitions are claimed.
        store: The table's partitions.
        standing: The standing slates.
        reader: Reads the slates that others have written.
        batches: Returns the object that sends record batches.
        catalogue: Returns the current snapshot.
        rules: Returns the rules in force.
        clock: The brokers' clock.
        metrics: Counts the slates.
        published: The placements of which slates are published at first; standing slates of others are left as they are.
        resume: (user, partition, record) -> the user's state as a user batch without events.
        rank: Scores users for a placement under a catalogue and rules at a time (epoch ms), outside the event loop.
        slate: Makes a slate of a placement for a user: (user, placement, items, catalogue's offset, rules, time, items that
            were withdrawn).
        wake: Calls the pipeline although no record has arrived.
    """

    settings: Settings
    fence: Fence
    store: InterestStore
    standing: StandingSlates
    reader: SlateReader
    batches: Callable[[], RecordBatches]
    catalogue: Callable[[], Catalogue]
    rules: Callable[[], RuleSet]
    clock: Clock
    metrics: Metrics
    published: Sequence[Placement]
    resume: Callable[[bytes, int, bytes], UserBatch]
    rank: Callable[[Sequence[UserBatch], Placement, Catalogue, RuleSet, int], Awaitable[list[list[Scored]]]]
    slate: Callable[[UserBatch, Placement, list[Scored], Catalogue, RuleSet, int, tuple[str, ...]], Recommendation]
    wake: Callable[[], None]


@dataclass
class _Pass:
    """How far the pass over a partition's standing slates is.

    A change in the middle of a pass makes it go on from the first user up to where it was.

    Attributes:
        at: Key of the slot after which it goes on.
        until: Key of the slot after which it ends; None: at the last one.
        wraps: Whether it goes on from the first slot after the last one.
    """

    at: bytes = b""
    until: bytes | None = None
    wraps: bool = False

    def again(self) -> None:
        """Look at every user again, from here on."""
        if self.at:
            self.until, self.wraps = self.at, True


@dataclass
class _Replacements:
    """New slates of one placement.

    Attributes:
        placement: The placement.
        users: Whose they are.
        withdrawn: For each user, the items that the standing slate may show no longer.
        slates: For each user, the items of the new one.
    """

    placement: Placement
    users: list[UserBatch] = field(default_factory=list)
    withdrawn: list[list[str]] = field(default_factory=list)
    slates: list[list[Scored]] = field(default_factory=list)


class Reissues:
    """Finds standing slates that must be replaced, and replaces them, in turns."""

    def __init__(self, parts: ReissueParts) -> None:
        self._parts = parts
        self._standing = parts.standing
        self._encoder = msgspec.json.Encoder()
        self._may: Recommendable | None = None
        self._passes: dict[int, _Pass] = {}
        self._found: dict[tuple[int, Slot], list[str] | None] = {}  # what each shows; None: must be read again
        self._published = {one.name: one for one in parts.published}
        self._since = 0.0  # monotonic time of the oldest change that is not finished
        self._count = 0  # slates since then
        self._allowance = 0.0  # slates that may be sent now
        self._filled = 0.0  # monotonic time at which the allowance was computed
        self._due = False
        self._owned: tuple[int, ...] = ()
        self._sending: asyncio.Future[None] | None = None  # the slates before those that are scored
        self._sent: frozenset[tuple[int, Slot]] = frozenset()  # where they stand
        self._timer: asyncio.TimerHandle | None = None

    def begin(self, partitions: Iterable[int]) -> None:
        """Take over partitions: what their last owner left is found in a pass."""
        self._owned = tuple(partition for partition in partitions if self._parts.fence.owns(partition))
        self._standing.begin(self._owned)
        self._parts.reader.forget()
        self._found.clear()
        self._passes = {partition: _Pass() for partition in self._owned}
        self._may = self._now()
        self._since = 0.0
        if self._owned:
            self._start()

    def use(self, published: Sequence[Placement]) -> None:
        """Make slates of these placements from here on, of another bundle. What it withdraws is found by `look`."""
        self._published = {one.name: one for one in published}
        self._doubt_all()

    def forget(self) -> None:
        """Forget everything about partitions: they are given up."""
        self._owned = ()
        self._standing.forget()
        self._parts.reader.forget()
        self._passes.clear()
        self._found.clear()
        self._since = 0.0
        self._observe()

    def look(self) -> None:
        """Look whether an item has been withdrawn since the last time, and begin a pass if one has."""
        if self._may is None or not self._owned:
            return
        before, now = self._may, self._now()
        self._observe()
        if now is before:
            return
        self._may = now
        self._doubt_all()
        if now.lost_since(before):
            for partition in self._owned:
                if (running := self._passes.get(partition)) is None:
                    self._passes[partition] = _Pass()
                else:
                    running.again()
            self._start()

    def note(self, partition: int, slates: Sequence[tuple[Slot, Shown | None]], last: int) -> None:
        """Note slates that the pipeline has sent; None for a tombstone. last: Offset of the last one; -1 if unknown."""
        self._standing.sent(partition, slates, last)
        self._doubt(partition, slates)
        if self._standing.behind():
            self._due = True

    async def turn(self, events: bool, waiting: Callable[[], bool]) -> None:
        """Do some of the work, if there is any.

        Args:
            events: Whether the micro-batch had events: then others may be on their way.
            waiting: Returns whether a micro-batch waits.
        """
        self._due = False
        if stopping.asked:
            return  # the next owner makes a pass
        if not self._standing.behind():
            self._parts.reader.close()
            if not (self._passes or self._found):
                return
        began = time.monotonic()
        while True:
            busy = events or waiting()
            if not await self._step(busy):
                break
            if busy or time.monotonic() - began > QUIET_TURN:
                self._due = True
                break
        await self._acknowledged()
        if not (self._passes or self._found) and self._since:
            if self._count:
                log.info(
                    "slates that showed a withdrawn item are replaced",
                    extra={"slates": self._count, "seconds": round(time.monotonic() - self._since, 3)},
                )
            self._since = 0.0
        self._observe()

    async def stop(self) -> None:
        """Close the client. May be called twice."""
        await self._parts.reader.stop()

    def schedule(self) -> None:
        """Have the pipeline called again if a turn is due."""
        if self._due:
            self._due = False
            self._parts.wake()

    def _start(self) -> None:
        if not self._since:
            self._since, self._count = time.monotonic(), 0
        self._observe()  # the first slates are counted before the turn ends
        self._parts.wake()

    def _now(self) -> Recommendable:
        """Return what can be recommended now: the same object for as long as that does not change."""
        catalogue, rules, now = self._parts.catalogue(), self._parts.rules(), self._parts.clock.now_ms()
        if self._may is not None and self._may.is_now(catalogue, rules, now):
            return self._may
        return Recommendable(catalogue, rules, now)

    def _doubt(self, partition: int, slates: Iterable[tuple[Slot, Shown | None]]) -> None:
        """Note that slates stand now of which others may be known."""
        found = self._found
        if not found:
            return
        for slot, shows in slates:
            for one in (slot,) if shows is not None else (Slot(slot.user, name) for name in self._published):
                if (partition, one) in found:
                    found[partition, one] = None

    def _doubt_all(self) -> None:
        self._found = dict.fromkeys(self._found)

    async def _step(self, busy: bool) -> bool:
        """Read, look or replace for a moment. Return whether there is more to do at once."""
        if self._standing.behind():
            more = await self._parts.reader.step(READ // 4 if busy else READ)
            self._doubt_all()
            if more:
                return True
        self._look_through(SCAN // 4 if busy else SCAN)
        if not self._found:
            return self._open() is not None
        size = min(BUSY_CHUNK if busy else CHUNK, self._allowed())
        if size:
            some = dict(islice(self._found.items(), size))
            for key in some:
                del self._found[key]
            await self._replace(some)
        return bool(size)

    def _open(self) -> int | None:
        """Return a partition whose pass can go on; None if there is none."""
        behind = self._standing.behind()
        return next((partition for partition in self._passes if partition not in behind), None)

    def _look_through(self, count: int) -> None:
        """Look at some standing slates, and find those that must be replaced."""
        may, partition = self._may, self._open()
        if may is None or partition is None or len(self._found) >= MOST_FOUND:
            return
        going = self._passes[partition]
        slates = self._standing.scan(partition, going.at, count)
        for slot, shown in slates:
            if going.until is not None and not going.wraps and slot.key > going.until:
                del self._passes[partition]
                return
            if slot.placement in self._published and (items := may.withdrawn(slot.user, shown.seq, shown.items)):
                self._found[partition, slot] = items
            going.at = slot.key
        if len(slates) == count:
            return
        if going.wraps:
            going.at, going.wraps = b"", False
        else:
            del self._passes[partition]

    def _allowed(self) -> int:
        """Return how many slates may be sent now under the setting `reissue_rate`. If none, a later turn is due."""
        rate, now = self._parts.settings.reissue_rate, time.monotonic()
        self._allowance = min(max(1.0, rate / 10), self._allowance + rate * (now - self._filled))
        self._filled = now
        if self._allowance < 1 and self._timer is None:
            self._timer = asyncio.get_running_loop().call_later(max(0.01, (1 - self._allowance) / rate), self._ring)
        return int(self._allowance)

    def _ring(self) -> None:
        self._timer = None
        self._parts.wake()

    async def _replace(self, slots: dict[tuple[int, Slot], list[str] | None]) -> None:
        """Publish new slates where the standing ones still show a withdrawn item."""
        parts = self._parts
        if not self._sent.isdisjoint(slots):
            await self._acknowledged()  # what stands is known only then
            slots = dict.fromkeys(slots)
        catalogue, rules, now = parts.catalogue(), parts.rules(), parts.clock.now_ms()
        may = self._may
        if may is None or not may.is_now(catalogue, rules, now):
            may = Recommendable(catalogue, rules, now)  # `look` compares it with the one before, too
            slots = dict.fromkeys(slots)
        by_partition: dict[int, list[Slot]] = {}
        for partition, slot in slots:
            by_partition.setdefault(partition, []).append(slot)
        found: dict[str, _Replacements] = {}
        for partition, some in by_partition.items():
            gone = set()
            shows = self._shows(may, partition, [slot for slot in some if slots[partition, slot] is None])
            records = parts.store.read(partition, [slot.user for slot in some])
            for slot, record in zip(some, records, strict=True):
                items = slots[partition, slot]
                if items is None:
                    items = shows[slot]
                if not items:
                    continue  # there was a new slate meanwhile
                if record is None or is_empty(record):  # a user who was forgotten gets no slate
                    gone.add(slot.user)
                    continue
                of_placement = found.setdefault(slot.placement, _Replacements(self._published[slot.placement]))
                of_placement.users.append(parts.resume(slot.user, partition, record))
                of_placement.withdrawn.append(items)
            if gone:
                self._standing.remove(partition, gone)
        for made in found.values():
            self._allowance -= len(made.users)
            made.slates = await parts.rank(made.users, made.placement, catalogue, rules, now)
        if found:
            await self._acknowledged()
            self._sent = frozenset(slots)
            self._sending = asyncio.ensure_future(self._send(list(found.values()), catalogue, rules))

    def _shows(self, may: Recommendable, partition: int, slots: Sequence[Slot]) -> dict[Slot, list[str]]:
        """Return which of the items that standing slates show are withdrawn."""
        if not slots:
            return {}
        return {
            slot: [] if shown is None else may.withdrawn(slot.user, shown.seq, shown.items)
            for slot, shown in zip(slots, self._standing.read(partition, slots), strict=True)
        }

    async def _acknowledged(self) -> None:
        """Wait for the slates that were sent last."""
        sending, self._sending = self._sending, None
        self._sent = frozenset()
        if sending is not None:
            await sending

    async def _send(self, made: Sequence[_Replacements], catalogue: Catalogue, rules: RuleSet) -> None:
        parts = self._parts
        topic, now = parts.settings.recommendations_topic, parts.clock.now_ms()
        lists: dict[tuple[str, int], list[Outgoing]] = {}
        noted: dict[int, list[tuple[Slot, Shown | None]]] = {}
        stamps: dict[int, list[tuple[str, bytes]]] = {}
        count = 0
        for one in made:
            for user_batch, items, taken in zip(one.users, one.slates, one.withdrawn, strict=True):
                user, partition = user_batch.user, user_batch.partition
                if partition not in stamps:
                    stamps[partition] = parts.fence.stamp(partition)
                    lists[topic, partition], noted[partition] = [], []
                slate = parts.slate(user_batch, one.placement, items, catalogue, rules, now, tuple(taken))
                lists[topic, partition].append(Outgoing(user, self._encoder.encode(slate), stamps[partition]))
                noted[partition].append((Slot(user, one.placement.name), shown(user_batch, items)))
                count += 1
        ends = await parts.batches().send(lists)
        for partition, some in noted.items():
            self._standing.sent(partition, some, ends[topic, partition])
            self._doubt(partition, some)
        self._count += count
        parts.metrics.reissued.inc(count)

    def _observe(self) -> None:
        self._parts.metrics.observe_reissues(
            len(self._found), time.monotonic() - self._since if self._since else 0.0
        )  # fmt: skip


def shown(user_batch: UserBatch, items: Sequence[Scored]) -> Shown:
    """Return what a slate of a user shows."""
    return Shown(user_batch.state.seq, [scored.item for scored in items])
