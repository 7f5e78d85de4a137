"""Seeded made-up events for the benches, and their sending at full speed."""

from __future__ import annotations

import json
import random
import time
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import NamedTuple

from confluent_kafka import Producer

from stream.settings import Settings

COMMENT_WORDS = 24
_WORDS = """
    the a and of to in it is that was for with but this as on not you are film movie story plot one really very great good
    bad dull slow fast funny sad dark light long short sweet bitter strange clever stupid brilliant acting actor actress
    director scene ending beginning middle music score camera picture script dialogue character hero villain family friends
    children love war crime space history comedy drama horror thriller classic watch watched seen again never always often
    twice once first last best worst better worse more less too much enough almost nearly quite rather just only even
    still though because when where who what how why would could should might will can did does had has have been feel felt
    think thought know knew like liked hate hated enjoy enjoyed boring exciting moving touching silly serious beautiful ugly
    perfect flawed honest fake real deep shallow original copied surprising expected memorable forgettable
""".split()  # noqa: SIM905


@dataclass(frozen=True)
class Mix:
    """Shares of the three behaviours; they need not add up to 1."""

    name: str
    click: float
    rating: float
    comment: float


WITH_COMMENTS = Mix("with comments", 0.80, 0.15, 0.05)
NO_COMMENTS = Mix("no comments", 0.84, 0.16, 0.0)


class Message(NamedTuple):
    """One event, ready to send. behaviour: index into Settings.sources."""

    behaviour: int
    key: bytes
    value: bytes


class Traffic:
    """An endless seeded stream of events by `users` users about `items`, of which the first are the most popular.

    Comments have COMMENT_WORDS plain English words drawn at random: no two texts are equal, no vector comes from a cache.
    """

    def __init__(self, mix: Mix, seed: int, users: int, items: Sequence[str]) -> None:
        self._mix = mix
        self._random = random.Random(seed)
        self._users = users
        self._items = items

    def message(self, at: float | None = None) -> Message:
        """at: unix seconds that become the event's time; None: now."""
        draw = self._random
        behaviour = draw.choices((0, 1, 2), (self._mix.click, self._mix.rating, self._mix.comment))[0]
        user = f"user-{draw.randrange(self._users)}"
        body: dict[str, object] = {
            "user": user,
            "item": self._items[int(len(self._items) * draw.random() ** 2)],
            "time": int((time.time() if at is None else at) * 1000),
        }
        if behaviour == 0:
            body["scene"] = draw.choice(("home", "search"))
        elif behaviour == 1:
            body["value"] = draw.randrange(1, 11) / 2
        else:
            body["text"] = " ".join(draw.choices(_WORDS, k=COMMENT_WORDS))
        return Message(behaviour, user.encode(), json.dumps(body).encode())

    def take(self, count: int) -> Iterator[Message]:
        return (self.message() for _ in range(count))


def producer(settings: Settings, **more: object) -> Producer:
    """librdkafka, with Java's partitioner: its own would put users on other partitions."""
    return Producer(
        {"bootstrap.servers": settings.brokers, "partitioner": "murmur2_random", "acks": "all", "linger.ms": 5,
         "queue.buffering.max.messages": 1_000_000, **more}
    )  # fmt: skip


def send_all(settings: Settings, messages: Iterable[Message]) -> int:
    """Send everything as fast as it goes; all acknowledged on return -> how many."""
    out = producer(settings)
    count = 0
    for message in messages:
        out.produce(settings.sources[message.behaviour], message.value, message.key)
        count += 1
    if out.flush(60):
        raise RuntimeError("the broker did not acknowledge all events within 60 s")
    return count


def send_items(settings: Settings, items: Sequence[str]) -> None:
    """Make `items` live. Their attribute `price` is 0 to 99, in turn."""
    out = producer(settings)
    for number, item in enumerate(items):
        body = {
            "item": item, "title": f"The thing called {item}", "text": "a thing", "attributes": {"price": number % 100},
        }  # fmt: skip
        out.produce(settings.items_topic, json.dumps(body).encode(), item.encode())
    if out.flush(60):
        raise RuntimeError("the broker did not acknowledge all items within 60 s")
