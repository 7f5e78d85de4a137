"""The live figures of quality are those of the slates that users had: counted here from the topic, choice by choice."""

from __future__ import annotations

import math
import random
from collections.abc import Callable
from pathlib import Path

import pytest

from stream.settings import Settings
from tests.worker_process import Events, WorkerProcess, slates, until

pytestmark = pytest.mark.integration

USERS, ROUNDS, ITEMS = 40, 6, 50


def test_the_metrics_are_those_counted_from_the_slates(
    world: Callable[..., Settings], bundles: Path, tmp_path: Path
) -> None:
    settings, draw = world(partitions=2), random.Random(0)
    events = Events(settings, items=ITEMS)
    events.send_items()
    worker = WorkerProcess(settings, tmp_path, "w1", bundles=bundles).start().wait_ready()
    chosen: dict[str, list[str]] = {f"u{number}": [] for number in range(USERS)}
    first = {"behaviour": "click", "item": "known"}
    sent = 0

    def send(clicks: dict[str, str]) -> None:
        nonlocal sent
        for user, item in clicks.items():
            topic, message = events.one(user, kind="click", item=item)
            events.put(topic, message)
        events.producer.flush(30)
        sent += len(clicks)
        until(lambda: worker.applied() == sent, 60, "all are applied")

    def all_judge() -> bool:
        """A worker that has just started judges nothing before it has read which slates stand."""
        before = worker.metric("freshet_prequential_choices_total", **first)
        send({f"early-{sent + number}": "item-1" for number in range(USERS)})
        return worker.metric("freshet_prequential_choices_total", **first) == before + USERS

    try:
        until(all_judge, 60, "every choice judges")
        labels = [first, first | {"item": "again"}]
        begun = [worker.metric("freshet_prequential_choices_total", **of) for of in labels]
        ours = first | {"judged": "freshet"}
        names = [f"freshet_prequential_{name}_total" for name in ("hits", "gain", "reciprocal_rank")]
        had = [worker.metric(name, **ours) for name in names]
        for _ in range(ROUNDS):
            clicks = {}
            for user, before in chosen.items():
                clicks[user] = (
                    draw.choice(before) if before and draw.random() < 0.2 else f"item-{1 + draw.randrange(ITEMS)}"
                )
                before.append(clicks[user])
            send(clicks)
        shown: dict[str, list[list[str]]] = {user: [_popular(settings)] for user in chosen}  # who has no slate yet
        for slate in slates(settings):
            if slate["user"] in shown:
                shown[slate["user"]].append([scored["item"] for scored in slate["items"]])
        assert {len(of_user) for of_user in shown.values()} == {1 + ROUNDS}
        places, known, again = [], 0, 0
        for user, items in chosen.items():
            for number, item in enumerate(items):
                if item in items[:number]:
                    again += 1
                    continue
                known += 1
                if item in shown[user][number]:
                    places.append(shown[user][number].index(item))
        assert len(places) > 10
        found = [worker.metric("freshet_prequential_choices_total", **of) for of in labels]
        assert [now - then for now, then in zip(found, begun, strict=True)] == [known, again]
        expected = (
            len(places),
            sum(1 / math.log2(place + 2) for place in places),
            sum(1 / (place + 1) for place in places),
        )
        gained = [worker.metric(name, **ours) - before for name, before in zip(names, had, strict=True)]
        assert gained == pytest.approx(expected)
    finally:
        events.close()
        worker.close()


def _popular(settings: Settings) -> list[str]:
    """The slate for unknown users."""
    return [scored["item"] for scored in slates(settings, "*")[-1]["items"]]
