"""Closed loop per user: a user's next event may be sent once a slate shows that the previous one is applied. Pure."""

from __future__ import annotations

from collections import deque
from collections.abc import Mapping, Sequence
from typing import NamedTuple

from models.data import Message


class Held(NamedTuple):
    """A held-out event.

    Attributes:
        user: The user's id.
        item: The item's id.
        counted: The item counts for the hit rate.
        message: The message to send.
        words: The event in words, for people.
    """

    user: str
    item: str
    counted: bool
    message: Message
    words: str


class ClosedLoop:
    """Chooses the next events to send: for `width` users at a time, with at most one event in flight for each user.

    Users begin in the order of their first events.

    Args:
        events: The events, in order.
        width: Number of users at a time.
        slow: A user whose events are spread evenly over the whole replay, so that a person can follow them.
    """

    def __init__(self, events: Sequence[Held], width: int = 32, slow: str = "") -> None:
        self._left: dict[str, deque[Held]] = {}
        for event in events:
            self._left.setdefault(event.user, deque()).append(event)
        self._slow = slow
        self._slow_total = len(self._left.get(slow, ()))
        self._slow_done = 0
        self.total = len(events)
        self.done = 0
        order = sorted(self._left, key=lambda user: user != slow)  # stable: only the slow one moves, to the front
        self._ready = deque(order[:width])
        self._waiting = deque(order[width:])
        self._under_way: dict[str, Held] = {}
        self._positions: dict[str, tuple[str, int]] = {}

    @property
    def under_way(self) -> int:
        """Events that no slate has shown yet."""
        return len(self._under_way)

    @property
    def finished(self) -> bool:
        return self.done == self.total

    def take(self, most: int) -> list[Held]:
        """Return at most `most` events to send now. From here on they are in flight."""
        taken: list[Held] = []
        for _ in range(len(self._ready)):
            if len(taken) >= most:
                break
            user = self._ready.popleft()
            if user == self._slow and not self._due():
                self._ready.append(user)
                continue
            event = self._left[user].popleft()
            self._under_way[user] = event
            taken.append(event)
        return taken

    def landed(self, user: str, topic: str, partition: int, offset: int) -> None:
        """Record the position in Kafka of the user's event in flight."""
        self._positions[user] = (f"{topic}/{partition}", offset)

    def shown(self, user: str, applied: Mapping[str, int]) -> Held | None:
        """Handle a slate of `user` -> the event in flight if the slate covers it, else None."""
        position = self._positions.get(user)
        if position is None or applied.get(position[0], -1) < position[1]:
            return None
        del self._positions[user]
        event = self._under_way.pop(user)
        self.done += 1
        self._slow_done += user == self._slow
        if self._left[user]:
            self._ready.append(user)
        elif self._waiting:
            self._ready.append(self._waiting.popleft())
        return event

    def _due(self) -> bool:
        others = self.total - self._slow_total
        return self._slow_done * others <= (self.done - self._slow_done) * self._slow_total
