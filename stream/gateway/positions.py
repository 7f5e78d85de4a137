"""What the replica has applied, and requests that wait until it has applied more: read your writes.

An event is covered for a user once the state's `applied` has reached its offset. That holds for every event that the
workers accepted for this user, including duplicates. Other records (dead letters, copies on a wrong partition, other
users' events) never show in this user's state. Those are covered once the workers have finished them: the group has
committed a higher offset, and the replica has then read the changelog to the end that it had after that. Since a worker
commits an offset only after its states are acknowledged, the state then contains everything that it will ever contain
of the records up to there.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, Final

from stream.core import state as interest
from stream.gateway.min_offset import Wanted
from stream.gateway.problems import ProblemError

APPLIED: Final = "applied"
FINISHED: Final = "finished"
PATIENCE: Final = 0.25
"""Seconds that a request waits for its user's state before the group's committed offsets are asked for."""

NONE: Final = (-1, -1, -1)

SourcePartition = tuple[int, int]
"""(behaviour, partition)"""


class Positions:
    """Wakes requests as the replica, the catalogue and the committed offsets move on. Use it in the event loop only."""

    def __init__(self) -> None:
        self._users: dict[bytes, set[asyncio.Event]] = {}
        self._partitions: dict[int, set[asyncio.Event]] = {}
        self._items: set[asyncio.Event] = set()
        self._rules: set[asyncio.Event] = set()
        self._finished: dict[SourcePartition, int] = {}
        self.items = -1
        """Offset in the items topic that the catalogue has reached."""
        self.rules = -1
        """Offset in the rules topic up to which rules are read."""
        self.on_impatient: Callable[[], None] = lambda: None
        """Called when a request asks for committed offsets."""
        self.unowned: Callable[[int], bool] = lambda partition: False
        """Returns whether the changelog holds neither a claim nor a state of a partition."""
        self.asked: dict[int, int] = {}
        """Partition -> number of requests that need its committed offsets."""

    @property
    def waiting(self) -> int:
        """Number of requests that wait."""
        return sum(map(len, self._users.values())) + len(self._items) + len(self._rules)

    def applied(self, users: Iterable[bytes]) -> None:
        """Wake the requests that wait for one of these users' states."""
        if self._users:
            for user in users:
                for event in self._users.get(user, ()):
                    event.set()

    def catalogue(self, offset: int) -> None:
        """Wake the requests that wait for items."""
        self.items = offset
        for event in self._items:
            event.set()

    def rules_read(self, offset: int) -> None:
        """Wake the requests that wait for rules."""
        self.rules = offset
        for event in self._rules:
            event.set()

    def finished(self, partition: int, committed: Mapping[int, int]) -> None:
        """Note committed offsets (behaviour -> offset), once the replica has read what was written before them."""
        for behaviour, offset in committed.items():
            source = behaviour, partition
            self._finished[source] = max(self._finished.get(source, 0), offset)
        for event in self._partitions.get(partition, ()):
            event.set()

    async def wait_items(self, wanted: int, until: float) -> None:
        """Wait until the catalogue has reached an offset. `until` is a time of the loop. Raises ProblemError."""
        while self.items < wanted:
            await self._wait_topic(self._items, f"the catalogue has not reached offset {wanted} of the items", until)

    async def wait_rules(self, wanted: int, until: float) -> None:
        """Wait until rules are read to an offset. `until` is a time of the loop. Raises ProblemError."""
        while self.rules < wanted:
            await self._wait_topic(self._rules, f"rules are not read to offset {wanted} of the rules", until)

    async def _wait_topic(self, waiters: set[asyncio.Event], late: str, until: float) -> None:
        event = asyncio.Event()
        waiters.add(event)
        try:
            if not await _in_time(event, until):
                name, at = ("items", self.items) if waiters is self._items else ("rules", self.rules)
                raise ProblemError(
                    "late",
                    f"{late} topic in time; it is at {at}",
                    field="min_offset",
                    applied={f"{name}/0": at},
                    headers={"Retry-After": "1"},
                )
        finally:
            waiters.discard(event)

    async def wait(
        self,
        user: bytes,
        partition: int,
        read: Callable[[], bytes | None],
        wanted: Wanted,
        until: float,
        topics: tuple[str, ...],
    ) -> tuple[bytes | None, str]:
        """Wait until a user's state contains what is wanted.

        Args:
            user: The user's key.
            partition: The user's partition.
            read: Returns the user's state record as it is now; None for an unknown user.
            wanted: What is wanted.
            until: A time of the loop.
            topics: The source topics, for the problem.
        Returns:
            The record, and how `wanted` was met: APPLIED, FINISHED, or "" if nothing was wanted.
        Raises:
            ProblemError: Not in time. It says how far it is.
            StateError: The record is damaged.
        """
        record = read()
        if not wanted.sources:
            return record, ""
        if how := self._met(_applied(record), partition, wanted):
            return record, how
        event = asyncio.Event()
        self._users.setdefault(user, set()).add(event)
        self._partitions.setdefault(partition, set()).add(event)
        impatient = False
        try:
            began = asyncio.get_running_loop().time()
            while True:
                event.clear()
                record = read()
                applied = _applied(record)
                if how := self._met(applied, partition, wanted):
                    return record, how
                if await _in_time(event, until if impatient else min(until, began + PATIENCE)):
                    continue
                if impatient or asyncio.get_running_loop().time() >= until:
                    raise self._late(applied, partition, wanted, topics)
                impatient = True
                self.asked[partition] = self.asked.get(partition, 0) + 1
                self.on_impatient()
        finally:
            _discard(self._users, user, event)
            _discard(self._partitions, partition, event)
            if impatient:
                self.asked[partition] -= 1
                if not self.asked[partition]:
                    del self.asked[partition]

    def _met(self, applied: Sequence[int], partition: int, wanted: Wanted) -> str:
        how = APPLIED
        for behaviour, offset in wanted.sources.items():
            if applied[behaviour] < offset:
                if self._finished.get((behaviour, partition), 0) <= offset:
                    return ""
                how = FINISHED
        return how

    def _late(self, offsets: Sequence[int], partition: int, wanted: Wanted, topics: tuple[str, ...]) -> ProblemError:
        applied = {f"{topics[behaviour]}/{partition}": offsets[behaviour] for behaviour in wanted.sources}
        committed = {
            f"{topics[behaviour]}/{partition}": self._finished.get((behaviour, partition), 0)
            for behaviour in wanted.sources
        }
        left = ", ".join(f"{topics[behaviour]}/{partition}:{offset}" for behaviour, offset in wanted.sources.items())
        if self.unowned(partition):
            why = (
                f"no worker has run yet: the changelog holds neither a claim nor a state of partition {partition}: start "
                f"`freshet worker`, and ask again for {left}"
            )
        else:
            why = (
                f"the user's state did not contain {left} in time. Last applied offsets of this user: {_offsets_text(applied)}; "
                f"the workers have finished the records below: {_offsets_text(committed)} (0: not known yet). Ask again"
            )
        return ProblemError(
            "late",
            why,
            field="min_offset",
            applied=applied,
            headers={"Retry-After": "1"},
        )


def _applied(record: bytes | None) -> Sequence[int]:
    return NONE if record is None else interest.decode(record).applied


def _offsets_text(offsets: Mapping[str, int]) -> str:
    return ", ".join(f"{name} {offset}" for name, offset in offsets.items())


def _discard(waiters: dict[Any, set[asyncio.Event]], key: Any, event: asyncio.Event) -> None:
    found = waiters.get(key)
    if found is not None:
        found.discard(event)
        if not found:
            del waiters[key]


async def _in_time(event: asyncio.Event, until: float) -> bool:
    """Wait for an event until a time of the loop. Return whether it was set."""
    try:
        async with asyncio.timeout_at(until):
            await event.wait()
    except TimeoutError:
        return event.is_set()
    return True
