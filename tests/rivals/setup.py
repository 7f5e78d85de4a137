"""What an agent is given on its command line. Standard library only: Quix Streams has an environment of its own."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass


@dataclass(frozen=True)
class Setup:
    """guarantee: at-least-once or exactly-once; folder: of the state; the times in seconds."""

    brokers: str
    group: str
    source: str
    output: str
    folder: str
    partitions: int
    guarantee: str
    session_timeout: float
    heartbeat: float
    commit_interval: float

    def text(self) -> str:
        return json.dumps(asdict(self))


def parse(text: str) -> Setup:
    return Setup(**json.loads(text))


def number(event_id: str) -> int:
    """An event's number, counted per user from 0: the end of its id."""
    return int(event_id.rpartition("-")[2])


def take(applied: list[int], event: int) -> list[int]:
    """The state that every rival keeps per user: how often each event number was applied, one more for `event`."""
    counts = applied + [0] * (event + 1 - len(applied))
    counts[event] += 1
    return counts
