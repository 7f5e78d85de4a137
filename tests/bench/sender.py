"""The open-loop producer, a process of its own: python -m tests.bench.sender '{"rate": ..., ...}'

It sends event n at start + n / rate whatever the worker does, so a slow worker is not spared; an event's `time` is when
it was due. Prints one line of JSON: how many were sent, and how late the latest left (ms).
"""

from __future__ import annotations

import json
import sys
import time
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from stream.inference.bundle import current, load
from stream.settings import load as load_settings
from tests.bench.traffic import Mix, Traffic, producer


@dataclass(frozen=True)
class Order:
    """rate: events a second; bundles: the folder whose items are spoken of."""

    rate: float
    seconds: float
    seed: int
    users: int
    mix: dict[str, Any]
    bundles: str

    def text(self) -> str:
        return json.dumps(asdict(self))


def send(order: Order) -> dict[str, float]:
    settings = load_settings()
    items = load(current(Path(order.bundles))).item_ids
    traffic = Traffic(Mix(**order.mix), order.seed, order.users, items)
    out = producer(settings, **{"linger.ms": 1})
    out.list_topics(timeout=10)
    count = int(order.rate * order.seconds)
    latest = 0.0
    began = time.time() + 0.2
    for number in range(count):
        due = began + number / order.rate
        ahead = due - time.time()
        if ahead > 0:
            time.sleep(ahead)
        latest = max(latest, -ahead)
        message = traffic.message(due)
        out.produce(settings.sources[message.behaviour], message.value, message.key)
        out.poll(0)
    if out.flush(60):
        raise RuntimeError("the broker did not acknowledge all events within 60 s")
    return {"sent": count, "latest_ms": latest * 1000}


if __name__ == "__main__":
    print(json.dumps(send(Order(**json.loads(sys.argv[1])))))
